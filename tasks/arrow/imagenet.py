"""ImageNet-1k (ILSVRC2012): images with their class; a row for an image. arXiv 1409.0575.

Expected below the root, as published and unpacked, or below `ILSVRC/Data/CLS-LOC/` as on Kaggle: `train/<class>/*.JPEG` and `val/`. The
classes of val's images are told by folders of classes in it, by `LOC_val_solution.csv`, or by the development kit
(`ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt` with `meta.mat`, which says what its numbers mean: they are not the
order of the classes). `LOC_synset_mapping.txt`, where it is there, gives the names of the classes.

The published validation images are for the test. So that nothing is chosen by them, a hundredth of each class's training images, at least
one, is held back for validation: those whose digest comes first, so the choice depends on their own names and adding images moves few. A
label is the class's WordNet id (n01440764): two pairs of classes share a name, and sorted ids are the usual numbers 0 to 999. Rows of
train lie in the order of the digests too, so that the first so many of them are of all classes. All names of images are held in memory,
no image is.
"""

import csv
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from tasks.arrow.drafts import Draft, Lack, Lacking, Options, Source, Target
from tasks.arrow.layout import LABELS
from tasks.arrow.names import DATA_SETS, IMAGENET
from tasks.arrow.places import first_of, optional
from tasks.arrow.streaming import text_lines

CLASS = re.compile(r"n\d{8}")
ENDINGS = frozenset({".jpeg", ".jpg", ".png"})
BELOW = ("", "ILSVRC/Data/CLS-LOC/", "ILSVRC2012/")
"""Where the folders train and val may lie."""

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
KIT = ("ILSVRC2012_devkit_t12/data/", "devkit/data/", "data/", "")
"""Where the files of the development kit may lie."""

HELD_BACK = 100
"""One in so many training images of a class is held back."""

NAMES = "imagenet_classes.json"
"""A file beside the Arrow files: the names of the classes."""


def open_source(root: Path, options: Options) -> Source:
    """The rows of ImageNet's files. Raises InputError for folders or labels that are missing or not as published."""
    wanted = [file for file in DATA_SETS["imagenet"].files if not options.only or file in options.only]
    parts = cache(lambda: divided(root))
    makers: dict[str, Callable[[], Iterator[Draft | Lack]]] = {
        f"{IMAGENET}train_": lambda: _training(parts()[0]),
        f"{IMAGENET}held_back": lambda: _training(parts()[1]),
        f"{IMAGENET}val": lambda: published(root),
    }
    extra = {NAMES: json.dumps(names, indent=1).encode()} if (names := class_names(root)) else {}
    return Source(tuple(Target(file, LABELS, makers[file]) for file in wanted), {"data_set": "imagenet", "version": 1}, extra)


