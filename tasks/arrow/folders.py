"""Labelled images in plain folders: one folder per class, the images below it. A set that reads them where they lie.

It is known by the names and sizes of its image files. No image is in two splits, by its bytes: those files are compared whose sizes in
bytes occur in two splits.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, overload

from foundation.errors import ConfigError, InputError
from tasks.files.apart import file_mark
from tasks.files.images import open_picture
from tasks.files.problems import Unusable
from tasks.files.sources import place
from tasks.pairs.records import Kind, Labelled, Record
from tasks.task import Split

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass(frozen=True)
class Folder:
    """One split: the digest of the names and sizes of its images, and where it lies."""

    digest: str
    path: str = place()


@dataclass(frozen=True)
class FolderSet:
    """Labelled images in folders. `folder_set` makes one, checked."""

    name: str
    train: Folder
    validation: Folder | None = None
    test: Folder | None = None
    version: ClassVar[int] = 1

    @property
    def kind(self) -> Kind:
        """Labels."""
        return Kind.LABELS

    def records(self, split: Split, count: int | None = None) -> Sequence[Record]:
        """The first `count` images of the split (None: all), class by class, sorted. InputError where there is none or it has changed."""
        if count is not None and count < 0:
            raise ConfigError(f"set {self.name!r}: cannot give {count} records; ask for 0 or more, or leave the count out")
        folder = {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}[split]
        if folder is None:
            raise InputError(f"set {self.name!r} has no folder for the {split} split; ask for another split")
        images = images_of(folder.path)
        if _digest(images) != folder.digest:
            raise InputError(f"{folder.path}: its images have changed since set {self.name!r} was made from it; run the experiment again")
        return FolderRecords(folder.path, [name for name, _ in images][:count])

    def choices(self) -> tuple[str, ...]:
        """The classes of the training folder, sorted."""
        return classes_of(self.train.path)


class FolderRecords(Sequence[Record]):
    """Images by their names in a folder."""

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        """One image with its class; it is decoded when it is asked for."""
        if isinstance(index, slice):
            return FolderRecords(self.folder, self.names[index])
        name = self.names[index]
        return Labelled(name, partial(picture, self.folder, name), name.partition("/")[0])


def folder_set(name: str, train: str | Path, validation: str | Path | None = None, test: str | Path | None = None) -> FolderSet:
    """A set over folders that hold a folder per class each. Raises InputError for one that is missing, holds something else, has a class

    that the training folder has not, or shares an image with another.
    """
    given = {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}
    paths = {split: os.path.abspath(path) for split, path in given.items() if path is not None}
    found = {split: Folder(_digest(images_of(path)), path) for split, path in paths.items()}
    known = classes_of(paths[Split.TRAIN])
    for path in paths.values():
        strange = [each for each in classes_of(path) if each not in known]
        if strange:
            raise InputError(f"{path}: has the class {strange[0]!r}, which {paths[Split.TRAIN]} has not; learn from it, or leave it out")
    check_apart(name, paths)
    return FolderSet(name, found[Split.TRAIN], found.get(Split.VALIDATION), found.get(Split.TEST))


def images_of(folder: str) -> tuple[tuple[str, int], ...]:
    """Every image below the class folders, sorted by class and name, with its size in bytes. Raises InputError."""
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}; name one that holds a folder of images per class")
    return _images_of(folder, os.stat(folder).st_mtime_ns)


@lru_cache(maxsize=32)
def _images_of(folder: str, changed: int) -> tuple[tuple[str, int], ...]:
    found = []
    for label in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")):
        for above, below, files in os.walk(os.path.join(folder, label)):
            below.sort()
            for file in files:
                name = os.path.relpath(os.path.join(above, file), folder).replace(os.sep, "/")
                if not file.startswith("."):
                    found.append((_checked(folder, name), os.stat(os.path.join(above, file)).st_size))
    if not found:
        raise InputError(f"{folder}: holds no images; it should hold a folder of images per class")
    return tuple(sorted(found))


def classes_of(folder: str) -> tuple[str, ...]:
    """The names of the class folders that hold images, sorted."""
    return tuple(sorted({name.partition("/")[0] for name, _ in images_of(folder)}))


def check_apart(name: str, paths: dict[Split, str]) -> None:
    """Raises InputError where two splits hold the same image."""
    sizes = {split: {size for _, size in images_of(path)} for split, path in paths.items()}
    for one, other in ((one, other) for one in paths for other in paths if list(Split).index(one) < list(Split).index(other)):
        both = sizes[one] & sizes[other]
        first, second = (_marks(paths[split], both) for split in (one, other))
        shared = sorted(first.keys() & second.keys())
        if shared:
            raise InputError(
                f"set {name!r}: {one} and {other} share {len(shared):,} images, e.g. {first[shared[0]]} and {second[shared[0]]}; "
                "put each image into one split"
            )


def picture(folder: str, name: str) -> "Image":
    """An image, RGB. Raises InputError where it cannot be decoded."""
    try:
        return open_picture(folder, name)
    except Unusable as error:
        raise InputError(f"{folder}: {error.kind.removeprefix('with ')} ({error.detail}); mend or remove it") from error


def _marks(folder: str, sizes: set[int]) -> dict[str, str]:
    """Mark of the bytes -> place, of the images with these sizes."""
    places = [f"{folder}/{name}" for name, size in images_of(folder) if size in sizes]
    return {file_mark(place): place for place in places}


def _checked(folder: str, name: str) -> str:
    if os.path.splitext(name)[1].lower() not in ENDINGS:
        raise InputError(f"{folder}: {name} is no image by its name; take it out, a class folder holds images alone")
    return name


def _digest(images: Sequence[tuple[str, int]]) -> str:
    return sha256("\n".join(f"{name}\t{size}" for name, size in images).encode("utf-8", "surrogateescape")).hexdigest()
