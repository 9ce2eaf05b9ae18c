"""The examples of one split of a benchmark: a sequence that reads a question, and decodes its images, when it is asked for."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from foundation.errors import InputError
from tasks.benchmarks.benchmark import Question
from tasks.files.headers import picture_size
from tasks.files.images import open_picture
from tasks.files.problems import Unusable
from tasks.outline import ImageSize, Outline
from tasks.task import Example, Role, Split, Turn

if TYPE_CHECKING:
    from tasks.benchmarks.task import BenchmarkTask

Found = TypeVar("Found")


class BenchmarkExamples(Sequence[Example]):
    """The questions with `numbers`, of those in the split's files, as examples. A slice is such a sequence again.

    Equal to another of the same task, split and numbers. Sent to another process, it opens its files there.
    """

    def __init__(self, task: "BenchmarkTask", split: Split, numbers: Sequence[int], questions: Sequence[Question] | None = None) -> None:
        self.task, self.split, self.numbers = task, split, numbers
        self._questions = questions

    @property
    def questions(self) -> Sequence[Question]:
        """All questions in the split's files."""
        if self._questions is None:
            self._questions = self.task.questions(self.split)
        return self._questions

    def question(self, index: int) -> Question:
        """What example `index` asks, its images not decoded."""
        return self.questions[self.numbers[index]]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "BenchmarkExamples": ...
    def __getitem__(self, index: int | slice) -> "Example | BenchmarkExamples":
        """One example with its images decoded. Raises InputError for an image that is missing or damaged."""
        if isinstance(index, slice):
            return BenchmarkExamples(self.task, self.split, self.numbers[index], self._questions)
        asked = self.question(index)
        images = self._shown(asked, lambda picture: open_picture(self.task.directory, picture))
        return Example(
            self._key(asked), images, asked.text, asked.answer, references=asked.references, group=asked.group, choices=asked.choices
        )

    def outline(self, index: int) -> Outline:
        """What one example says, and the sizes of its images, by their headers where those tell."""
        asked = self.question(index)
        sizes = self._shown(asked, lambda picture: picture_size(self.task.directory, picture))
        turns = (Turn(Role.USER, asked.text), Turn(Role.ASSISTANT, asked.answer))
        place = f"question {asked.key} of the {self.split} split in {self.task.directory}"
        return Outline(self._key(asked), turns, tuple(ImageSize("RGB", size) for size in sizes), place)

    def has_images(self, index: int) -> bool:
        """Whether one example shows an image; none is decoded."""
        return bool(self.question(index).images)

    def key(self, index: int) -> str:
        """The name of one example, unique within the task."""
        return self._key(self.question(index))

    def _key(self, asked: Question) -> str:
        return f"{self.task.name}/{self.split}/{asked.key}"

    def _shown(self, asked: Question, find: Callable[[str | bytes], Found]) -> tuple[Found, ...]:
        """What `find` gives for each image of a question."""
        try:
            return tuple(map(find, asked.images))
        except Unusable as error:
            raise InputError(
                f"task {self.task.name!r}, {self.split} question {asked.key}: {error}; images are looked for in {self.task.directory}; "
                f"get them from {self.task.benchmark.source}"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BenchmarkExamples) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash((self.task, self.split, len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_questions": None}

    def _value(self) -> tuple[Any, ...]:
        return self.task, self.task.directory, self.split, list(self.numbers)
