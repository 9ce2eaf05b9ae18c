"""The contract of a task: examples to learn from and to be asked, and how an answer is scored.

A task is a frozen dataclass whose fields are its identity, so it can be part of a step's fingerprint. Making one loads no data.
Light to import: PIL is named only for the type checker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image


class Split(StrEnum):
    """Parts of the data that never mix: learn on TRAIN, choose on VALIDATION, report on TEST."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


IMAGE_MARK = "<image>"
"""Stands in a turn's text where an image is shown. Images that no mark asks for come before the first user turn's text."""


class Role(StrEnum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True)
class Turn:
    """What one side says; `text` may hold IMAGE_MARK."""

    role: Role
    text: str


@dataclass(frozen=True)
class Example:
    """One question about zero or more images, with its right answer. `key` names it uniquely within its task.

    `before` is the conversation up to the question, first to last: at most one system turn, then user and assistant in turn. What the
    assistant says in it is learned like the answer. The images are those of the whole conversation, in the order in which they are shown.
    `references`: all that count as right, where that is more than the answer. `group`: the category it is reported under. `choices`: what a
    question with given answers may be answered with, the answer among them.
    """

    key: str
    images: "tuple[Image, ...]"
    question: str
    answer: str
    before: tuple[Turn, ...] = ()
    references: tuple[str, ...] = ()
    group: str = ""
    choices: tuple[str, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The whole conversation, the answer last."""
        return (*self.before, Turn(Role.USER, self.question), Turn(Role.ASSISTANT, self.answer))


@runtime_checkable
class Task(Protocol):
    """What trainers learn from and evaluators ask."""

    version: ClassVar[int]
    """Bumped when the examples or the scoring change; part of the identity of every step that uses the task."""

    @property
    def name(self) -> str:
        """The name in tables and reports."""

    @property
    def max_new_tokens(self) -> int:
        """How many tokens an answer may take."""

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        """The first `count` examples of the split's fixed order (None: the split's usual number).

        Deterministic and prefix-stable: `examples(s, 10) == examples(s, 100)[:10]`. Raises InputError where the data is missing.
        """

    def score(self, response: str, example: Example) -> float:
        """How right `response` is, from 0 to 1."""


class Answering(StrEnum):
    """How a model answers: it writes (GENERATE), or it is given the choices and the likeliest counts as its answer (LIKELIHOOD)."""

    GENERATE = "generate"
    LIKELIHOOD = "likelihood"


@runtime_checkable
class Detailed(Protocol):
    """A task that says more about an answer than one score, as published benchmarks do. What is no such task generates its answers."""

    @property
    def answering(self) -> Answering:
        """How its questions are answered. LIKELIHOOD asks only of examples that have choices."""

    @property
    def macro(self) -> bool:
        """Whether its score is the mean of its groups' means, not the mean over its questions."""

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        """Further figures of one answer by name, as {"f1": 0.5}; what does not apply to the question is left out."""
