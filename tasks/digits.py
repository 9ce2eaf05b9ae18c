"""Ten visual questions about handwritten digits: five base abilities and a stream of five tasks to learn one after another.

The scans are scikit-learn's bundled set (1,797 real 8x8 scans, no download), split by scan, so no scan is in two splits. An example is a
32x32 canvas of four cells with a question and a short answer, composed from its split's scans only.

This file says what is asked, as a `Scene`; `tasks/digits_canvas.py` holds the scans and draws.
Example i depends only on (task, split, data_seed, i), never on how many are asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.digits_scene import CELLS, COLOR_NAMES, COLORS, WORDS, Glyph, Scene
from tasks.scoring import exact_match
from tasks.task import Example, Split

if TYPE_CHECKING:
    from numpy.random import Generator

EMPTY = "nothing"
USUAL_COUNTS = {Split.TRAIN: 2000, Split.VALIDATION: 400, Split.TEST: 400}


def glyphs_in(cells: Sequence[int], rng: "Generator") -> tuple[Glyph, ...]:
    """A digit and a color, both uniform, for each of `cells`, in reading order."""
    return tuple(Glyph(int(cell), int(rng.integers(10)), int(rng.integers(len(COLORS)))) for cell in sorted(cells))


def some_cells(count: int, rng: "Generator") -> list[int]:
    """`count` different cells, each choice equally likely."""
    return [int(cell) for cell in rng.permutation(len(CELLS))[:count]]


def one(rng: "Generator") -> Glyph:
    """A single digit in any cell."""
    return glyphs_in(some_cells(1, rng), rng)[0]


def name(rng: "Generator") -> Scene:
    """Name the one digit."""
    glyph = one(rng)
    return Scene((glyph,), "Which digit is shown?", WORDS[glyph.digit])


def where(rng: "Generator") -> Scene:
    """Say in which cell the one digit is."""
    glyph = one(rng)
    return Scene((glyph,), "Where is the digit?", CELLS[glyph.cell])


def color(rng: "Generator") -> Scene:
    """Say the one digit's color."""
    glyph = one(rng)
    return Scene((glyph,), "What color is the digit?", COLOR_NAMES[glyph.color])


def cell(rng: "Generator") -> Scene:
    """Name the digit in a given cell, among two to four digits."""
    glyphs = glyphs_in(some_cells(int(rng.integers(2, 5)), rng), rng)
    asked = glyphs[int(rng.integers(len(glyphs)))]
    return Scene(glyphs, f"Which digit is at the {CELLS[asked.cell]}?", WORDS[asked.digit])


def describe(rng: "Generator") -> Scene:
    """Say what is in all four cells, in reading order: "red three, nothing, blue seven, nothing". One to four digits."""
    glyphs = glyphs_in(some_cells(int(rng.integers(1, 5)), rng), rng)
    found = {glyph.cell: glyph.words for glyph in glyphs}
    return Scene(glyphs, "Describe the image.", ", ".join(found.get(cell, EMPTY) for cell in range(len(CELLS))))


def parity(rng: "Generator") -> Scene:
    """Say whether the one digit is even or odd."""
    glyph = one(rng)
    return Scene((glyph,), "Is the digit even or odd?", ("even", "odd")[glyph.digit % 2])


def count(rng: "Generator") -> Scene:
    """Count one to four digits; the answer is a numeral."""
    glyphs = glyphs_in(some_cells(int(rng.integers(1, 5)), rng), rng)
    return Scene(glyphs, "How many digits are there?", str(len(glyphs)))


def read(rng: "Generator") -> Scene:
    """Read two digits in one row, as numerals: "4 7"."""
    row = int(rng.integers(2))
    glyphs = glyphs_in([2 * row, 2 * row + 1], rng)
    return Scene(glyphs, "Read the number.", " ".join(str(glyph.digit) for glyph in glyphs))


def larger(rng: "Generator") -> Scene:
    """Name the larger of two different digits."""
    cells = sorted(some_cells(2, rng))
    first, second = (int(digit) for digit in rng.permutation(10)[:2])
    colors = rng.integers(len(COLORS), size=2)
    glyphs = (Glyph(cells[0], first, int(colors[0])), Glyph(cells[1], second, int(colors[1])))
    return Scene(glyphs, "What is the larger digit?", WORDS[max(first, second)])


def following(rng: "Generator") -> Scene:
    """Name the digit after the one shown; after nine comes zero."""
    glyph = one(rng)
    return Scene((glyph,), "Which digit comes next?", WORDS[(glyph.digit + 1) % 10])


SCENES: dict[str, Callable[["Generator"], Scene]] = {
    "name": name,
    "where": where,
    "color": color,
    "cell": cell,
    "describe": describe,
    "parity": parity,
    "count": count,
    "read": read,
    "larger": larger,
    "next": following,
}


@dataclass(frozen=True)
class DigitsTask:
    """One of the ten digits tasks. `data_seed` draws other examples from the same scans; the split of the scans never changes."""

    name: str
    data_seed: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.name not in SCENES:
            raise ConfigError(unknown("digits task", self.name, SCENES))

    @property
    def max_new_tokens(self) -> int:
        """Room for the longest answer in any usual tokenizer."""
        return 40 if self.name == "describe" else 8

    def examples(self, split: Split, count: int | None = None) -> list[Example]:
        """The first `count` examples (None: 2,000 for training, 400 for validation and test). Any count can be composed."""
        wanted = USUAL_COUNTS[split] if count is None else count
        if wanted < 0:
            raise ConfigError(f"task {self.name!r}: cannot give {wanted} examples; ask for 0 or more, or leave the count out")
        return [self._example(split, index) for index in range(wanted)]

    def scene(self, split: Split, index: int) -> Scene:
        """What example `index` shows and asks, without drawing it."""
        return SCENES[self.name](self._generator("scene", split, index))

    def score(self, response: str, example: Example) -> float:
        """1.0 for the whole answer (case and spacing aside), else 0.0."""
        return exact_match(response, example.answer)

    def _example(self, split: Split, index: int) -> Example:
        from tasks.digits_canvas import draw

        scene = self.scene(split, index)
        image = draw(scene.glyphs, split, self._generator("canvas", split, index))
        return Example(f"{self.name}/{split}/{self.data_seed}/{index}", (image,), scene.question, scene.answer)

    def _generator(self, use: str, split: Split, index: int) -> "Generator":
        from tasks.digits_canvas import generator

        return generator(f"digits/{self.name}/{split}/{self.data_seed}/{index}/{use}")


def all_texts() -> list[str]:
    """Every question and every answer the ten tasks can give, sorted; for `describe` the parts it is made of. Corpus for a tokenizer."""
    digits = [str(digit) for digit in range(10)]
    pairs = [f"{first} {second}" for first in digits for second in digits]
    described = [f"{color} {word}," for color in COLOR_NAMES for word in WORDS] + [f"{EMPTY}, {EMPTY}, {EMPTY}, {EMPTY}"]
    asked = [f"Which digit is at the {place}?" for place in CELLS]
    fixed = [
        "Which digit is shown?",
        "Where is the digit?",
        "What color is the digit?",
        "Describe the image.",
        "Is the digit even or odd?",
        "How many digits are there?",
        "Read the number.",
        "What is the larger digit?",
        "Which digit comes next?",
    ]
    return sorted({*WORDS, *CELLS, *COLOR_NAMES, "even", "odd", *digits, *pairs, *described, *asked, *fixed})
