"""The picture of what merges learn against what they keep: a mark per trial, the WiSE-FT frontier where alpha is searched.

The axes are those of Wortsman et al. 2022 (arXiv 2109.01903), figure 1: what was trained for against what was not; here the task just
learned against the held-out tasks, or all others. The bytes of a PNG, the same for the same searches.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from pipeline.report.comparison import Estimate
from pipeline.report.plots import BLUE, GRAY, INK, styled
from pipeline.report.search_figures import (
    Group,
    Measured,
    Scale,
    Searched,
    along,
    by_stage,
    end_name,
    front,
    mean_points,
    measured,
    pareto,
    scales_of,
    value_words,
)
from pipeline.report.search_style import (
    GRID,
    LIGHT,
    LINE,
    MANY,
    SEED_LINE,
    STAR,
    at_least,
    bars,
    common_marks,
    heading,
    legend_columns,
    panels,
    percent_of,
    samples_words,
    spread_words,
    stage_title,
    titled,
)
from pipeline.search.spec import Point, Trial

AGAINST = {Group.OTHERS: "all other tasks", Group.HELD_OUT: "held-out tasks"}
SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a label may stand from its mark, right and up; the first of equals is taken."""
LABEL = {"fontsize": 10, "color": INK, "fontweight": "bold", "zorder": 7}


@styled
def frontier(searches: Sequence[Searched], against: Group) -> Figure:
    """The task just learned over the mean of `against`, a mark per trial and a panel per stage; the upper right is best.

    Filled marks are on the Pareto front. With one number searched, trials are joined in its order and the ends named; else the front is.
    """
    stages = by_stage(searches)
    numbers = scales_of(searches)
    joined = numbers[0] if len(numbers) == 1 and numbers[0].numeric else None
    figure, places = panels(len(stages))
    order = f"trials joined in order of {joined.name}" if joined else "a mark per trial, dashed: the Pareto front"
    titled(
        figure,
        heading(searches, f"new task against {AGAINST[against]}"),
        f"{order}; the upper right is best; {samples_words(searches)}",
        spread_words(searches, lines=joined is not None),
    )
    marked = not joined or any(len(members) == 1 or mean_points(members, against) for members in stages.values())
    labels: list[tuple[Axes, float, float, str]] = []
    for place, members in zip(places, stages.values(), strict=True):
        axes = figure.add_subplot(place)
        labels += draw_frontier(axes, members, against, joined)
        axes.set_title(stage_title(members), fontsize=11)
        axes.set(xlabel=f"{AGAINST[against]}, accuracy in %", ylabel=f"{members[0].new}, accuracy in %")
        axes.grid(**GRID)
        axes.set_axisbelow(True)
        axes.margins(0.17)
        axes.set_xlim(*at_least(*axes.get_xlim()))
        axes.set_ylim(*at_least(*axes.get_ylim()))
    figure.legend(handles=frontier_legend(searches, marked), loc="outside lower left", ncols=legend_columns(figure))
    place_labels(figure, labels)
    return figure


def frontier_legend(searches: Sequence[Searched], marked: bool) -> list[Line2D]:
    """Filled and hollow marks (or a line, of seeds that share no points), the star, and the mark of trials that were stopped."""
    look = {"color": BLUE, "marker": "o", "linestyle": "", "markersize": 6, "markeredgecolor": BLUE, "markeredgewidth": 1.3}
    hollow = Line2D([], [], **{**look, "markerfacecolor": "white"}, label="dominated by another trial")
    marks = [Line2D([], [], **look, label="on the Pareto front"), hollow] if marked else [Line2D([], [], color=BLUE, label="each seed")]
    return [*marks, *common_marks(searches)]


def draw_frontier(axes: Axes, searches: Sequence[Searched], against: Group, joined: Scale | None) -> list[tuple[Axes, float, float, str]]:
    """One stage's trials; gives the labels to place: (axes, x, y, text)."""
    shared = zip(mean_points(searches, against), mean_points(searches, Group.NEW), strict=True)
    means = [(point, x, y) for (point, x), (_, y) in shared]
    for each in searches:
        trials = along(each, joined) if joined else list(each.complete)
        pairs = [(trial, x, y) for trial in trials if (x := measured(each, trial, against)) and (y := measured(each, trial, Group.NEW))]
        best = front(each, against)
        if len(searches) == 1:
            draw_marks(axes, [(x, y, trial.number in best) for trial, x, y in pairs], bool(joined))
        elif joined:
            look = {"color": BLUE, "linewidth": SEED_LINE, "alpha": LIGHT if means else 0.8, "zorder": 2}
            axes.plot([100 * x.value for _, x, _ in pairs], [100 * y.value for _, _, y in pairs], **look)
        elif not means:
            draw_marks(axes, [(x, y, trial.number in best) for trial, x, y in pairs], False)
        draw_stopped(axes, each, against)
        draw_pick(axes, each, against, 15 if len(searches) == 1 else 12)
    if means:
        if joined:
            means.sort(key=lambda entry: joined.values.index(entry[0][joined.name]))
        best_means = mean_front(means)
        draw_marks(axes, [(x, y, place in best_means) for place, (_, x, y) in enumerate(means)], bool(joined))
    return end_labels(axes, searches, against, joined, means)


