"""Sets of images with text in Arrow files: published ones by name, own ones by their files, several joined into one.

A set is a value: it is known by the contents of its files (their SHA-256, which the converters note beside them) and which split reads
them, never by where they lie. Light to import.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from tasks.arrow.apart import Apart, check_apart
from tasks.arrow.names import ENDING, data_set, is_sharded
from tasks.arrow.publishing import present
from tasks.arrow.reading import digest_of, open_rows
from tasks.arrow.records import COLUMNS, HELD, ArrowFile, ArrowRecords
from tasks.files.sources import place
from tasks.pairs.records import Kind, Record
from tasks.task import Split

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class ArrowSet:
    """Records of one kind in Arrow files, by split. `arrow_set`, `files_set` and `joined_set` make one, checked.

    `vocabulary` is the file of answers to choose among (QUESTIONS); `cache` a directory where digests are kept.
    """

    name: str
    kind: Kind
    train: tuple[ArrowFile, ...] = ()
    validation: tuple[ArrowFile, ...] = ()
    test: tuple[ArrowFile, ...] = ()
    vocabulary: ArrowFile | None = None
    cache: str = place()
    version: ClassVar[int] = 1

    @property
    def files(self) -> dict[Split, tuple[ArrowFile, ...]]:
        """The files of each split."""
        return {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}

    def records(self, split: Split, count: int | None = None) -> Sequence[Record]:
        """The first `count` records of the split (None: all), files in order. InputError for a split without files, or changed ones."""
        if count is not None and count < 0:
            raise ConfigError(f"set {self.name!r}: cannot give {count} records; ask for 0 or more, or leave the count out")
        files = self.files[split]
        if not files:
            with_files = ", ".join(each.value for each in Split if self.files[each])
            raise InputError(f"set {self.name!r} has no files for the {split} split (it has {with_files}); ask for another split")
        for file in files:
            self._check_unchanged(file)
        return ArrowRecords(self.kind, split, files, count)

    def choices(self) -> tuple[str, ...]:
        """The answers of the vocabulary file (QUESTIONS), or the classes of the training files, sorted (LABELS)."""
        if self.kind is Kind.LABELS:
            return tuple(sorted({str(label) for file in self.train for label in open_rows(file.path).plain("label")}))
        if self.vocabulary is None:
            return ()
        self._check_unchanged(self.vocabulary)
        return read_vocabulary(self.vocabulary.path)

    def _check_unchanged(self, file: ArrowFile) -> None:
        if digest_of(file.path, self.cache) != file.digest:
            raise InputError(
                f"{file.path}: has changed since set {self.name!r} was made from it; run the experiment again, so that the steps that "
                "rest on it are known by its new content"
            )


def arrow_set(
    data: str,
    roots: Paths,
    *,
    variant: str | None = None,
    name: str | None = None,
    cache: str | Path | None = None,
    apart: Apart = Apart.IDS,
) -> ArrowSet:
    """A published data set, converted by `data convert`, whose files lie in one of `roots` or several.

    variant: which files a split reads (coco: restval, train_only; vqav2: test, test-dev, train_val; nlvr2: all, balanced, unbalanced;
    default: the first). apart: how it is checked that no image is in two splits. Raises ConfigError, InputError.
    """
    known = data_set(data)
    chosen = variant or next(iter(known.splits))
    if chosen not in known.splits:
        raise ConfigError(unknown(f"variant of {data}", chosen, known.splits))
    folders = [Path(each).absolute() for each in _listed(roots)]
    splits = {split: [path for file in files for path in find(data, file, folders)] for split, files in known.splits[chosen].items()}
    vocabulary = find_one(data, known.vocabulary, folders) if known.vocabulary else None
    return _checked(name or data, known.kind, splits, vocabulary, cache, apart)


def files_set(
    name: str,
    kind: Kind,
    *,
    train: Paths = (),
    validation: Paths = (),
    test: Paths = (),
    vocabulary: str | Path | None = None,
    cache: str | Path | None = None,
    apart: Apart = Apart.IDS,
) -> ArrowSet:
    """A set of any Arrow files with the columns of its kind (`records.COLUMNS`); LABELS ones have a column `label`."""
    given = {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}
    splits = {split: [Path(each).absolute() for each in _listed(paths)] for split, paths in given.items()}
    if not any(splits.values()):
        raise ConfigError(f"set {name!r} names no files; give at least one of train, validation and test")
    if kind is Kind.QUESTIONS and vocabulary is None:
        raise ConfigError(f"set {name!r}: questions need a vocabulary, the file of answers to choose among")
    return _checked(name, kind, splits, Path(vocabulary).absolute() if vocabulary else None, cache, apart)


def joined_set(name: str, parts: Iterable[ArrowSet], apart: Apart = Apart.IDS) -> ArrowSet:
    """Several sets of one kind as one, their files in order. Raises ConfigError where kinds or vocabularies differ."""
    parts = list(parts)
    kinds = {part.kind for part in parts}
    if len(kinds) != 1:
        told = ", ".join(f"{part.name} ({part.kind})" for part in parts) or "none"
        raise ConfigError(f"set {name!r}: only sets of one kind can be joined, these are {told}")
    if len({part.vocabulary.digest if part.vocabulary else "" for part in parts}) > 1:
        raise ConfigError(f"set {name!r}: its parts choose among different answers; convert them with one vocabulary")
    splits = {split: [Path(file.path) for part in parts for file in part.files[split]] for split in Split}
    vocabulary = Path(parts[0].vocabulary.path) if parts[0].vocabulary else None
    return _checked(name, parts[0].kind, splits, vocabulary, parts[0].cache or None, apart)


def find(data: str, file: str, folders: Sequence[Path]) -> list[Path]:
    """Where a file lies among the folders, or all shards of a run in order. Raises InputError."""
    if not is_sharded(file):
        return [find_one(data, file + ENDING, folders)]
    shards = {int(path.stem.removeprefix(file)): path for folder in reversed(folders) for path in present(folder, file)}
    if not shards:
        raise InputError(f"{data}: there is no {file}0{ENDING} in {_told(folders)}; {_advice(data)}")
    gaps = sorted(set(range(max(shards))) - set(shards))
    if gaps:
        raise InputError(
            f"{data}: {file}{gaps[0]}{ENDING} is missing from {_told(folders)}, which has {file}{max(shards)}{ENDING}; copy it"
        )
    return [shards[number] for number in sorted(shards)]


def find_one(data: str, file: str, folders: Sequence[Path]) -> Path:
    """Where a file lies: in the first of the folders that has it. Raises InputError."""
    found = next((folder / file for folder in folders if (folder / file).exists()), None)
    if found is None:
        raise InputError(f"{data}: there is no {file} in {_told(folders)}; {_advice(data)}")
    return found


def read_vocabulary(path: str) -> tuple[str, ...]:
    """The answers of a vocabulary file: its list `answers`. Raises InputError."""
    try:
        answers = json.loads(Path(path).read_text(encoding="utf-8"))["answers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no vocabulary, an object with a list 'answers' ({error}); convert the data set again") from error
    return tuple(answers)


def _checked(
    name: str, kind: Kind, splits: dict[Split, list[Path]], vocabulary: Path | None, cache: str | Path | None, apart: Apart
) -> ArrowSet:
    """The set over these files, which have the columns of its kind, the vocabulary they were written with, and no image in two splits."""
    kept = os.path.abspath(cache) if cache else ""
    files = {split: _files(paths, kept) for split, paths in splits.items()}
    answers = ArrowFile(vocabulary.name, digest_of(str(vocabulary), kept), str(vocabulary)) if vocabulary else None
    expected = sha256(vocabulary.read_bytes()).hexdigest() if vocabulary else None
    for file in (file for each in files.values() for file in each):
        rows = open_rows(file.path)
        lacking = [column for column in COLUMNS[kind] if column not in rows.columns]
        if lacking:
            raise InputError(
                f"{file.path}: has no column {', '.join(map(repr, lacking))}, which {kind.value} need; it has {', '.join(rows.columns)}"
            )
        strange = next((column for column in COLUMNS[kind] if HELD.get(column, "") not in rows.types[column]), None)
        if strange is not None and len(rows):
            raise InputError(
                f"{file.path}: column {strange!r} is of type {rows.types[strange]}, and {kind.value} need {HELD[strange]} values in it; "
                "write the encoded bytes of images, and texts as texts"
            )
        if rows.head.get("vocabulary", expected) != expected:
            raise InputError(f"{file.path}: was written with another vocabulary than {vocabulary}; convert all files of the data set anew")
    check_apart(name, kind, files, apart, kept)
    return ArrowSet(name, kind, files[Split.TRAIN], files[Split.VALIDATION], files[Split.TEST], answers, kept)


def _files(paths: Sequence[Path], cache: str) -> tuple[ArrowFile, ...]:
    """The files with their digests, under names that differ."""
    seen, files = Counter[str](), []
    for path in paths:
        seen[path.stem] += 1
        label = path.stem if seen[path.stem] == 1 else f"{path.stem}~{seen[path.stem]}"
        files.append(ArrowFile(label, digest_of(str(path), cache), str(path)))
    return tuple(files)


def _listed(given: Paths) -> list[str | Path]:
    return [given] if isinstance(given, str | Path) else list(given)


def _told(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders)) or "no folder"


def _advice(data: str) -> str:
    return f"write it with: python -m pipeline data convert {data} --root ... --out ..."
