"""Several sequences of examples as one: the tasks of a mixture, or a stage's own examples and those it rehearses."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import overload

from tasks.outline import Outline, has_images, outline
from tasks.task import Example


class Joined(Sequence[Example]):
    """Sequences one after the other. Reads no example before it is asked for; a slice gives them read, in a list.

    With `prefixes`, one for each part, a part's keys begin with its prefix and a slash.
    """

    def __init__(self, parts: Sequence[Sequence[Example]], prefixes: Sequence[str] | None = None) -> None:
        self.parts = tuple(parts)
        self.prefixes = tuple(f"{prefix}/" for prefix in prefixes) if prefixes is not None else ("",) * len(self.parts)
        self.ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        part, place = self._place(index)
        example, prefix = self.parts[part][place], self.prefixes[part]
        return replace(example, key=prefix + example.key) if prefix else example

    def outline(self, index: int) -> Outline:
        """What example `index` says, and the sizes of its images."""
        part, place = self._place(index)
        found = outline(self.parts[part], place)
        return replace(found, key=self.prefixes[part] + found.key)

    def has_images(self, index: int) -> bool:
        """Whether example `index` shows an image."""
        part, place = self._place(index)
        return has_images(self.parts[part], place)

    def _place(self, index: int) -> tuple[int, int]:
        """The part that example `index` is in, and where in it. Raises IndexError."""
        place = range(len(self))[index]
        part = bisect_right(self.ends, place)
        return part, place - (self.ends[part - 1] if part else 0)