def mean_front(means: Sequence[tuple[Point, Estimate, Estimate]]) -> set[int]:
    """The places of mean points on their Pareto front."""
    return pareto([(x.mean, y.mean) for _, x, y in means])


def draw_marks(axes: Axes, marks: Sequence[tuple[Any, Any, bool]], joined: bool) -> None:
    """Filled marks for the front and hollow ones, light bars both ways, and a line: through all in order, or through the front."""
    xs, ys = [100 * center(x) for x, _, _ in marks], [100 * center(y) for _, y, _ in marks]
    bars(axes, xs, ys, [percent_of(x) for x, _, _ in marks], [percent_of(y) for _, y, _ in marks], BLUE)
    if joined:
        few = len(marks) <= MANY
        axes.plot(xs, ys, color=BLUE, linewidth=LINE if few else SEED_LINE, alpha=1.0 if few else LIGHT, zorder=3)
    else:
        best = sorted((x, -y) for x, y, (_, _, on) in zip(xs, ys, marks, strict=True) if on)
        axes.plot([x for x, _ in best], [-y for _, y in best], color=BLUE, linewidth=1.3, linestyle=(0, (4, 2)), zorder=3)
    for x, y, (_, _, on) in zip(xs, ys, marks, strict=True):
        look = {"markerfacecolor": BLUE if on else "white", "markeredgecolor": BLUE, "markeredgewidth": 1.3}
        axes.plot([x], [y], marker="o", markersize=5.5 if on or len(marks) <= MANY else 3, zorder=4, **look)


def center(found: Measured | Estimate) -> float:
    """The score or the mean."""
    return found.value if isinstance(found, Measured) else found.mean


def draw_stopped(axes: Axes, searched: Searched, against: Group) -> None:
    """Crosses for trials that answered fewer samples."""
    for trial in searched.trials:
        x, y = measured(searched, trial, against), measured(searched, trial, Group.NEW)
        if trial.stopped and x and y:
            axes.plot([100 * x.value], [100 * y.value], color=GRAY, marker="x", linestyle="", markersize=6, zorder=1.8)


def draw_pick(axes: Axes, searched: Searched, against: Group, size: float) -> None:
    """The star, on its seed's own point."""
    x, y = measured(searched, searched.picked, against), measured(searched, searched.picked, Group.NEW)
    if x and y:
        axes.plot([100 * x.value], [100 * y.value], **{**STAR, "markersize": size})


def end_labels(
    axes: Axes, searches: Sequence[Searched], against: Group, joined: Scale | None, means: Sequence[tuple[Point, Estimate, Estimate]]
) -> list[tuple[Axes, float, float, str]]:
    """Names for the two ends of the curve: on the mean's where there is one, else on the first seed's."""
    if joined is None:
        return []
    first = searches[0]
    if means:
        ends = [(point, 100 * x.mean, 100 * y.mean) for point, x, y in (means[0], means[-1])]
    else:
        trials: list[Trial] = along(first, joined)
        found = [(each, measured(first, each, against), measured(first, each, Group.NEW)) for each in (trials[0], trials[-1])]
        ends = [(each.point, 100 * x.value, 100 * y.value) for each, x, y in found if x and y]
    return [(axes, x, y, end_name(point) or value_words(point[joined.name])) for point, x, y in ends]


def place_labels(figure: Figure, labels: Sequence[tuple[Axes, float, float, str]]) -> None:
    """Put each label beside its mark where it covers the least of what is drawn, once the layout is settled."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    placed: list[Bbox] = []
    for axes, x, y, text in labels:
        drawn = [axes.transData.transform(line.get_xydata()) for line in axes.lines if len(line.get_xydata())]
        spots_taken = [spot for line in drawn for spot in dense(line)]
        best: tuple[float, Annotation, Bbox] | None = None
        for right, up in SIDES:
            sides = {1: "left", 0: "center", -1: "right"}[right], {1: "bottom", 0: "center", -1: "top"}[up]
            note = axes.annotate(text, (x, y), (7 * right, 6 * up), textcoords="offset points", ha=sides[0], va=sides[1], **LABEL)
            box = note.get_window_extent()
            outside = not (axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1)
            cost = sum(box.contains(*spot) for spot in spots_taken) + 1000 * outside + 1000 * sum(box.overlaps(other) for other in placed)
            if best is None or cost < best[0]:
                if best:
                    best[1].remove()
                best = (cost, note, box)
            else:
                note.remove()
        if best:
            placed.append(best[2])


def dense(line: Any) -> list[tuple[float, float]]:
    """Spots along a line on the canvas, twelve a segment."""
    spots = [(float(x), float(y)) for x, y in line]
    return spots + [(a + (c - a) * k / 12, b + (d - b) * k / 12) for (a, b), (c, d) in pairwise(spots) for k in range(12)]
