"""The picture of a search over one parameter: the score over it, a panel per stage. In the report's style.

The bytes of a PNG, the same for the same searches. Of several seeds a thin line each and their mean. What is told apart by colour is told
apart by marker or dashes too. `search_frontier.py` draws what is learned against what is kept, `search_parallel.py` several parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.plots import BLUE, GRAY, ORANGE, styled
from pipeline.report.search_figures import Group, Scale, Searched, along, by_stage, mean_points, measured, scales_of, value_words
from pipeline.report.search_style import (
    FEW,
    GOALS,
    GREEN,
    GRID,
    HEIGHT,
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
from pipeline.report.search_tables import versus_pick
from pipeline.search.spec import Value

CURVES: dict[Group, tuple[str, str, Any, str]] = {
    Group.GOAL: (BLUE, "o", "-", "what the search judges by"),
    Group.NEW: (ORANGE, "s", (0, (5, 2)), "the task just learned"),
    Group.OTHERS: (GREEN, "^", (0, (1, 1.5)), "mean of all other tasks"),
}
PAIRED_WIDTH, PAIRED_OPACITY = 6.0, 0.28
SAME = {"new": Group.NEW}
"""Goals that are one of the other curves."""


@styled
def curve(searches: Sequence[Searched]) -> Figure:
    """The score over the one parameter that was searched, stage by stage: above what is judged by, close up; below what it is made of.

    The lower panels, the task just learned and the mean of all others, have one scale; each upper panel has its own.
    """
    scale = scales_of(searches)[0]
    stages = by_stage(searches)
    parts = [group for group in shown_curves(searches) if group is not Group.GOAL]
    figure, places = panels(len(stages), height=HEIGHT + 1.5 if parts else HEIGHT)
    titled(
        figure,
        heading(searches, f"score over {scale.name}"),
        f"judged by {GOALS[searches[0].goal]}; {samples_words(searches)}",
        spread_words(searches, lines=scale.numeric),
    )
    lower: Axes | None = None
    for place, members in zip(places, stages.values(), strict=True):
        inner = place.subgridspec(2 if parts else 1, 1, height_ratios=(1.25, 1) if parts else None)
        above = figure.add_subplot(inner[0])
        draw_curves(above, members, scale, [Group.GOAL])
        draw_paired(above, members, scale)
        draw_picks(above, members, scale)
        above.set_title(stage_title(members), fontsize=11)
        above.margins(y=0.12)
        above.set_ylim(*at_least(*above.get_ylim()))
        under = figure.add_subplot(inner[1], sharex=above, sharey=lower) if parts else above
        if parts:
            lower = under
            above.tick_params(labelbottom=False)
            draw_curves(under, members, scale, parts)
        under.set_xlabel(axis_words(scale))
        if place.is_first_col():
            under.set_ylabel("accuracy in %")
            above.set_ylabel("value in %")
        for axes in (above, under):
            axes.grid(axis="y", **GRID)
            axes.set_axisbelow(True)
    figure.legend(handles=curve_legend(searches), loc="outside lower left", ncols=legend_columns(figure))
    return figure


def axis_words(scale: Scale) -> str:
    """The name of a parameter's axis; of alpha with what its ends are."""
    return f"{scale.name}  (0: tuned, 1: previous model)" if scale.name == "alpha" else scale.name


def curve_legend(searches: Sequence[Searched]) -> list[Line2D]:
    """A line per curve, the star, and the hollow mark where a trial was stopped."""
    shown, numeric = shown_curves(searches), scales_of(searches)[0].numeric
    marks = [
        Line2D([], [], color=color, marker=marker, linestyle=dashes if numeric else "none", linewidth=LINE, markersize=5.5, label=label)
        for group, (color, marker, dashes, label) in CURVES.items()
        if group in shown
    ]
    if any(map(shows_paired, by_stage(searches).values())):
        label = "± 1 standard error of the difference from the pick"
        marks.append(Line2D([], [], color=BLUE, alpha=PAIRED_OPACITY, linewidth=PAIRED_WIDTH, label=label))
    return [*marks, *common_marks(searches)]


def shown_curves(searches: Sequence[Searched]) -> list[Group]:
    """The curves that have scores, without one that is the goal's again."""
    held = [group for group in CURVES if any(measured(each, trial, group) for each in searches for trial in each.trials)]
    return [group for group in held if group is not SAME.get(searches[0].goal)]


