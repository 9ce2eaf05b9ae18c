"""A published benchmark as a task. `benchmark_task` makes one of the raw files in a directory; it is then a value, like every task.

What it is: its name, the benchmark with its options, the contents of its raw files split by split, and how its questions are answered.
Where the files lie is no part of it, so moving them makes no new step. Images that lie in files of their own enter by names and sizes.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from foundation.errors import ConfigError, InputError
from tasks.benchmarks.benchmark import Benchmark, Question
from tasks.benchmarks.examples import BenchmarkExamples
from tasks.benchmarks.fetch import raw_directory
from tasks.benchmarks.questions import chosen, file_split, holds_back, questions_of, splits_of
from tasks.benchmarks.raw import Raw, is_picture, spellings
from tasks.benchmarks.registry import SHARED_PICTURES, get_benchmark, shared_pictures
from tasks.benchmarks.survey import look, pictures
from tasks.files.cache import file_digest
from tasks.files.check import Progress
from tasks.files.problems import Report
from tasks.files.sources import place
from tasks.task import Answering, Example, Split


@dataclass(frozen=True)
class BenchmarkTask:
    """The questions of a benchmark. `train`, `validation`, `test`: digest of the raw files of each split, empty where they are not here.

    `others`: which splits the directory holds besides, so that a check can tell that they share no picture.
    """

    name: str
    benchmark: Benchmark
    train: str = ""
    validation: str = ""
    test: str = ""
    answering: Answering = Answering.GENERATE
    directory: str = place()
    cache: str = place()
    others: str = place()
    max_shared_pictures: int = place(0)
    version: ClassVar[int] = 1

    @property
    def digests(self) -> dict[Split, str]:
        """The splits that are here, with the digest of the raw files of each."""
        held = {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}
        return {split: digest for split, digest in held.items() if digest}

    @property
    def max_new_tokens(self) -> int:
        """How many tokens an answer may take."""
        return self.benchmark.max_new_tokens

    @property
    def macro(self) -> bool:
        """Whether its score is the mean of its groups' means."""
        return self.benchmark.macro

    def only(self, split: Split) -> "BenchmarkTask":
        """What one split's use reads of the task, for the identity of a step that uses no other split.

        For TRAIN the way of answering is back at its default too: training does not read it.
        """
        self._digest(split)
        dropped: dict[str, Any] = {other.value: "" for other in Split if other is not split}
        usual: dict[str, Any] = {"answering": Answering.GENERATE} if split is Split.TRAIN else {}
        return replace(self, **dropped, **usual, others=",".join(self._here()))

    def raw(self) -> Raw:
        """The raw files."""
        return Raw(Path(self.directory), self.benchmark.source)

    def questions(self, split: Split) -> Sequence[Question]:
        """All questions of the files that hold the split: for a VALIDATION that is held back, and for TRAIN then, those of both."""
        return questions_of(self.benchmark, self.raw(), split)

    def examples(self, split: Split, count: int | None = None) -> BenchmarkExamples:
        """The first `count` examples of the split (None, or more than there are: all), read and decoded one by one when asked for.

        Raises InputError for a split whose raw files are not here, not as published, or have changed.
        """
        if count is not None and count < 0:
            raise ConfigError(f"task {self.name!r}: cannot give {count} examples; ask for 0 or more, or leave the count out")
        self._check_unchanged(split)
        questions = self.questions(split)
        shown = pictures(self, split) if count is None and holds_back(self.benchmark) else (each.picture for each in questions)
        numbers = chosen(self.benchmark, split, len(questions), shown, count)
        if not numbers and count != 0:
            raise InputError(
                f"task {self.name!r}: the {split} split of {self.benchmark.name} takes none of the {len(questions)} questions in its "
                f"files; they are too few; get them all from {self.benchmark.source}"
            )
        return BenchmarkExamples(self, split, numbers, questions)

    def check(self, split: Split, count: int | None = None, decode: bool = True, progress: Progress | None = None) -> Report:
        """What `examples(split, count)` will find. Without `decode` images only have to be there.

        Raises InputError for the first question that is not as published, images that are missing or damaged, keys that stand twice, and
        pictures that other splits show too.
        """
        return look(self, self.examples(split, count), [other for other in self._here() if other is not split], decode, progress)

    def score(self, response: str, example: Example) -> float:
        """How right `response` is by the benchmark's rule, from 0 to 1."""
        return self.benchmark.score(response, example)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        """Further figures of one answer, by name."""
        return self.benchmark.measures(response, example)

    def describe(self) -> str:
        """A sentence for each split: how many questions, of which benchmark, and what is held back."""
        return "\n".join(f"{split}: {self._described(split)}" for split in self.digests)

    def _described(self, split: Split) -> str:
        number = f"{len(self.questions(split)):,} questions of {self.benchmark.name}, "
        part = {Split.TRAIN: "nine tenths of the pictures of the ", Split.VALIDATION: "a tenth of the training pictures of the "}
        share = part.get(split, "") if holds_back(self.benchmark) else ""
        answered = "by the likeliest of its choices" if self.answering is Answering.LIKELIHOOD else "in words"
        return share + number + (f"answered {answered}" if split is not Split.TRAIN else "to learn from")

    def _here(self) -> list[Split]:
        """The splits whose raw files are in the directory."""
        return [split for split in Split if split in self.digests or split.value in self.others.split(",")]

    def _check_unchanged(self, split: Split) -> None:
        digest = self._digest(split)
        if split_digest(self.raw(), self.benchmark, split, self.cache) != digest:
            raise InputError(
                f"{self.directory}: the {split} files have changed since task {self.name!r} was made from them; run the experiment again, "
                "so that the steps that rest on it are known by their new content"
            )

    def _digest(self, split: Split) -> str:
        """The digest of a split. Raises InputError where the split is not here, or the benchmark has none."""
        if split not in self.digests:
            kept = file_split(self.benchmark, split)
            if kept in self.benchmark.files:
                self.raw().files(self.benchmark.files[kept])
            has = ", ".join(splits_of(self.benchmark))
            raise InputError(
                f"task {self.name!r}: benchmark {self.benchmark.name} has no {split} split here; it has {has}; ask for one of these"
            )
        return self.digests[split]