def divided(root: Path) -> tuple[list[str], list[str]]:
    """The training images that are learned from, and those that are held back, as names below the root, in the order of their digests."""
    learned, held = [], []
    folder = folder_of(root, "train")
    for kind in classes_of(folder):
        images = sorted(_images(folder / kind), key=_digest)
        if len(images) < 2:
            raise InputError(f"{folder / kind}: holds {len(images)} images; one is held back, so a class needs two or more; unpack it anew")
        count, place = max(1, len(images) // HELD_BACK), (folder / kind).relative_to(root).as_posix()
        held += [f"{place}/{name}" for name in images[:count]]
        learned += [f"{place}/{name}" for name in images[count:]]
    return sorted(learned, key=_digest), sorted(held, key=_digest)


def published(root: Path) -> Iterator[Draft | Lack]:
    """The published validation images with their classes, in the order of their names, which is that of the publication."""
    folder = folder_of(root, "val")
    place = folder.relative_to(root).as_posix()
    if _listed(folder, directories=True):
        files = {Path(name).stem: f"{kind}/{name}" for kind in classes_of(folder) for name in _images(folder / kind)}
        labels = {image: file.partition("/")[0] for image, file in files.items()}
    else:
        files = {Path(name).stem: name for name in _images(folder)}
        labels = told_classes(root)
    known = set(classes_of(folder_of(root, "train"))) if _has_folder(root, "train") else set(labels.values())
    for image in sorted({*labels, *files}):
        if image not in labels:
            yield Lack(Lacking.ANNOTATION, f"{place}/{files[image]}")
            continue
        if labels[image] not in known:
            raise InputError(f"{folder}: image {image} is of class {labels[image]}, which has no folder in train; unpack it there")
        yield Draft((f"{place}/{files.get(image, image + '.JPEG')}",), {"label": labels[image], "image_id": image, "split": "val"}, 1)


def told_classes(root: Path) -> dict[str, str]:
    """The class of every validation image by its name without ending, as a file tells them. Raises InputError where there is none."""
    table = optional(root, ("LOC_val_solution.csv", "ILSVRC/LOC_val_solution.csv"))
    truth = optional(root, [f"{place}{TRUTH}" for place in KIT])
    if table is not None:
        return _solution(table)
    if truth is None:
        raise InputError(
            f"{root}: nothing tells the classes of the images in val: it has no folders of classes, and there is neither "
            f"LOC_val_solution.csv nor {KIT[0]}{TRUTH}; put one of them below the root"
        )
    kinds = kit_classes(first_of(root, [f"{place}meta.mat" for place in KIT]))
    labels = {}
    for number, line in text_lines(truth):
        said = line.strip()
        if said and (not said.isdecimal() or int(said) not in kinds):
            raise InputError(f"{truth}, line {number}: {line!r} is no class that meta.mat knows; fetch the development kit again")
        if said:
            labels[f"ILSVRC2012_val_{number:08d}"] = kinds[int(said)]
    return labels


def kit_classes(path: Path) -> dict[int, str]:
    """The development kit's number of each class -> its WordNet id, from meta.mat. Raises InputError for a file that is not the kit's."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        kinds = {int(number): str(kind) for number, kind in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except (MatReadError, OSError, LookupError, ValueError, TypeError, NotImplementedError, zlib.error) as error:
        raise InputError(f"{path}: is not the development kit's table of classes ({error}); fetch the kit again") from error
    if not kinds or not all(CLASS.fullmatch(kind) for kind in kinds.values()):
        raise InputError(f"{path}: names no classes, or strange ones; fetch the development kit again")
    return kinds


def class_names(root: Path) -> dict[str, str]:
    """WordNet id -> the names of the class, of LOC_synset_mapping.txt; empty where that is not there. Raises InputError for other lines."""
    path = optional(root, ("LOC_synset_mapping.txt", "ILSVRC/LOC_synset_mapping.txt"))
    names = {}
    for number, line in text_lines(path) if path else ():
        kind, _, name = line.strip().partition(" ")
        if line.strip() and (not CLASS.fullmatch(kind) or not name.strip()):
            raise InputError(f"{path}, line {number}: {line!r} is no class with its name; fetch the published file")
        if line.strip():
            names[kind] = name.strip()
    return names


def folder_of(root: Path, name: str) -> Path:
    """The folder train or val below the root. Raises InputError naming where it is looked for."""
    found = next((root / place / name for place in BELOW if (root / place / name).is_dir()), None)
    if found is None:
        told = " nor ".join(f"{place}{name}/" for place in BELOW)
        raise InputError(f"{root} has neither {told}; unpack ILSVRC2012_img_{name}.tar there, or check --root")
    return found


def classes_of(folder: Path) -> list[str]:
    """The classes that have a folder in `folder`, sorted. Raises InputError for anything else in it, such as archives not unpacked."""
    strange = sorted(name for name in _listed(folder, directories=False))
    if strange:
        advice = "unpack each archive into a folder of its name" if strange[0].endswith(".tar") else "take it out"
        raise InputError(f"{folder}: {strange[0]} ({len(strange):,} such) is no folder of a class; {advice}")
    kinds = sorted(_listed(folder, directories=True))
    wrong = next((kind for kind in kinds if not CLASS.fullmatch(kind)), None)
    if wrong is not None or not kinds:
        what = f"the folder {wrong!r} is named by no class (n and eight digits)" if wrong else "has no folders of classes"
        raise InputError(f"{folder}: {what}; check --root")
    return kinds


def _training(images: list[str]) -> Iterator[Draft | Lack]:
    for image in images:
        path = Path(image)
        yield Draft((image,), {"label": path.parent.name, "image_id": path.stem, "split": "train"}, 1)


def _solution(path: Path) -> dict[str, str]:
    """The classes that LOC_val_solution.csv tells: an image has boxes, all of one class."""
    labels = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                kind = _class_of(row)
                if kind is None:
                    raise InputError(
                        f"{path}, line {number}: is no image with its class (ImageId, PredictionString); fetch the published file"
                    )
                labels[row["ImageId"].strip()] = kind
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); fetch the published file") from error
    return labels


def _class_of(row: Mapping[str, Any]) -> str | None:
    kind = str(row.get("PredictionString") or "").split(" ", 1)[0]
    return kind if CLASS.fullmatch(kind) and str(row.get("ImageId") or "").strip() else None


def _images(folder: Path) -> list[str]:
    """The image files in a folder. Raises InputError for a file that is no image by its name."""
    names = _listed(folder, directories=False)
    wrong = next((name for name in names if os.path.splitext(name)[1].lower() not in ENDINGS), None)
    if wrong is not None:
        raise InputError(f"{folder}: {wrong} is no image by its name; take it out")
    return names


def _listed(folder: Path, directories: bool) -> list[str]:
    """What is in a folder and not hidden: folders, or everything else."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir() == directories]


def _has_folder(root: Path, name: str) -> bool:
    return any((root / place / name).is_dir() for place in BELOW)


def _digest(image: str) -> bytes:
    """Where an image stands in the draw, by its own name: the class is part of the published one."""
    return blake2b(f"imagenet/{os.path.basename(image)}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
