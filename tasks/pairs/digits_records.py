"""How the records of the digits sets are composed: lazily, each from its own address. Light to import."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar, overload

from foundation.errors import ConfigError
from tasks.digits import USUAL_COUNTS
from tasks.digits_scene import Glyph
from tasks.pairs.records import Picture, Record
from tasks.task import Split

if TYPE_CHECKING:
    from numpy.random import Generator
    from PIL.Image import Image

R = TypeVar("R", bound=Record)


class Composed(Sequence[R]):
    """The first `count` records that `compose` makes from an index; each is composed when it is asked for."""

    def __init__(self, compose: Callable[[int], R], count: int) -> None:
        self.compose = compose
        self.length = count

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...
    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        if isinstance(index, slice):
            return [self.compose(place) for place in range(self.length)[index]]
        return self.compose(range(self.length)[index])


def wanted(name: str, split: Split, count: int | None) -> int:
    """How many records are asked for."""
    found = USUAL_COUNTS[split] if count is None else count
    if found < 0:
        raise ConfigError(f"set {name!r}: cannot give {found} records; ask for 0 or more, or leave the count out")
    return found


def address_of(name: str, split: Split, data_seed: int, index: int) -> str:
    """What a record's random draws belong to; also its key."""
    return f"{name}/{split}/{data_seed}/{index}"


def drawn(address: str, use: str) -> "Generator":
    """The random numbers of a record for one use."""
    from tasks.digits_canvas import generator

    return generator(f"{address}/{use}")


def picture(address: str, split: Split, glyphs: Sequence[Glyph], use: str = "canvas") -> Picture:
    """The canvas that shows `glyphs`, drawn when it is called."""
    return partial(draw_picture, address, split, tuple(glyphs), use)


def draw_picture(address: str, split: Split, glyphs: tuple[Glyph, ...], use: str) -> "Image":
    """A canvas with scans of `split`."""
    from tasks.digits_canvas import draw

    return draw(glyphs, split, drawn(address, use))
