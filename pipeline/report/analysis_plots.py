"""The pictures of an analysis: number statistics over checkpoints, and how each layer's contributions changed. In the report's style."""

from collections.abc import Mapping
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluators.analysis.layer_contributions import LayerContributions
from evaluators.analysis.number_bias import NumberBias
from pipeline.report.plots import ARM_COLORS, ARM_MARKERS, BLUE, ORANGE, styled

STATISTICS = {
    "avg_max_number_logit": "largest number logit\nmean over an answer's steps",
    "avg_total_number_prob": "probability of all number tokens\nmean over an answer's steps",
    "avg_max_number_prob": "largest number probability\nmean over an answer's steps",
    "num_generation_steps": "steps of an answer\n",
    "max_number_logit": "largest number logit\nmaximum over an answer's steps",
    "max_total_number_prob": "probability of all number tokens\nmaximum over an answer's steps",
    "max_max_number_prob": "largest number probability\nmaximum over an answer's steps",
}
"""Statistic -> its panel's title, in the order of the panels."""
COLUMNS = 4
CURVES = {"attention": (BLUE, "o", "-"), "mlp": (ORANGE, "s", "--")}


@styled
def number_plot(found: Mapping[str, Mapping[str, NumberBias]]) -> Figure:
    """Checkpoint -> task -> probe: a panel per statistic, a curve per task over the checkpoints as they were named."""
    tasks = list(next(iter(found.values())))
    width = max(3.3, 0.55 * len(found) + 1.6)
    figure = Figure(figsize=(COLUMNS * width, 7.6), layout="constrained")
    figure.suptitle("How strongly each checkpoint leans towards numbers", x=0.01, ha="left", fontsize=13, fontweight="bold")
    panels = figure.subplots(2, COLUMNS).flatten()
    for axes, (statistic, title) in zip(panels, STATISTICS.items(), strict=False):
        for place, task in enumerate(tasks):
            means = [getattr(probes[task].mean, statistic) for probes in found.values()]
            spread = [getattr(probes[task].deviation, statistic) for probes in found.values()]
            look = {"color": ARM_COLORS[(place + 1) % 8], "marker": ARM_MARKERS[place % 8], "linewidth": 1.6, "markersize": 5}
            shift = 0.08 * (place - (len(tasks) - 1) / 2)
            bars = axes.errorbar(np.arange(len(means)) + shift, means, spread, **look, elinewidth=1, label=task)
            for part in (*bars[1], *bars[2]):
                part.set_alpha(0.4)
        axes.set_title(title, fontsize=11)
        name_checkpoints(axes, list(found))
    panels[-1].set_axis_off()
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="upper left", title="mean over samples; bars: ± 1 std", alignment="left")
    return figure


def name_checkpoints(axes: Axes, names: list[str]) -> None:
    """The checkpoints below a panel, and lines to read its values by."""
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    for label in axes.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor", fontsize=10)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


@styled
def layer_plot(found: Mapping[str, LayerContributions]) -> Figure:
    """A panel per tuned checkpoint with two curves over the layers, attention and MLP; all with one scale."""
    columns = min(3, len(found))
    rows = ceil(len(found) / columns)
    figure = Figure(figsize=(max(6.4, 4.8 * columns), 3.6 * rows + 0.9), layout="constrained")
    figure.suptitle("Change of each layer's contribution from the base, in logit space", x=0.01, ha="left", fontsize=13, fontweight="bold")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, (name, contributions) in zip(panels, found.items(), strict=False):
        for part, (color, marker, line) in CURVES.items():
            values = getattr(contributions, part)
            size = 5 if len(values) <= 16 else 3.5
            axes.plot(range(len(values)), values, color=color, marker=marker, linestyle=line, linewidth=1.8, markersize=size, label=part)
        axes.set_title(name)
        axes.set_xlabel("decoder layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel("mean logit distance")
    panels[0].set_ylim(bottom=0)
    panels[0].legend()
    return figure
