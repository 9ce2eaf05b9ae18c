"""What can be said of two digits canvases, and when it is true: the sentences of the set of comparisons. Light to import."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.digits_scene import COLOR_NAMES, WORDS, Glyph

if TYPE_CHECKING:
    from numpy.random import Generator

Canvas = Sequence[Glyph]
Relation = Callable[[Canvas, Canvas], bool]


@dataclass(frozen=True)
class Sentence:
    """A sentence on a left and a right canvas, and whether it holds of two."""

    text: str
    holds: Relation


def shows_digit(canvas: Canvas, digit: int) -> bool:
    """Whether a canvas shows a digit of this value."""
    return any(glyph.digit == digit for glyph in canvas)


def shows_color(canvas: Canvas, color: int) -> bool:
    """Whether a canvas shows a digit of this color."""
    return any(glyph.color == color for glyph in canvas)


def on_digit(digit: int) -> list[Sentence]:
    """What is said of one value."""
    word = WORDS[digit]
    return [
        Sentence(f"the left image shows the digit {word}", lambda left, right: shows_digit(left, digit)),
        Sentence(f"the right image shows the digit {word}", lambda left, right: shows_digit(right, digit)),
        Sentence(f"exactly one image shows the digit {word}", lambda left, right: shows_digit(left, digit) != shows_digit(right, digit)),
    ]


def on_color(color: int) -> list[Sentence]:
    """What is said of one color."""
    name = COLOR_NAMES[color]
    return [
        Sentence(f"both images show a {name} digit", lambda left, right: shows_color(left, color) and shows_color(right, color)),
        Sentence(f"no image shows a {name} digit", lambda left, right: not shows_color(left, color) and not shows_color(right, color)),
        Sentence(f"exactly one image shows a {name} digit", lambda left, right: shows_color(left, color) != shows_color(right, color)),
    ]


def on_number() -> list[Sentence]:
    """What is said of how many digits there are."""
    return [
        Sentence("the left image shows more digits than the right image", lambda left, right: len(left) > len(right)),
        Sentence("the right image shows more digits than the left image", lambda left, right: len(right) > len(left)),
        Sentence("both images show the same number of digits", lambda left, right: len(left) == len(right)),
    ]


GROUPS: tuple[list[list[Sentence]], ...] = (
    [on_digit(digit) for digit in range(len(WORDS))],
    [on_color(color) for color in range(len(COLOR_NAMES))],
    [on_number()],
)
"""The sentences on values, on colors and on numbers; each group is drawn equally often, and each of its sentences."""


def comparison(rng: "Generator") -> Sentence:
    """A sentence: the group, what it is on, and its form, each uniform."""
    group = GROUPS[int(rng.integers(len(GROUPS)))]
    forms = group[int(rng.integers(len(group)))]
    return forms[int(rng.integers(len(forms)))]


def all_sentences() -> list[str]:
    """Every sentence there is."""
    return [sentence.text for group in GROUPS for forms in group for sentence in forms]
