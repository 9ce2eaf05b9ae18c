"""A part of an evaluation: a few batches of one task, asked by whoever is free, its samples in a file until all parts are there.

A part's file is written whole or not at all and knows what it is part of. So an evaluation that was killed goes on from the parts that
are there, and neither the number of workers nor the order they end in changes a byte.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import transformers

from evaluators.ask import answers_to, sample_of
from evaluators.generate import Answerer, load_answerer
from evaluators.questions import Rows, Sheet
from evaluators.scores import Sample, read_samples, samples_file
from evaluators.suite import Suite
from foundation.errors import InputError
from tasks.outline import Outlined
from tasks.task import Example

MARK = "part"
"""Under which a part's file says what it is part of."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew(Protocol):
    """Calls a function on items, anywhere and in any order."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """What the function gives for each item, in order of completion."""
        ...


class Alone:
    """This process, item by item."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """What the function gives for each item, in order."""
        return map(function, items)


@dataclass(frozen=True)
class Order:
    """What all parts of an evaluation share. `identity`: digest of what makes its answers, see `identity_of`."""

    checkpoint: Path
    suite: Suite
    threads: int
    identity: str


@dataclass(frozen=True)
class Part:
    """The `number`-th part of the suite's `task`-th task: rows and prompts of its batches.

    `examples` are those of the rows where the task has them in memory; where it reads them one by one, whoever asks reads its own.
    """

    task: int
    number: int
    batches: tuple[Rows, ...]
    prompts: tuple[tuple[str, ...], ...]
    examples: tuple[tuple[Example, ...], ...] = ()

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"part-{self.task:03d}-{self.number:05d}.parquet"

    @property
    def rows(self) -> Rows:
        """Its rows, in the order in which they are asked."""
        return tuple(row for batch in self.batches for row in batch)


@dataclass(frozen=True)
class Answered:
    """A part's samples, in the order of its rows. `part` is without what it was asked with."""

    part: Part
    samples: tuple[Sample, ...]


def parts_of(place: int, sheet: Sheet) -> Iterator[Part]:
    """The parts of the suite's `place`-th task."""
    lazy = isinstance(sheet.examples, Outlined)
    for number, batches in enumerate(sheet.parts):
        prompts = tuple(tuple(sheet.prompts[row] for row in batch) for batch in batches)
        held = () if lazy else tuple(tuple(sheet.examples[row] for row in batch) for batch in batches)
        yield Part(place, number, batches, prompts, held)


def identity_of(checkpoint: Path, sheets: Sequence[Sheet], threads: int) -> str:
    """SHA-256 of all that makes the answers: questions and batches, threads, libraries, and the checkpoint.

    That is known by its place and by names, sizes and times of its files, so that none of them is read.
    """
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(checkpoint.iterdir()) if path.is_file()]
    made_by = [str(checkpoint.resolve()), files, threads, torch.__version__, transformers.__version__, [sheet.digest for sheet in sheets]]
    return hashlib.sha256(json.dumps(made_by).encode()).hexdigest()


def keep_part(order: Order, answered: Answered, scratch: Path) -> None:
    """Write a part's samples; the file appears whole or not at all. It is not flushed to disk: what a power cut damages is asked again."""
    path = scratch / answered.part.file
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(samples_file(answered.samples, {MARK: f"{order.identity} {path.name}"}))
    os.replace(temporary, path)


def kept_part(order: Order, part: Part, scratch: Path) -> Answered | None:
    """The part's samples where `scratch` holds them; None where the file is missing, damaged, or of another evaluation."""
    path = scratch / part.file
    try:
        samples = read_samples(path, {MARK: f"{order.identity} {part.file}"}) if path.exists() else []
    except InputError:
        return None
    return Answered(part, tuple(samples)) if len(samples) == len(part.rows) else None


def forget_parts(scratch: Path) -> None:
    """Remove all parts' files, also those that were being written when an evaluation was killed."""
    for path in (*scratch.glob("part-*.parquet"), *scratch.glob(".part-*.parquet.tmp")):
        path.unlink()


@dataclass
class Desk:
    """What one process holds while it asks: the model, loaded for the first part, and the examples of lazy tasks by place in the suite.

    `processor` and `sheets` (examples) are given where they are here already.
    """

    order: Order
    processor: Any = None
    sheets: dict[int, Sequence[Example]] = field(default_factory=dict)
    answerer: Answerer | None = None

    def ask(self, part: Part, on_batch: Callable[[Part, int], None] | None = None) -> Answered:
        """Ask the part's questions; `on_batch` hears how many were in each batch."""
        with torch_threads(self.order.threads):
            if self.answerer is None:
                self.answerer = load_answerer(self.order.checkpoint, processor=self.processor)
            task = self.order.suite.tasks[part.task]
            samples: list[Sample] = []
            asked = part.examples or map(partial(self.read, part.task), part.batches)
            for batch, prompts, responses in answers_to(self.answerer, task, zip(asked, part.prompts, strict=True)):
                samples += map(sample_of, [task] * len(batch), batch, prompts, responses)
                if on_batch is not None:
                    on_batch(part, len(batch))
        return Answered(replace(part, prompts=(), examples=()), tuple(samples))

    def read(self, place: int, rows: Rows) -> list[Example]:
        """Examples of the suite's `place`-th task, which are decoded here and let go again."""
        if place not in self.sheets:
            suite = self.order.suite
            self.sheets[place] = suite.tasks[place].examples(suite.split, suite.samples)
        return [self.sheets[place][row] for row in rows]


_LAST: list[Desk] = []
"""The desk of this process, where it is one of several workers: parts of the same evaluation find the model loaded."""


def ask_part(order: Order, part: Part) -> Answered:
    """One part, asked by a worker that keeps the model for the next one."""
    if not _LAST or _LAST[0].order.identity != order.identity:
        _LAST.clear()  # before the next model is loaded, so that there is never more than one
        _LAST.append(Desk(order))
    return _LAST[0].ask(part)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """So many CPU threads for what is inside; they are part of what makes the bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