def benchmark_task(
    name: str,
    benchmark: str,
    directory: str | Path,
    options: Mapping[str, Any] | None = None,
    answering: str = Answering.GENERATE,
    cache: str | Path | None = None,
) -> BenchmarkTask:
    """The task called `name`: a benchmark whose raw files lie in `directory`, or are those of a hub data set that has been fetched.

    options: the benchmark's own, and max_shared_pictures: how many pictures its published splits may have in common. answering: generate
    or likelihood. cache: a directory in which findings are kept, shared by all processes that read the task. Reads the record files once.

    Raises ConfigError for what is written wrongly; InputError where no split's files are there, and for files of which shards are missing.
    """
    given = dict(options or {})
    made = get_benchmark(benchmark, {key: value for key, value in given.items() if key != SHARED_PICTURES})
    if not name or name != name.strip():
        raise ConfigError(f"a task needs a name without space at its ends, not {name!r}")
    patterns = spellings(pattern for files in made.files.values() for pattern in files)
    found, kept = raw_directory(str(directory), benchmark, patterns), os.path.abspath(cache) if cache else ""
    raw = Raw(found, made.source)
    digests = {split: split_digest(raw, made, split, kept) for split in splits_of(made)}
    if not any(digests.values()):
        wanted = "; ".join(f"{split}: {', '.join(files)}" for split, files in made.files.items())
        raise InputError(f"task {name!r}: {found} holds no raw files of {benchmark} ({wanted}); get them from {made.source}")
    held = {split.value: digest for split, digest in digests.items()}
    way = Answering(answering)
    shared = shared_pictures(benchmark, given)
    return BenchmarkTask(name, made, **held, answering=way, directory=str(found), cache=kept, max_shared_pictures=shared)


def split_digest(raw: Raw, benchmark: Benchmark, split: Split, cache: str = "") -> str:
    """SHA-256 of the names and contents of a split's raw files, of images of their names and sizes; empty where a pattern finds none."""
    patterns = benchmark.files[file_split(benchmark, split)]
    if raw.lacks(patterns):
        return ""
    lines = []
    for path in raw.files(patterns):
        content = f"{path.stat().st_size} bytes" if is_picture(path) else file_digest(str(path), cache)
        lines.append(f"{path.relative_to(raw.directory).as_posix()}\t{content}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
