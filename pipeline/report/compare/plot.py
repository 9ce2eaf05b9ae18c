"""The picture of a comparison: each task's difference as a dot with its 95 % interval, a panel per pair of models."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.compare.models import Compare, Line, LineOf
from pipeline.report.compare.tables import heading, interval_text
from pipeline.report.comparison import percent
from pipeline.report.plots import BLUE, GRAY, INK, ORANGE, styled

ROW = 0.3
MOST = 12
"""Panels in one picture; of more pairs the first are drawn, and the files hold all."""


@styled
def differences_plot(comparisons: Sequence[Compare]) -> Figure:
    """Blue: better, orange: worse, beyond every interval; grey: not told apart."""
    shown = list(comparisons)[:MOST]
    heights = [len(found.lines) * ROW + 0.9 for found in shown]
    figure = Figure(figsize=(9.5, sum(heights) + 0.4), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, found in zip(panels, shown, strict=True):
        _panel(axes, found)
    left = f"; {len(comparisons) - MOST} more pairs are in the tables" if len(comparisons) > MOST else ""
    figure.supxlabel(f"difference in percentage points, 95 % interval{left}", fontsize=10, color="#4b5563")
    return figure


def _panel(axes: Axes, found: Compare) -> None:
    axes.set_title(heading(found), fontsize=10.5)
    axes.axvline(0, color=GRAY, linewidth=1, zorder=0)
    for place, line in enumerate(found.lines):
        low, high = _ends(line)
        color = GRAY if not line.beyond else BLUE if line.difference > 0 else ORANGE
        value = 100 * line.difference
        errors = None if low is None or high is None else [[max(0.0, value - 100 * low)], [max(0.0, 100 * high - value)]]
        marker = "D" if line.of is LineOf.MEAN else "o"
        axes.errorbar([value], [place], xerr=errors, fmt=marker, color=color, markersize=5.5, elinewidth=1.6)
        text = f"{percent(line.difference, signed=True)}  ({interval_text(low, high)})"
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(found.lines)), [line.name for line in found.lines])
    for label, line in zip(axes.get_yticklabels(), found.lines, strict=True):
        label.set_fontweight("bold" if line.of is LineOf.MEAN else "normal")
    axes.set_ylim(len(found.lines) - 0.4, -0.6)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _ends(line: Line) -> tuple[float | None, float | None]:
    """The interval that is drawn: of several seeds that over the seeds, else that over the samples."""
    half = line.seeds.half_width
    return (line.low, line.high) if half is None else (line.seeds.mean - half, line.seeds.mean + half)
