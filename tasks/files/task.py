"""A task whose examples lie in a user's files. `file_task` makes one from what a config says; it is then a value, like every task.

What it is: its name, the contents of its record files and how they are sampled, the names and sizes of their images, its scoring and seed.
Where the files lie, how many bad records are borne and where findings are kept is not part of it, so moving the data makes no new step.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from tasks.files.apart import Surveyed, check_apart
from tasks.files.check import Asked, Progress, find_usable, refuse
from tasks.files.conversation import form_of
from tasks.files.examples import FileExamples
from tasks.files.problems import Report, Unusable
from tasks.files.scoring import SCORINGS
from tasks.files.sources import Given, Source, chosen, place, read_source
from tasks.files.survey import pictures_digest, pictures_of, survey
from tasks.task import Example, Split

USUAL_TOKENS = 64
USUAL_SCORING = "exact_match"


@dataclass(frozen=True)
class FileTask:
    """Examples from files. Raises ConfigError for a field that cannot be honoured. See `file_task` for what the fields mean."""

    name: str
    train: Source | None = None
    validation: Source | None = None
    test: Source | None = None
    max_new_tokens: int = USUAL_TOKENS
    scoring: str = USUAL_SCORING
    seed: int = 0
    max_bad_records: int = place(0)
    cache: str = place()
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise ConfigError(f"a task needs a name without space at its ends, not {self.name!r}")
        if self.scoring not in SCORINGS:
            raise ConfigError(f"task {self.name!r}: {unknown('scoring', self.scoring, SCORINGS)}")
        for key, value, least in (("max_new_tokens", self.max_new_tokens, 1), ("max_bad_records", self.max_bad_records, 0)):
            if value < least:
                raise ConfigError(f"task {self.name!r}: {key} is {value}; give {least} or more")
        if not self.sources:
            raise ConfigError(f"task {self.name!r} names no files; give at least one of train, validation and test")

    @property
    def sources(self) -> dict[Split, Source]:
        """The splits that have files."""
        held = {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}
        return {split: source for split, source in held.items() if source is not None}

    def only(self, split: Split) -> "FileTask":
        """What one split's use reads of the task, for the identity of a step that uses no other split.

        For TRAIN scoring and answer length are back at their defaults too: training reads neither, so changing them retrains nothing.
        """
        others: dict[str, Any] = {other.value: None for other in Split if other is not split}
        usual: dict[str, Any] = {"max_new_tokens": USUAL_TOKENS, "scoring": USUAL_SCORING} if split is Split.TRAIN else {}
        self._asked(split)
        return replace(self, **others, **usual)

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        """The first `count` usable records of the split (None, or more than there are: all), opened one by one when asked for.

        Every record looked at is checked first. Raises InputError for a split without files, files that have changed, and more bad
        records than `max_bad_records`.
        """
        if count is not None and count < 0:
            raise ConfigError(f"task {self.name!r}: cannot give {count} examples; ask for 0 or more, or leave the count out")
        asked = self._asked(split)
        usable, report = find_usable(asked, count)
        refuse(report, self.max_bad_records, asked.folder)
        return FileExamples(self.name, split, asked.folder, usable)

    def check(self, split: Split, count: int | None = None, decode: bool = True, progress: Progress | None = None) -> Report:
        """What `examples(split, count)` finds, told: every record that is left out, and why. Raises InputError as it does.

        With `decode` False images only have to be there, which takes no longer than reading the records.
        """
        asked = self._asked(split)
        _, report = find_usable(asked, count, decode, progress)
        refuse(report, self.max_bad_records, asked.folder)
        return report

    def score(self, response: str, example: Example) -> float:
        """How right `response` is by the task's scoring, from 0 to 1."""
        return SCORINGS[self.scoring](response, example.answer)

    def describe(self) -> str:
        """A sentence for each split: how many records of which files, and as what they were recognised."""
        return "\n".join(f"{split}: {', '.join(_described(source, self.seed))}" for split, source in self.sources.items())

    def _asked(self, split: Split) -> Asked:
        source = self.sources.get(split)
        if source is None:
            raise InputError(
                f"task {self.name!r} has no files for the {split} split; add the key {split}: with a file of records to the task "
                f"(it has {', '.join(self.sources)})"
            )
        wants_number = self.scoring == "number" and split is not Split.TRAIN
        return Asked(self.name, split, source, source.folder, self.seed, wants_number, self.cache)


def file_task(
    name: str,
    *,
    train: Given | None = None,
    validation: Given | None = None,
    test: Given | None = None,
    images: str | Path | None = None,
    max_new_tokens: int = USUAL_TOKENS,
    scoring: str = USUAL_SCORING,
    seed: int = 0,
    max_bad_records: int = 0,
    base: str | Path = ".",
    cache: str | Path | None = None,
) -> FileTask:
    """The task that a config describes; reads its record files, and asks for the sizes of their images, to know what it is
    and that no image is in two splits (for that it reads those images whose size occurs in two of them).

    train, validation, test: a file of records, a brace list `{a,b}.json`, a YAML mixture, {json_path, sampling_strategy}, or a list of
    these. images: the folder that image names start from; that of a split's first record file unless given. Relative paths start at `base`.
    scoring: exact_match, contains or number. seed: for `random` sampling. max_bad_records: how many unusable records may be left out of
    a split. cache: a directory in which findings are kept, shared by all processes that read the task.

    Raises ConfigError for what is written wrongly; InputError for files that are missing or unknown, and for splits that share an image.
    """
    base, kept = Path(base), os.path.abspath(cache) if cache else ""
    given = {
        split: files for split, files in ((Split.TRAIN, train), (Split.VALIDATION, validation), (Split.TEST, test)) if files is not None
    }
    sources = {split: read_source(files, base, kept, f"task {name!r}, {split}") for split, files in given.items()}
    if not sources:
        raise ConfigError(f"task {name!r} names no files; give at least one of train, validation and test")
    folder = None if images is None else os.path.abspath(base / os.path.expanduser(images))
    if folder is not None and not os.path.isdir(folder):
        raise InputError(f"task {name!r}: there is no image folder {folder}; check images (a relative path starts at {base.absolute()})")
    sources = {split: replace(source, folder=folder or os.path.dirname(source.files[0].path)) for split, source in sources.items()}
    found = {split: survey(source, seed, kept) for split, source in sources.items()}
    surveyed = {split: Surveyed(found[split], pictures_of(found[split], source.folder)) for split, source in sources.items()}
    check_apart(name, surveyed, kept)
    known = {split: replace(source, pictures=pictures_digest(surveyed[split].pictures, source.folder)) for split, source in sources.items()}
    return FileTask(
        name,
        known.get(Split.TRAIN),
        known.get(Split.VALIDATION),
        known.get(Split.TEST),
        max_new_tokens,
        scoring,
        seed,
        max_bad_records=max_bad_records,
        cache=kept,
    )


def _described(source: Source, seed: int) -> list[str]:
    """What each file of a source is."""
    found = []
    for file, records, numbers in chosen(source, seed):
        try:
            form = form_of(records[numbers[0]])
        except Unusable:
            form = "no known form"
        of = f"all {len(numbers):,}" if len(numbers) == len(records) else f"{len(numbers):,} of {len(records):,}"
        found.append(f"{of} records of {file.name} ({records.kind}, {form}; {file.sampling})")
    return found
