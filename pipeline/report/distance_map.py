"""The picture of a distance measurement: heat maps over depth. A row of panels per metric; a panel per tower, one for what has no depth."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mergers.distances.groups import Group
from mergers.distances.measure import Distances, Pair
from pipeline.report.plots import CHANGE_MAP, GRAY, INK, SCORES_MAP, styled

CELL = 0.44
"""Height of a row of cells, inches."""
MOST_NUMBERED = 14
"""Layers up to which the values are written into the cells."""
NUMBERS_WIDTH, WIDTH = 0.52, 0.25
"""Width of a layer with a number in its cell, and without, inches."""
PART_ORDER = ("attention", "mlp", "norm")


@dataclass(frozen=True)
class Measure:
    """A metric as it is shown: its title, and whether a colour scale with a middle fits it."""

    metric: str
    title: str
    signed: bool = False
    share: bool = True

    def value(self, measured: float | None) -> float:
        """The value to show; NaN for what is not defined."""
        if measured is None:
            return np.nan
        return 1 - measured if self.metric == "cosine" and not self.signed else measured

    def text(self, value: float) -> str:
        """The value in a cell."""
        if np.isnan(value):
            return "–"
        if not self.share:
            return "0" if abs(value) < 0.005 else f"{value:.2f}".replace("-", "−")
        percent = 100 * value
        if percent < 0.01:
            return "0" if percent == 0 else "<0.01"
        return f"{percent:.0f}" if percent >= 99.5 else f"{percent:.1f}" if percent >= 0.995 else f"{percent:.2g}"

    def tick(self, value: float) -> str:
        """The value beside the scale."""
        return f"{100 * value if self.share else value:.3g}".replace("-", "−")


@dataclass(frozen=True)
class Panel:
    """Cells [parts, layers] of one tower, or [parts, 1] of what has no depth."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    groups: dict[tuple[int, int], Group]


def measures(found: Distances, first: str) -> list[Measure]:
    """The rows of panels. The cosine of weights is close to 1, so its distance from 1 is shown; that of task vectors may have any sign."""
    cosine = Measure("cosine", "cosine", signed=True, share=False) if found.base else Measure("cosine", "1 − cosine, in %")
    return [
        Measure("relative_l2", f"L2 relative to {first}, in %"),
        cosine,
        Measure("sign_disagreement", "signs that differ, in %"),
        Measure("ssd", "soft sign dissimilarity (SSD), in %"),
        Measure("truncated_ssd", f"truncated SSD (largest {found.density:.4g}), in %"),
    ]


@styled
def distance_map(found: Distances, pair: Pair) -> Figure:
    """All groups of a pair, coloured by each metric."""
    panels, shown = panels_of(found.groups), measures(found, pair[0])
    widths = [max(1.2, len(panel.columns) * cell_width(panel)) for panel in panels]
    height = max(len(panel.rows) for panel in panels) * CELL
    margins = 1.15 * len(panels) + 1.4
    figure = Figure(figsize=(sum(widths) + margins, len(shown) * (height + 0.95) + 1.15), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.07, w_pad=0.06)
    what = f"Task vectors from {found.base}" if found.base else "Weights"
    figure.suptitle(f"{what}: {pair[0]} and {pair[1]}", x=0.01, ha="left", fontsize=13, fontweight="bold")
    grid = figure.subplots(len(shown), len(panels), squeeze=False, width_ratios=widths)
    values = {group: found.group(pair, group) for group in found.groups}
    for row, measure in enumerate(shown):
        told = {group: measure.value(metrics[measure.metric]) for group, metrics in values.items()}
        norm, colors = scale_of(measure, list(told.values()))
        for axes, panel in zip(grid[row], panels, strict=True):
            draw_panel(axes, panel, told, measure, norm, colors)
        grid[row][0].set_title(measure.title)
        add_scale(figure, list(grid[row]), measure, ScalarMappable(norm, colors))
    for axes, panel in zip(grid[0], panels, strict=True):
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 10.5, "style": "italic", "color": "#4b5563"}
        axes.annotate(panel.title, (0, 1), (0, 28), **place)
    for axes, panel in zip(grid[-1], panels, strict=True):
        axes.set_xlabel("layer" if len(panel.columns) > 1 else "")
    return figure


def add_scale(figure: Figure, row: list[Axes], measure: Measure, colors: ScalarMappable) -> None:
    """The colours of a row of panels and their values, at its right."""
    bar = figure.colorbar(colors, ax=row, pad=0.015, fraction=0.04, aspect=12)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=9.5)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: measure.tick(value)))


def panels_of(groups: tuple[Group, ...]) -> list[Panel]:
    """A panel per tower that has layers, and a last one for what has none."""
    panels = []
    for tower in dict.fromkeys(group.tower for group in groups if group.layer >= 0):
        inside = [group for group in groups if group.tower == tower and group.layer >= 0]
        rows = ordered({group.part for group in inside})
        columns = sorted({group.layer for group in inside})
        cells = {(rows.index(group.part), columns.index(group.layer)): group for group in inside}
        panels.append(Panel(tower.replace("_", " ") or "layers", tuple(rows), tuple(map(str, columns)), cells))
    outside = [group for group in groups if group.layer < 0]
    if outside:
        named = [group.label.replace("_", " ") for group in outside]
        panels.append(Panel("outside the layers", tuple(named), ("",), {(row, 0): group for row, group in enumerate(outside)}))
    return panels


def ordered(parts: set[str]) -> list[str]:
    """The known parts first, then the others by name."""
    return [part for part in PART_ORDER if part in parts] + sorted(parts - set(PART_ORDER))


def cell_width(panel: Panel) -> float:
    """Inches per column."""
    return NUMBERS_WIDTH if len(panel.columns) <= MOST_NUMBERED else WIDTH


def scale_of(measure: Measure, values: list[float]) -> tuple[Normalize, Colormap]:
    """The colours of a metric: from 0 up, or around 0."""
    known = [value for value in values if not np.isnan(value)]
    limit = max((abs(value) for value in known), default=0.0) or 1.0
    return (TwoSlopeNorm(0, -limit, limit), CHANGE_MAP) if measure.signed else (Normalize(0, limit), SCORES_MAP)


def draw_panel(axes: Axes, panel: Panel, told: dict[Group, float], measure: Measure, norm: Normalize, colors: Colormap) -> None:
    """One panel's cells, with their values where there is room."""
    values = np.full((len(panel.rows), len(panel.columns)), np.nan)
    for place, group in panel.groups.items():
        values[place] = told[group]
    shown = colors.with_extremes(bad="#f3f4f6")
    axes.pcolormesh(np.ma.masked_invalid(values), norm=norm, cmap=shown, edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(panel.rows)) + 0.5, panel.rows)
    step = max(1, len(panel.columns) // 16) if len(panel.columns) > MOST_NUMBERED else 1
    axes.set_xticks(np.arange(0, len(panel.columns), step) + 0.5, panel.columns[::step])
    axes.tick_params(length=0, labelsize=10)
    for side in axes.spines.values():
        side.set_visible(False)
    if len(panel.columns) > MOST_NUMBERED:
        return
    for (row, column), value in np.ndenumerate(values):
        if (row, column) in panel.groups:
            face = shown(norm(value))
            ink = GRAY if np.isnan(value) else "white" if np.dot(face[:3], (0.299, 0.587, 0.114)) < 0.55 else INK
            axes.text(column + 0.5, row + 0.52, measure.text(value), ha="center", va="center", fontsize=9.5, color=ink)
