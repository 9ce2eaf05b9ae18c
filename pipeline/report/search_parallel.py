"""The picture of a search over several parameters: parallel coordinates, a line per trial from parameter to parameter to its value.

The bytes of a PNG, the same for the same searches. A name's lines are spread about it, so that they can be followed; a parameter that a
trial's method does not have is crossed below its axis. Better trials are darker and drawn later; the pick is the heavy orange line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.report.plots import GRAY, INK, ORANGE, styled
from pipeline.report.search_figures import Scale, Searched, by_stage, scales_of, value_words
from pipeline.report.search_style import (
    FEW,
    GOALS,
    QUIET,
    STAR,
    at_least,
    heading,
    legend_columns,
    panels,
    samples_words,
    stage_title,
    titled,
)
from pipeline.search.spec import Trial, Value

VALUES_MAP = LinearSegmentedColormap.from_list("values", ["#cbd5e1", "#93b4ea", "#2563eb", "#172554"])
AXIS = 1.75
"""Inches between two axes."""
ABSENT = -0.13
"""Height at which a parameter that a trial does not have is crossed; axes go from 0 to 1."""
SPREAD = 0.07
"""Half the height over which the lines through one name are spread."""
HALO = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


@dataclass(frozen=True)
class Rail:
    """One vertical axis: where values stand on it (0 to 1) and its ticks."""

    scale: Scale
    spots: dict[Value, float]
    ticks: list[tuple[float, str]]


@styled
def parallel(searches: Sequence[Searched]) -> Figure:
    """A panel per stage, an axis per parameter and one for the value; the lines of all seeds."""
    stages = by_stage(searches)
    scales = scales_of(searches)
    across = 1 if len(scales) > 2 or len(stages) == 1 else 2
    figure, places = panels(len(stages), columns=across)
    down = -(-len(stages) // across)
    figure.set_size_inches(max(7.4, across * (AXIS * len(scales) + 1.9)), 3.3 * down + 0.4)
    seeds = len({each.seed for each in searches})
    titled(
        figure,
        heading(searches, f"value over {len(scales)} parameters"),
        f"a line per trial, darker is better; judged by {GOALS[searches[0].goal]}; {samples_words(searches)}",
        f"{seeds} seeds, their trials together" if seeds > 1 else f"seed {searches[0].seed}",
    )
    rails = [rail_of(scale) for scale in scales]
    for place, members in zip(places, stages.values(), strict=True):
        axes = figure.add_subplot(place)
        draw_panel(axes, members, rails)
        axes.set_title(stage_title(members), fontsize=11)
    marks = [Line2D([], [], color=ORANGE, linewidth=2.6, label="picked"), Line2D([], [], color=VALUES_MAP(0.75), label="other trials")]
    if any(trial.stopped for each in searches for trial in each.trials):
        marks.append(Line2D([], [], color=GRAY, linestyle=(0, (2, 2)), label="stopped early, fewer samples"))
    if any(scale.name not in trial.point for scale in scales for each in searches for trial in each.trials):
        marks.append(Line2D([], [], color=QUIET, marker="x", linestyle="", label="the method has no such parameter"))
    figure.legend(handles=marks, loc="outside lower left", ncols=legend_columns(figure))
    return figure


def rail_of(scale: Scale) -> Rail:
    """The axis of one parameter: numbers by size (or by magnitude), names at equal distances from the top down."""
    values = scale.values
    if not scale.numeric:
        count = len(values)
        spots = {value: 1 - (place + 0.5) / count for place, value in enumerate(values)}
        return Rail(scale, spots, [(spot, value_words(value)) for value, spot in spots.items()])
    numbers = [float(value) for value in values if not isinstance(value, str)]
    low, high = reading(numbers[0], scale), reading(numbers[-1], scale)
    span = high - low

    def spot(number: float) -> float:
        return (reading(number, scale) - low) / span if span else 0.5

    shown = numbers
    if len(numbers) > FEW:
        locator = LogLocator(numticks=5) if scale.logarithmic else MaxNLocator(5)
        shown = [float(tick) for tick in locator.tick_values(numbers[0], numbers[-1]) if numbers[0] <= tick <= numbers[-1]]
    return Rail(scale, {number: spot(number) for number in numbers}, [(spot(number), value_words(number)) for number in shown])


def reading(number: float, scale: Scale) -> float:
    """The number as its axis counts it."""
    return log10(number) if scale.logarithmic else number


def draw_panel(axes: Axes, searches: Sequence[Searched], rails: Sequence[Rail]) -> None:
    """The lines of one stage, then the axes over them."""
    picks = {(each.seed, each.pick) for each in searches}
    trials = [(each.seed, trial) for each in searches for trial in each.trials]
    trials.sort(key=lambda entry: (not entry[1].stopped, entry[1].value, -entry[1].number))
    values = [100 * trial.value for _, trial in trials]
    norm = Normalize(*at_least(min(values), max(values)))
    heights = heights_of([trial for _, trial in trials], rails)
    colors = ScalarMappable(norm, VALUES_MAP)
    for place, (seed, trial) in enumerate(trials):
        line = [*heights[place], float(norm(100 * trial.value))]
        picked = (seed, trial.number) in picks
        look: dict[str, Any] = {"edgecolor": colors.to_rgba(100 * trial.value), "linewidth": 1.4, "alpha": 0.85, "zorder": 2}
        if trial.stopped:
            look |= {"edgecolor": GRAY, "linestyle": (0, (2, 2)), "linewidth": 1.1, "zorder": 1.5}
        if picked:
            look |= {"edgecolor": ORANGE, "linewidth": 2.8, "alpha": 1.0, "zorder": 3}
        axes.add_patch(PathPatch(smooth(line), facecolor="none", **look))
        absent = [at for at, height in enumerate(heights[place]) if height == ABSENT]
        axes.plot(absent, [ABSENT] * len(absent), marker="x", linestyle="", color=QUIET, markersize=5, zorder=3)
        if picked:
            axes.plot([len(rails)], [line[-1]], **{**STAR, "markersize": 15 if len(searches) == 1 else 12})
    low, high = norm.vmin or 0.0, norm.vmax or 100.0
    ticks = [(float(norm(tick)), f"{tick:g}") for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    for at, (name, marks) in enumerate([*((rail.scale.name, rail.ticks) for rail in rails), ("value in %", ticks)]):
        draw_axis(axes, at, name, marks, last=at == len(rails))
    axes.set(xlim=(-0.45, len(rails) + 0.4), ylim=(-0.3, 1.06))
    axes.set_axis_off()


def heights_of(trials: Sequence[Trial], rails: Sequence[Rail]) -> list[list[float]]:
    """Where each trial crosses each axis; through one name the better trial higher."""
    heights: list[list[float]] = [[] for _ in trials]
    for rail in rails:
        for value in {trial.point.get(rail.scale.name) for trial in trials}:
            through = [place for place, trial in enumerate(trials) if trial.point.get(rail.scale.name) == value]
            room = SPREAD if not rail.scale.numeric and value is not None else 0.0
            for rank, place in enumerate(through):
                shift = room * (2 * rank / (len(through) - 1) - 1) if len(through) > 1 else 0.0
                heights[place].append(ABSENT if value is None else rail.spots[value] + shift)
    return heights


def smooth(heights: Sequence[float]) -> Path:
    """A line that crosses every axis level, so that lines can be told apart where they meet."""
    points, codes = [(0.0, heights[0])], [Path.MOVETO]
    for at, (before, after) in enumerate(pairwise(heights)):
        points += [(at + 0.4, before), (at + 0.6, after), (at + 1.0, after)]
        codes += [Path.CURVE4] * 3
    return Path(points, codes)


def draw_axis(axes: Axes, at: int, name: str, ticks: Sequence[tuple[float, str]], last: bool) -> None:
    """One vertical axis with its name below; ticks to its left, of the last to its right."""
    axes.plot([at, at], [0, 1], color=INK, linewidth=1.1, zorder=4)
    side = 1 if last else -1
    for height, text in ticks:
        axes.plot([at, at + 0.03 * side], [height, height], color=INK, linewidth=1.1, zorder=4)
        axes.text(
            at + (0.1 if last else 0.05) * side,
            height,
            text,
            ha="left" if last else "right",
            va="center",
            fontsize=9.5,
            bbox=HALO,
            zorder=5,
        )
    axes.text(at, -0.2, name, ha="center", va="top", fontsize=10.5, fontweight="bold" if last else "normal")