def draw_curves(axes: Axes, searches: Sequence[Searched], scale: Scale, groups: Sequence[Group]) -> None:
    """The curves of `groups` in one stage: of one seed with bars over samples, of several the mean with bars over seeds."""
    spot = spots(axes, scale)
    for group in groups:
        color, marker, dashes, _ = CURVES[group]
        line = dashes if scale.numeric else "none"
        look = {"color": color, "marker": marker, "markersize": (5 if group is Group.GOAL else 4) - (2 if len(scale.values) > MANY else 0)}
        width = LINE if group is Group.GOAL else 1.3
        means = mean_points(searches, group)
        for each in searches:
            scored = [(spot(trial.point[scale.name]), score) for trial in along(each, scale) if (score := measured(each, trial, group))]
            xs, ys = [x for x, _ in scored], [100 * score.value for _, score in scored]
            if len(searches) == 1:
                bars(axes, xs, ys, None, [percent_of(score) for _, score in scored], color)
                axes.plot(xs, ys, linestyle=line, linewidth=width, zorder=3, **look)
            else:
                axes.plot(xs, ys, color=color, linestyle=line, linewidth=SEED_LINE, alpha=LIGHT if means else 0.8, zorder=2)
        if means:
            means.sort(key=lambda entry: spot(entry[0][scale.name]))
            xs, ys = [spot(point[scale.name]) for point, _ in means], [100 * mean.mean for _, mean in means]
            bars(axes, xs, ys, None, [percent_of(mean) for _, mean in means], color)
            axes.plot(xs, ys, linestyle=line, linewidth=width, zorder=3, **look)


def draw_paired(axes: Axes, searches: Sequence[Searched], scale: Scale) -> None:
    """For one seed a thick bar through each value: the paired standard error of its difference from the pick, where it is known."""
    if not shows_paired(searches):
        return
    spot = spots(axes, scale)
    found = [(trial, versus) for trial in along(searches[0], scale) if (versus := versus_pick(searches[0], trial)) is not None]
    xs, ys = [spot(trial.point[scale.name]) for trial, _ in found], [100 * trial.value for trial, _ in found]
    width = PAIRED_WIDTH if len(found) <= MANY else PAIRED_WIDTH / 2
    axes.errorbar(
        xs,
        ys,
        [percent_of(versus) for _, versus in found],
        linestyle="none",
        ecolor=BLUE,
        elinewidth=width,
        alpha=PAIRED_OPACITY,
        zorder=1.2,
    )


def shows_paired(searches: Sequence[Searched]) -> bool:
    """Whether the searches of a stage are of one seed whose answers are known."""
    return len(searches) == 1 and bool(searches[0].answers)


def draw_picks(axes: Axes, searches: Sequence[Searched], scale: Scale) -> None:
    """A star on each pick, a cross where a trial was stopped early."""
    spot = spots(axes, scale)
    for each in searches:
        stopped = [(spot(trial.point[scale.name]), 100 * trial.value) for trial in each.trials if trial.stopped]
        axes.plot([x for x, _ in stopped], [y for _, y in stopped], color=GRAY, marker="x", linestyle="", markersize=6)
        size = STAR["markersize"] if len(searches) == 1 else 12
        axes.plot([spot(each.picked.point[scale.name])], [100 * each.picked.value], **{**STAR, "markersize": size})


def spots(axes: Axes, scale: Scale) -> Callable[[Value], float]:
    """Where a value of the parameter stands on the x axis, which is set up for it."""
    if scale.numeric:
        if scale.logarithmic:
            axes.set_xscale("log")
            if len(scale.values) <= FEW:
                axes.set_xticks([float(value) for value in scale.values], [value_words(value) for value in scale.values])
                axes.minorticks_off()
        else:
            low, high = float(scale.values[0]), float(scale.values[-1])
            room = 0.06 * (high - low) or 0.5
            axes.set_xlim(low - room, high + room)
        return float
    axes.set_xticks(range(len(scale.values)), [value_words(value) for value in scale.values])
    if max(len(value_words(value)) for value in scale.values) * len(scale.values) > 30:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(scale.values) - 0.5)
    return lambda value: float(scale.values.index(value))
