"""The picture of all merges of a modality-merging experiment: scores over each method's axis, in the report's style.

The bytes of a PNG, the same for the same outcomes. Curves and lines are told apart by marker and dashes as well as by colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.modality import AGNOSTIC, ON_THE_WAY, SEED_ONLY, UNMERGED, Setting, When, reference_of, tuned_words, whens_of
from pipeline.report.plots import BLUE, INK, ORANGE, styled

LINES: dict[str, tuple[str, Any]] = {UNMERGED: (INK, "-"), AGNOSTIC: ("#a21caf", (0, (6, 2, 1.5, 2))), SEED_ONLY: ("#6b7280", (0, (2, 2)))}
"""Family of a reference -> the look of its line."""
OFF_THE_LINE: tuple[str, str, Any] = (INK, "D", "-")
"""The look of unmerged models on the way."""
CURVES: tuple[tuple[str, str, Any], ...] = (
    (BLUE, "o", "-"),
    (ORANGE, "s", (0, (5, 2))),
    ("#059669", "^", (0, (1, 1.5))),
    ("#0891b2", "v", "-."),
)
AXES = {
    "interpolation": ("Interpolation", "ratio: the vision expert's weight"),
    "arithmetic": ("Modality arithmetic", "scale of modality vectors"),
    "sequential arithmetic": ("Modality arithmetic", "scale of modality vectors"),
    "regmean": ("RegMean", "off-diagonal scale of Grams"),
}
"""Family -> its panel and the name of its axis; families of one panel are drawn into it together. Others have a panel of their own."""
WAY = ("Experts on the way", "steps of their pretraining")
REST = "Other merges"
PANEL, SLOT = 2.6, 0.45
"""Width of a panel, and of an arm in the panel of arms without an axis, inches."""
NARROWEST = 9.4
"""Of a picture, so that the legend and the note stand beside each other, inches."""
CLOSEST = 0.09
"""Distance of two labels below an axis, of its length."""
QUIET = "#4b5563"
GRID = {"color": "#e5e7eb", "linewidth": 0.8}


@dataclass(frozen=True)
class Panel:
    """What is drawn over one axis: family -> its arms by value; without an axis name, arms beside each other."""

    title: str
    axis: str
    families: dict[str, list[Setting]]

    @property
    def arms(self) -> list[Setting]:
        """All arms of the panel."""
        return [setting for members in self.families.values() for setting in members]

    @property
    def width(self) -> float:
        """Inches."""
        return PANEL if self.axis else max(1.3, SLOT * len(self.arms))


def panels_of(settings: Sequence[Setting]) -> list[Panel]:
    """A panel per axis with two values or more; the other merges share the last one. None for a model that is not merged."""
    shown = [setting for setting in settings if setting.is_merge or setting.on_the_way]
    panels: dict[str, Panel] = {}
    for setting in (each for each in shown if each.value is not None):
        title, axis = axis_of(setting)
        panels.setdefault(title, Panel(title, axis, {})).families.setdefault(setting.family, []).append(setting)
    drawn = [panel for panel in panels.values() if len({each.value for each in panel.arms}) > 1]
    for panel in drawn:
        for members in panel.families.values():
            members.sort(key=lambda setting: setting.value or 0.0)
    placed = {each.arm for panel in drawn for each in panel.arms}
    rest = [setting for setting in shown if setting.arm not in placed]
    return [*drawn, *([Panel(REST, "", {REST: rest})] if rest else [])]


def axis_of(setting: Setting) -> tuple[str, str]:
    """The title of the panel that an arm with a value belongs to, and the name of its axis."""
    family = setting.family
    return WAY if setting.on_the_way else AXES.get(family, (family[0].upper() + family[1:], "value"))


@styled
def sweeps(settings: Sequence[Setting], asked: str) -> Figure:
    """The mean score over every family's axis, between the lines of what is not merged: above as merged, below after fine-tuning.

    Both rows have the same scale, so that what fine-tuning evens out looks even. There must be a panel to draw (`panels_of`).
    """
    panels, whens = panels_of(settings), whens_of(settings, asked)
    words = {When.MERGED: "merge only", When.TUNED: tuned_words(settings)}
    limits = limits_of(settings, asked, whens)
    heights = [top - bottom for bottom, top in limits]
    widths = [panel.width for panel in panels]
    height = 3.1 * sum(heights) / max(heights) + (2.0 if panels[-1].axis else 2.9)
    figure = Figure(figsize=(max(NARROWEST, sum(widths) + 0.35 * len(widths) + 0.9), height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06)
    figure.suptitle(f"{asked}: the mean score of every merge", x=0.01, ha="left", fontsize=13, fontweight="bold")
    grid = figure.subplots(len(whens), len(widths), squeeze=False, sharex="col", sharey="row", height_ratios=heights, width_ratios=widths)
    for row, (when, limit) in enumerate(zip(whens, limits, strict=True)):
        for axes, panel in zip(grid[row], panels, strict=True):
            draw_lines(axes, settings, asked, when)
            draw_panel(axes, panel, asked, when)
            if row == 0 and len(panel.families) > 1:
                axes.legend(loc="best", fontsize=9.5, handlelength=2.4)
            axes.set_title(panel.title if row == 0 else "")
            axes.set_xlabel(panel.axis if row == len(whens) - 1 else "")
        grid[row][0].set(ylabel=f"{words[when]}, in %".replace(" of fine", "\nof fine"), ylim=limit)
    references = [Line2D([], [], color=LINES[name][0], linestyle=LINES[name][1], linewidth=1.6, label=name) for name in LINES]
    figure.legend(
        handles=[line for line in references if reference_of(settings, str(line.get_label()))], loc="outside lower left", ncols=len(LINES)
    )
    figure.text(0.99, 0.012, bars_note(settings), ha="right", va="bottom", fontsize=9.5, color=QUIET)
    return figure


def limits_of(settings: Sequence[Setting], asked: str, whens: Sequence[When]) -> list[tuple[float, float]]:
    """The range of each row in percent: what is drawn with some room, and no row less than half as tall as the other."""
    found = []
    for when in whens:
        marks = [100 * score for setting in settings for score in setting.by_seed(asked, when).values()]
        for setting in settings:
            value, bar = setting.figure(asked, when), setting.bar(asked, when)
            marks += [100 * (value.mean - bar), 100 * (value.mean + bar)] if value else []
        room = max(0.06 * (max(marks) - min(marks)), 0.5)
        found.append((min(marks) - room, max(marks) + room))
    least = max(top - bottom for bottom, top in found) / 2
    return [(bottom - more, top + more) for bottom, top in found for more in [max(0.0, least - (top - bottom)) / 2]]


def draw_lines(axes: Axes, settings: Sequence[Setting], asked: str, when: When) -> None:
    """A line and a band for each family that is not merged."""
    for name, (color, dashes) in LINES.items():
        reference = reference_of(settings, name)
        value = reference.figure(asked, when) if reference else None
        if reference and value:
            bar = reference.bar(asked, when)
            axes.axhspan(100 * (value.mean - bar), 100 * (value.mean + bar), color=color, alpha=0.13, linewidth=0, zorder=0.5)
            axes.axhline(100 * value.mean, color=color, linestyle=dashes, linewidth=1.6, zorder=1)


def draw_panel(axes: Axes, panel: Panel, asked: str, when: When) -> None:
    """A curve per family or, without an axis, a mark per arm; a faint dot per seed."""
    curves = cycle(CURVES)
    for family, members in panel.families.items():
        color, marker, dashes = OFF_THE_LINE if family == UNMERGED + ON_THE_WAY else next(curves)
        drawn = [(float(each.value or 0) if panel.axis else at, each) for at, each in enumerate(members) if each.figure(asked, when)]
        for spot, each in drawn:
            seeds = [100 * score for score in each.by_seed(asked, when).values()]
            axes.plot([spot] * len(seeds), seeds, ".", color=color, alpha=0.35, markersize=7, markeredgewidth=0)
        means = [100 * value.mean for _, each in drawn if (value := each.figure(asked, when))]
        bars = [100 * each.bar(asked, when) for _, each in drawn]
        look = {"color": color, "marker": marker, "markersize": 5.5, "linewidth": 1.8, "elinewidth": 1.5}
        label = family.removesuffix(ON_THE_WAY)
        axes.errorbar([spot for spot, _ in drawn], means, bars, **look, linestyle=dashes if panel.axis else "none", label=label)
    if panel.axis:
        values = sorted({float(each.value or 0) for each in panel.arms})
        axes.set_xticks(values, spaced(values))
        axes.margins(x=0.08)
    else:
        axes.set_xticks(range(len(panel.arms)), [each.arm for each in panel.arms])
        axes.set_xlim(-0.6, len(panel.arms) - 0.4)
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    if not any(each.figure(asked, when) for each in panel.arms):
        axes.text(0.5, 0.5, "not fine-tuned" if when is When.TUNED else "not asked", transform=axes.transAxes, ha="center", color=QUIET)
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)


def spaced(values: Sequence[float]) -> list[str]:
    """A label for each of the ascending values; empty where it would touch the one before."""
    labels: list[str] = []
    last = -math.inf
    for value in values:
        apart = (value - last) / (values[-1] - values[0] or 1.0) >= CLOSEST
        labels.append(f"{value:g}" if apart else "")
        last = value if apart else last
    return labels


def bars_note(settings: Sequence[Setting]) -> str:
    """Over what the bars and bands are."""
    count = max(len(setting.outcomes) for setting in settings)
    if count == 1:
        return "bars and bands: ± 1 standard error over samples"
    return f"mean of {count} seeds (faint dots); bars and bands: ± 1 standard error"
