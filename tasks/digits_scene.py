"""What can lie on a digits canvas and what can be asked of it: the words of the digits tasks. Light to import.

`tasks/digits.py` makes scenes, `tasks/digits_canvas.py` draws them.
"""

from dataclasses import dataclass

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CELLS = ("top left", "top right", "bottom left", "bottom right")
COLORS = {"red": (255, 60, 60), "green": (60, 230, 60), "blue": (80, 110, 255), "yellow": (240, 230, 50), "purple": (210, 70, 230)}
COLOR_NAMES = tuple(COLORS)


@dataclass(frozen=True)
class Glyph:
    """One digit on the canvas: its cell (0-3 in reading order), its value and its color (an index into COLOR_NAMES)."""

    cell: int
    digit: int
    color: int

    @property
    def words(self) -> str:
        """Color and value, as in "red three"."""
        return f"{COLOR_NAMES[self.color]} {WORDS[self.digit]}"


@dataclass(frozen=True)
class Scene:
    """What an example shows and asks. Glyphs are in reading order."""

    glyphs: tuple[Glyph, ...]
    question: str
    answer: str
