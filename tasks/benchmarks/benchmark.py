"""The contract of a published benchmark: which raw files hold it, how a record of them becomes a question, how an answer is scored.

A benchmark is a frozen dataclass; its fields are options (a 12-hour clock, one part of the data). It reads files and knows nothing of where
they lie: `task.py` gives it a directory and makes the task of it. Light to import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from tasks.benchmarks.raw import Raw
from tasks.task import Example, Split


@dataclass(frozen=True)
class Question:
    """One question before its images are decoded: an image is a path below the directory, or the encoded bytes that a table held.

    `text` is all that is said to the model, with choices and instruction. `picture` is the identity of what is shown: questions about one
    picture stay in one split. `references`, `group` and `choices` as in `tasks.task.Example`.
    """

    key: str
    text: str
    answer: str
    images: tuple[str | bytes, ...]
    picture: str
    references: tuple[str, ...] = ()
    group: str = ""
    choices: tuple[str, ...] = ()


class Benchmark(Protocol):
    """One published benchmark."""

    name: ClassVar[str]
    version: ClassVar[int]
    source: ClassVar[str]
    """Where its raw files are to be had: a hub data set's id ("lmms-lab/ai2d") or an address."""
    max_new_tokens: ClassVar[int]
    macro: ClassVar[bool]

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        """Split -> patterns of the raw files below the directory, as published (`raw.py`), images in files of their own among them.

        A split that is not here has none. The files of all its patterns make a split's identity, so a pattern names no more than it needs.

        Where TRAIN has files and VALIDATION none, a tenth of the training pictures is held back as VALIDATION (see `task.py`).
        """

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        """The questions of the split's files, in their order; a question is read when it is asked for.

        Raises InputError for a file that is not as published: which, what is wrong, and where to get a sound one.
        """

    def score(self, response: str, example: Example) -> float:
        """How right the response is, from 0 to 1, by the benchmark's own rule."""

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        """Further figures of one answer, by name; what does not apply is left out."""
