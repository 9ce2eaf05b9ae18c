"""The ground of a chart in SVG: a frame with two axes, lines to read by, marks, and error bars. All values are in the units of the axes.

Colours come from CSS classes, so a chart follows the page into the dark. A mark carries its values as a tooltip.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.page.markup import element, text

MARKS = ("circle", "square", "diamond", "down", "star", "up", "plus", "cross", "hexagon", "pentagon")
"""Shape of each arm's mark, by its place; told apart without colour."""
CORNERS = {"square": (4, 45), "diamond": (4, 0), "down": (3, 90), "up": (3, -90), "hexagon": (6, 0), "pentagon": (5, -90)}
"""Shape -> how many corners, and the angle of the first, in degrees clockwise from the right."""
ROOM = 0.06
"""Share of an axis that is left free beside the first and the last value."""
LEAST = 1.0
"""The least that an axis spans, in its units: equal values are not drawn apart by their rounding."""


@dataclass(frozen=True)
class Axis:
    """One axis: from `low` to `high`, with labelled `ticks`."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str = ""

    def share(self, value: float) -> float:
        """Where `value` lies, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Frame:
    """A chart's ground in SVG units, with room for labels around it."""

    x: Axis
    y: Axis
    width: int = 520
    height: int = 340
    left: int = 54
    right: int = 14
    top: int = 12
    bottom: int = 50

    def across(self, value: float) -> float:
        """The horizontal place of a value of x."""
        return self.left + self.x.share(value) * (self.width - self.left - self.right)

    def down(self, value: float) -> float:
        """The vertical place of a value of y."""
        return self.height - self.bottom - self.y.share(value) * (self.height - self.top - self.bottom)

    def draw(self, *content: str, label: str) -> str:
        """The whole chart as an `svg` element; `label` says what it shows."""
        size = {"viewBox": f"0 0 {self.width} {self.height}", "role": "img", "aria-label": label}
        attributes = "".join(f' {name}="{text(value)}"' for name, value in size.items())
        return f'<svg class="chart"{attributes}>{self._ground()}{"".join(content)}</svg>'

    def _ground(self) -> str:
        floor, ceiling, end = self.height - self.bottom, self.top, self.width - self.right
        parts = []
        for value, words in self.y.ticks:
            place = number(self.down(value))
            parts.append(f'<line class="grid" x1="{self.left}" x2="{end}" y1="{place}" y2="{place}"></line>')
            parts.append(f'<text class="tick" x="{self.left - 8}" y="{place}" dy="0.35em" text-anchor="end">{text(words)}</text>')
        slanted = self.slants()
        for value, words in self.x.ticks:
            place = number(self.across(value))
            turn = f' transform="rotate(-28 {place} {floor + 16})" text-anchor="end"' if slanted else ' text-anchor="middle"'
            parts.append(f'<line class="grid faint" x1="{place}" x2="{place}" y1="{ceiling}" y2="{floor}"></line>')
            parts.append(f'<text class="tick" x="{place}" y="{floor + 18}"{turn}>{text(words)}</text>')
        parts.append(f'<line class="axis" x1="{self.left}" x2="{end}" y1="{floor}" y2="{floor}"></line>')
        middle = number((self.left + end) / 2)
        if self.x.title:
            parts.append(f'<text class="title" x="{middle}" y="{self.height - 8}" text-anchor="middle">{text(self.x.title)}</text>')
        if self.y.title:
            place = number((ceiling + floor) / 2)
            turned = f'transform="rotate(-90 14 {place})" x="14" y="{place}" text-anchor="middle"'
            parts.append(f'<text class="title" {turned}>{text(self.y.title)}</text>')
        return "".join(parts)

    def slants(self) -> bool:
        """Whether the labels below are too long to lie side by side."""
        room = (self.width - self.left - self.right) / max(1, len(self.x.ticks))
        return any(7.2 * len(words) > room for _, words in self.x.ticks)


def number(value: float) -> str:
    """A coordinate with one decimal, without a needless one."""
    words = f"{value:.1f}".removesuffix(".0")
    return "0" if words == "-0" else words


def numbers_axis(values: Sequence[float], title: str = "", zero: bool = False, signed: bool = False) -> Axis:
    """An axis that holds `values` (and 0, if `zero`) with round ticks."""
    finite = [value for value in values if math.isfinite(value)] + ([0.0] if zero else [])
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    middle, spread = (low + high) / 2, max(high - low, LEAST)
    low, high = middle - (0.5 + ROOM) * spread, middle + (0.5 + ROOM) * spread
    step = round_step((high - low) / 7)  # three to seven ticks
    first, last = math.ceil(low / step), math.floor(high / step)
    ticks = tuple((place * step, tick_words(place * step, step, signed)) for place in range(first, last + 1))
    return Axis(low, high, ticks, title)


