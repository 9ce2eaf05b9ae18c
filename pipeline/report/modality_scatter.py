"""The picture of what distances foretell: every merge and seed over each metric, with the rank correlations. In the report's style.

The bytes of a PNG, the same for the same outcomes. Families are told apart by marker as well as by colour.
"""

from collections.abc import Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.report.modality import UNMERGED, Setting, tuned_words
from pipeline.report.modality_correlation import (
    Correlation,
    Point,
    Target,
    correlation,
    correlations,
    followed,
    metric_words,
    points_of,
)
from pipeline.report.modality_plots import GRID, QUIET
from pipeline.report.plots import ARM_COLORS, ARM_MARKERS, ARMS_TOLD_APART, styled

COLUMNS, SEEDS_LISTED = 5, 3
"""Panels beside each other; up to how many seeds a title names each."""
Looks = dict[str, tuple[str, str]]
"""Family -> colour and marker."""


def drawn(settings: Sequence[Setting], asked: str) -> dict[Target, list[Correlation]]:
    """What there is to show: by target, the metrics with a rank correlation in at least one seed. Empty where none varies."""
    found: dict[Target, list[Correlation]] = {}
    for each in correlations(settings, asked):
        if each.mean is not None:
            found.setdefault(each.target, []).append(each)
    return found


@styled
def distances(settings: Sequence[Setting], asked: str) -> Figure:
    """Targets over metrics: a mark per merge and seed, a thin line through one merge made of experts at several steps.

    There must be something to show (`drawn`).
    """
    shown = drawn(settings, asked)
    widest = max(map(len, shown.values()))
    columns = min(widest, COLUMNS)
    rows = ceil(widest / columns)
    figure = Figure(figsize=(max(6.4, 2.6 * columns + 0.8), 3.0 * rows * len(shown) + 1.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06)
    figure.suptitle(f"{asked}: does distance foretell what a merge scores?", x=0.01, ha="left", fontsize=13, fontweight="bold")
    families = list(dict.fromkeys(each.family for each in settings if each.is_merge and any(one.distances for one in each.outcomes)))
    looks = {family: (ARM_COLORS[place % ARMS_TOLD_APART], ARM_MARKERS[place % ARMS_TOLD_APART]) for place, family in enumerate(families)}
    grid = figure.subplots(rows * len(shown), columns, squeeze=False)
    words = {Target.SCORE: "merge only, in %", Target.LOST: f"lost by merging, points\n({UNMERGED} minus merged)"}
    words[Target.TUNED] = f"{tuned_words(settings)}, in %".replace(" of fine", "\nof fine")
    for place, (target, found) in enumerate(shown.items()):
        panels = grid[place * rows : (place + 1) * rows].flatten()
        for axes, each in zip(panels, found, strict=False):
            points = points_of(settings, each.metric, asked, target)
            joined = [point for point in points if point.setting.merge in followed(settings)]
            draw_points(axes, points, joined, looks)
            describe(axes, each, correlation(joined, each.metric, target))
        for axes in panels[len(found) :]:
            axes.set_axis_off()
        for axes in panels[::columns]:
            axes.set_ylabel(words[target])
    marks = [Line2D([], [], color=color, marker=marker, linestyle="", markersize=7, label=name) for name, (color, marker) in looks.items()]
    if followed(settings):
        marks.append(Line2D([], [], color=QUIET, linewidth=0.8, label="same merge, same seed"))
    figure.legend(handles=marks, loc="outside lower left", ncols=max(2, min(len(marks), 2 * columns)))
    return figure


def draw_points(axes: Axes, points: Sequence[Point], joined: Sequence[Point], looks: Looks) -> None:
    """A mark per merge and seed, and a line through each merge and seed of `joined`, from the earliest step to the finished experts."""
    for line in dict.fromkeys((point.setting.merge, point.outcome.seed) for point in joined):
        along = [point for point in joined if (point.setting.merge, point.outcome.seed) == line]
        along.sort(key=lambda point: (not point.setting.on_the_way, point.setting.value or 0.0))
        axes.plot([each.distance for each in along], [100 * each.target for each in along], color=QUIET, linewidth=0.8, alpha=0.6, zorder=1)
    for family, (color, marker) in looks.items():
        inside = [(each.distance, 100 * each.target) for each in points if each.setting.family == family]
        look = {"color": color, "marker": marker, "markersize": 5.5, "markeredgewidth": 0, "alpha": 0.75}
        axes.plot([x for x, _ in inside], [y for _, y in inside], linestyle="", **look)


def describe(axes: Axes, found: Correlation, joined: Correlation | None) -> None:
    """The rank correlations above a panel, the metric below it."""
    seeds = [each.rho for each in found.seeds.values()]
    lines = [f"rank correlation {rho(found.pooled.rho)} (n = {found.pooled.points})", f"by seed {', '.join(map(rho, seeds))}"]
    if len(seeds) > SEEDS_LISTED and found.mean is not None:
        lines[1] = f"mean of {found.mean.count} seeds {rho(found.mean.mean)}"
    if joined is not None:
        lines.append(f"joined points {rho(joined.pooled.rho)} (n = {joined.pooled.points})")
    axes.set_title("\n".join(lines), fontsize=10, pad=6)
    axes.set_xlabel(metric_words(found.metric))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(0.08)
    axes.grid(**GRID)
    axes.set_axisbelow(True)


def rho(value: float | None) -> str:
    """ "−0.83", or "undefined"."""
    return "undefined" if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")
