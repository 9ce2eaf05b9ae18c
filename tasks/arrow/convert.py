"""Converts a published data set into Arrow files: look for everything first, then write, then publish all files at once.

The first pass reads the annotations and asks the file system for every image, so that a wrong root or missing images are told within
seconds, before anything is written. The second reads the images, checks and writes them. The files stand in a hidden directory until the
last is complete. No more than one batch of rows and a few images on their way are held, whatever the size of the data set.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from tasks.arrow import coco, conceptual_captions, flickr30k, imagenet, nlvr2, sbu, visual_genome, vqav2
from tasks.arrow.drafts import OWN_OPTIONS, Lack, Options, Source, Target
from tasks.arrow.names import DATA_SETS, SHARD_ROWS, data_set, is_sharded
from tasks.arrow.pictures import fetch_all, lacking_image
from tasks.arrow.publishing import Publishing, check_output
from tasks.arrow.report import Converted, FileRow, Lacks
from tasks.arrow.writing import ArrowWriter

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many rows were gone through, and of how many (0: not known yet)."""

CONVERTERS: dict[str, Callable[[Path, Options], Source]] = {
    "coco": coco.open_source,
    "flickr30k": flickr30k.open_source,
    "vqav2": vqav2.open_source,
    "nlvr2": nlvr2.open_source,
    "visual_genome": visual_genome.open_source,
    "sbu": sbu.open_source,
    "conceptual_captions": conceptual_captions.open_source,
    "imagenet": imagenet.open_source,
}
"""Data set -> what opens its annotations below a root. One file each."""

TOLD_EVERY = 64
"""Rows between calls of the progress."""


def convert(name: str, root: Path, out: Path, options: Options | None = None, progress: Progress | None = None) -> Converted:
    """Write the Arrow files of data set `name`, whose published files lie below `root`, into the directory `out`.

    Raises ConfigError for an unknown name or option and for files that are there already, InputError for annotations that are missing or
    not as published, and where more is missing than `options.max_missing`. Then nothing is written.
    """
    options = options or Options()
    data = data_set(name)
    check_options(name, options)
    if not root.is_dir():
        raise InputError(f"{name}: there is no directory {root}; check --root")
    check_output(out, data.files, options, data.vocabulary)
    source = CONVERTERS[name](root, options)
    tell = progress or _silent
    found = look(source.targets, str(root), tell)
    found.refuse(name, options.max_missing, str(root))
    with Publishing(out, name) as place:
        lacks, files = Lacks(), list[FileRow]()
        source.notes.clear()
        counted = _Counted(tell, found.rows)
        for target in source.targets:
            files += write(target, source, root, place.folder, options, lacks, counted)
        lacks.refuse(name, options.max_missing, str(root))
        for file, content in source.extra.items():
            (place.folder / file).write_bytes(content)
        place.publish(files, lacks, options, tuple(source.extra))
    return Converted(name, tuple(files), lacks, tuple(source.notes), tuple(source.extra))


def check_options(name: str, options: Options) -> None:
    """ConfigError for what cannot be honoured."""
    for option in fields(options):
        owner = OWN_OPTIONS.get(option.name, name)
        if owner != name and getattr(options, option.name) != option.default:
            raise ConfigError(f"--{option.name.replace('_', '-')} belongs to {owner}; {name} has no such choice, leave it out")
    for word in ("max_missing", "least_answers", "rest_images"):
        least = 0 if word == "max_missing" else 1
        if getattr(options, word) < least:
            raise ConfigError(f"--{word.replace('_', '-')} is {getattr(options, word)}; give {least} or more")
    for file in options.only:
        if file not in DATA_SETS[name].files:
            raise ConfigError(f"--only: {unknown(f'file of {name}', file, DATA_SETS[name].files)}")


def look(targets: Sequence[Target], root: str, tell: Progress) -> Lacks:
    """What the annotations lack and which images are not there, of all files. Opens no image."""
    found = Lacks()
    counted = _Counted(tell, 0)
    for target in targets:
        rows = 0
        for row in target.rows():
            lack = row if isinstance(row, Lack) else lacking_image(root, row)
            if lack is not None:
                found.add(target.name, lack)
            if not isinstance(row, Lack):
                rows += 1
                counted.step(f"looking for the images of {target.name}")
        if not rows:
            raise InputError(f"{target.name}: the annotations give it no row; check that they are the published ones")
        found.rows += rows
    return found


def write(target: Target, source: Source, root: Path, folder: Path, options: Options, lacks: Lacks, counted: "_Counted") -> list[FileRow]:
    """Write a target's file or shards into `folder`. Once too much is missing nothing more is written, but all is looked at."""
    rows = _sound(target, str(root), options, lacks, counted)
    written: list[FileRow] = []
    sharded = is_sharded(target.name)
    more = next(rows, None)
    while more is not None:
        name = f"{target.name}{len(written)}" if sharded else target.name
        head = {**source.head, "file": name, "texts": target.layout.texts}
        texts = 0
        with ArrowWriter(folder / f"{name}.arrow", target.layout, head) as writer:
            while more is not None and not (sharded and writer.count == SHARD_ROWS):
                if lacks.total <= options.max_missing:
                    writer.add(more.values)
                    texts += more.texts
                more = next(rows, None)
        if writer.written is not None:
            done = writer.written
            written.append(FileRow(name, done.rows, done.rows * len(target.layout.images), texts, done.size, done.digest, 0))
    if not written and lacks.total <= options.max_missing:
        raise InputError(f"{lacks.sentence(target.name)}; no row of {target.name} is left, so there is nothing to write")
    first = [FileRow(**{**vars(row), "missing": lacks.of_file(target.name)}) for row in written[:1]]
    return first + written[1:]


@dataclass(frozen=True)
class _Row:
    """A row with its images, ready to be written."""

    values: dict[str, object]
    texts: int


def _sound(target: Target, root: str, options: Options, lacks: Lacks, counted: "_Counted") -> Iterator[_Row]:
    """The rows whose images are sound; the others are counted."""
    for fetched in fetch_all(root, target.rows(), options.decode):
        if isinstance(fetched, Lack):
            lacks.add(target.name, fetched)
            continue
        draft, images = fetched
        lacks.rows += 1
        counted.step(f"writing {target.name}")
        if isinstance(images, Lack):
            lacks.add(target.name, images)
        else:
            yield _Row({**draft.values, **dict(zip(target.layout.images, images, strict=True))}, draft.texts)


@dataclass
class _Counted:
    """Counts rows and tells now and then."""

    tell: Progress
    total: int
    done: int = 0

    def step(self, what: str) -> None:
        self.done += 1
        if self.done % TOLD_EVERY == 0 or self.done == self.total:
            self.tell(what, self.done, self.total)


def _silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""