def round_step(width: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `width`."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * (1 - 1e-9))


def tick_words(value: float, step: float, signed: bool) -> str:
    """A tick's value with as many decimals as its step needs."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(value) < step / 2:
        return f"{0:.{decimals}f}"
    return (f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}").replace("-", "−")


def names_axis(names: Sequence[str], title: str = "") -> Axis:
    """An axis with a place for each name, 0 for the first."""
    return Axis(-0.35, len(names) - 0.65, tuple((float(place), name) for place, name in enumerate(names)), title)


def path(points: Sequence[tuple[float, float]], mark: str = "") -> str:
    """A line through `points`, given in SVG units."""
    steps = " ".join(f"{'L' if place else 'M'}{number(x)} {number(y)}" for place, (x, y) in enumerate(points))
    return f'<path class="line {mark}" d="{steps}"></path>' if mark else f'<path class="line" d="{steps}"></path>'


def bar(frame: Frame, one: tuple[float, float], other: tuple[float, float]) -> str:
    """An error bar from one point to the other, in values; what leaves the frame is cut off."""
    (x1, y1), (x2, y2) = ((within(frame.x, x), within(frame.y, y)) for x, y in (one, other))
    x1, x2, y1, y2 = frame.across(x1), frame.across(x2), frame.down(y1), frame.down(y2)
    return f'<line class="bar" x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"></line>'


def within(axis: Axis, value: float) -> float:
    """`value`, or the end of the axis where it lies beyond."""
    return min(max(value, axis.low), axis.high)


def dot(x: float, y: float) -> str:
    """A faint dot: one seed."""
    return f'<circle class="seed" cx="{number(x)}" cy="{number(y)}" r="2.6"></circle>'


def mark(place: int, x: float, y: float, told: str, hollow: bool = False, size: float = 5.0) -> str:
    """The mark of the arm at `place`; `told` is its tooltip."""
    shape = MARKS[place % len(MARKS)]
    kind = "mark hollow" if hollow else "mark"
    tooltip = element("title", text(told)) if told else ""
    if shape == "circle":
        return f'<circle class="{kind}" cx="{number(x)}" cy="{number(y)}" r="{number(size)}">{tooltip}</circle>'
    return f'<path class="{kind}" d="{outline(shape, x, y, size)}">{tooltip}</path>'


def outline(shape: str, x: float, y: float, size: float) -> str:
    """The outline of a shape around a point, as path data."""
    turns: list[tuple[float, float]]
    if shape == "star":
        turns = [(-90 + 36 * corner, size * (1.35 if corner % 2 == 0 else 0.6)) for corner in range(10)]
    elif shape in ("plus", "cross"):
        turned = 45 if shape == "cross" else 0
        arm, wide = size * 1.2, 20
        turns = [(turned + 90 * side + lean, arm if lean else size * 0.58) for side in range(4) for lean in (-wide, wide)]
        turns = [each for side in range(4) for each in (*turns[2 * side : 2 * side + 2], (turned + 90 * side + 45, size * 0.58))]
    else:
        corners, first = CORNERS[shape]
        turns = [(first + 360 / corners * corner, size * 1.25) for corner in range(corners)]
    points = [(x + reach * math.cos(math.radians(angle)), y + reach * math.sin(math.radians(angle))) for angle, reach in turns]
    return "".join(f"{'L' if place else 'M'}{number(px)} {number(py)}" for place, (px, py) in enumerate(points)) + "Z"


def legend(names: Sequence[str], extra: Sequence[tuple[str, str]] = ()) -> str:
    """The arms' marks with their names; `extra` are further marks with what they mean. Pointing at an arm brings it forward."""
    items = []
    for place, name in enumerate(names):
        sign = f'<svg viewBox="0 0 18 18" aria-hidden="true">{mark(place, 9, 9, "")}</svg>'
        items.append(element("li", sign, text(name), class_=f"arm arm{place % len(MARKS)}", data_arm=str(place)))
    items += [element("li", f'<svg viewBox="0 0 18 18" aria-hidden="true">{sign}</svg>', text(words)) for sign, words in extra]
    return element("ul", *items, class_="legend")
