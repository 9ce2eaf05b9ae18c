"""A task of examples with and without an image, for the tests of workers whose batches differ in that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.registry import get_task
from tasks.task import Example, Split


@dataclass(frozen=True)
class Mixed:
    """The parity task, with every other example's image left out."""

    version = 1
    name = "mixed"
    max_new_tokens = 4

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        """As the parity task gives them."""
        found = get_task("parity").examples(split, count)
        return [each if place % 2 else replace(each, images=()) for place, each in enumerate(found)]

    def score(self, response: str, example: Example) -> float:
        """1 for the right answer."""
        return float(response == example.answer)
