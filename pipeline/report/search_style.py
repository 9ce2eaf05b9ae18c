"""What the pictures of searches share: colours, the star of the pick, a title with quiet lines below it, a grid of panels, light bars."""

import math
from collections.abc import Sequence
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

from pipeline.report.comparison import Estimate
from pipeline.report.plots import GRAY, INK
from pipeline.report.search_figures import Group, Measured, Searched, by_stage, mean_points, point_words, value_words

GREEN, QUIET = "#059669", "#4b5563"
GRID = {"color": "#e5e7eb", "linewidth": 0.8}
LINE, SEED_LINE = 1.8, 0.9
LIGHT = 0.45
"""Opacity of error bars and of the lines of single seeds."""
STAR = {"marker": "*", "markersize": 15, "color": "#fbbf24", "markeredgecolor": INK, "markeredgewidth": 0.9, "linestyle": "", "zorder": 6}
GOALS = {
    "average": "the mean of all tasks",
    "stream": "the mean of the tasks learned so far",
    "held_out": "the mean of the held-out tasks",
    "new": "the task just learned",
    "balanced": "the task just learned and the mean of all others, weighted",
}
COLUMNS, PANEL, HEIGHT = 3, 3.5, 3.1
NARROWEST = 7.4
"""Of a picture, so that its title has room, inches."""
LEAST = 4.0
"""No axis shows less than so many points of a percent, so that noise does not fill a panel."""
FEW, MANY = 7, 30
"""Up to so many numbers each has a tick on a logarithmic axis; from more trials than this on marks are small."""
TITLE_LETTERS, QUIET_LETTERS = 9.2, 13.9
"""Letters to an inch of the title line and of the lines below it."""
TITLE_STEP, QUIET_STEP = 0.25, 0.19
"""Their line spacing, inches."""


def heading(searches: Sequence[Searched], what: str) -> str:
    """The title line: the arm (or the method), what is shown, and on which split."""
    return f"{searches[0].arm or searches[0].method or 'Search'}: {what}, {searches[0].split} split"


def samples_words(searches: Sequence[Searched]) -> str:
    """How many samples of each task were asked."""
    counts = sorted({each.samples for each in searches})
    return f"{counts[0]} samples of each task" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} samples of each task"


def spread_words(searches: Sequence[Searched], lines: bool = True) -> str:
    """Of what the bars are and, of several seeds, the `lines` or marks."""
    seeds = len({each.seed for each in searches})
    if seeds == 1:
        return f"seed {searches[0].seed}; bars: ± 1 standard error over samples"
    stages = by_stage(searches).values()
    if all(mean_points(members, Group.GOAL) for members in stages):
        told = f"{'thick line' if lines else 'marks'}: mean of {seeds} seeds, bars: ± 1 standard error over seeds"
        return f"{told}; {'thin lines: each seed; ' if lines else ''}stars: each seed's pick"
    return f"{seeds} seeds, {'a line each: they' if lines else 'their marks together: they'} did not try the same points"


def titled(figure: Figure, title: str, *lines: str) -> None:
    """A bold title and quiet lines below it, each wrapped to the width; the figure grows by the room they need."""
    width, height = figure.get_size_inches()
    bold = wrap(title, int(width * TITLE_LETTERS))
    quiet = [part for line in lines for part in wrap(line, int(width * QUIET_LETTERS))]
    head = 0.1 + TITLE_STEP * len(bold) + QUIET_STEP * len(quiet)
    figure.set_size_inches(width, height + head)
    top = height + head - 0.08
    looks = [(line, TITLE_STEP, {"fontsize": 13, "fontweight": "bold"}) for line in bold]
    for line, step, look in [*looks, *((line, QUIET_STEP, {"fontsize": 9.5, "color": QUIET}) for line in quiet)]:
        figure.text(0.1 / width, top / (height + head), line, ha="left", va="top", **look)
        top -= step
    figure.get_layout_engine().set(rect=(0, 0, 1, height / (height + head)))


def legend_columns(figure: Figure) -> int:
    """How many entries of a legend stand beside each other."""
    return 4 if figure.get_figwidth() > 10 else 2


def panels(count: int, columns: int = COLUMNS, height: float = HEIGHT) -> tuple[Figure, list[SubplotSpec]]:
    """A figure with places for `count` panels of a height in inches; the rest of its last row stays empty."""
    across = 2 if count == 4 and columns > 1 else min(count, columns)
    down = math.ceil(count / across)
    size = (max(NARROWEST, PANEL * across + 0.4), (height + (0.6 if count == 1 else 0)) * down + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.08)
    grid = figure.add_gridspec(down, across)
    return figure, [grid[place // across, place % across] for place in range(count)]


def stage_title(searches: Sequence[Searched]) -> str:
    """`stage 2: count`, and below it what was picked."""
    first = searches[0]
    name = f"stage {first.stage}: {first.task}" if first.task else f"stage {first.stage}"
    picks = [each.picked.point for each in searches]
    if len({tuple(point.items()) for point in picks}) == 1:
        return f"{name}\npicked {point_words(picks[0])}{' by every seed' if len(picks) > 1 else ''}"
    if all(len(point) == 1 for point in picks):
        axis = next(iter(picks[0]))
        return f"{name}\npicked {'' if axis == 'method' else axis + ' '}{', '.join(value_words(point[axis]) for point in picks)}"
    return name


def common_marks(searches: Sequence[Searched]) -> list[Line2D]:
    """The star of the pick, and the mark of trials that were stopped early."""
    marks = [Line2D([], [], **{**STAR, "markersize": 12}, label="picked")]
    if any(trial.stopped for each in searches for trial in each.trials):
        marks.append(Line2D([], [], color=GRAY, marker="x", linestyle="", markersize=6, label="stopped early, fewer samples"))
    return marks


def bars(axes: Axes, xs: Sequence[float], ys: Sequence[float], across: Sequence[float] | None, up: Sequence[float], color: str) -> None:
    """Light error bars, behind the marks; of many, very light."""
    axes.errorbar(
        xs,
        ys,
        up,
        across,
        linestyle="none",
        ecolor=color,
        elinewidth=1.2,
        capsize=0,
        alpha=LIGHT if len(xs) <= MANY else LIGHT / 2,
        zorder=1.5,
    )


def percent_of(found: Measured | Estimate) -> float:
    """A standard error in percent; 0 where there is none."""
    return 100 * (found.stderr or 0.0)


def at_least(low: float, high: float) -> tuple[float, float]:
    """Limits in percent, widened about their middle to LEAST."""
    more = max(0.0, LEAST - (high - low)) / 2
    return low - more, high + more
