"""The pictures of a report: accuracy matrices, curves over the stages, and arms side by side.

Each function returns the bytes of a PNG. The same scores give the same bytes: Agg canvas, fixed size and resolution, no metadata. Figures
are built as objects, without pyplot, so nothing global is left behind. Several seeds of an arm are shown by their mean.
"""

import io
from collections.abc import Callable, Sequence
from functools import wraps

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pipeline.report.comparison import Arm, Estimate, after_stage, arm_label, estimate, percent
from pipeline.report.run_scores import AFTER, BEFORE, score_matrix, stderr_matrix, summary

ORANGE, BLUE, INK, GRAY = "#d97706", "#2563eb", "#1f2937", "#9ca3af"
ARM_COLORS = ("#6b7280", "#2563eb", "#d97706", "#059669", "#a21caf", "#0891b2", "#b91c1c", "#4d7c0f", "#111827", "#be185d")
ARM_MARKERS = "osD^vP*Xhp"
ARMS_TOLD_APART = len(ARM_MARKERS)
DPI = 130
GAP = 0.3
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "errorbar.capsize": 3,
}
SCORES_MAP = LinearSegmentedColormap.from_list("scores", ["#f8fafc", "#bfdbfe", "#60a5fa", "#1d4ed8", "#172554"])
CHANGE_MAP = LinearSegmentedColormap.from_list("change", [ORANGE, "#ffffff", BLUE])


def styled(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """`draw` under this module's style alone, whatever the user's matplotlib settings; the figure as PNG bytes."""

    @wraps(draw)
    def to_png(*arguments: object) -> bytes:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            figure = draw(*arguments)
            buffer = io.BytesIO()
            FigureCanvasAgg(figure)
            figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    return to_png


@styled
def heatmap(arm: Arm) -> Figure:
    """Stage x task: before the merge, after it, and the difference; one panel below the other, held-out and stream tasks apart."""
    first = arm.runs[0]
    after = mean_scores(arm, AFTER)
    panels: list[tuple[str, np.ndarray, int, bool]] = []
    if first.merges:
        before = mean_scores(arm, BEFORE)
        rows = min(len(before), len(after))
        panels += [("Before the merge: accuracy in %", before, 0, False), ("After the merge: accuracy in %", after, 0, False)]
        panels += [("What the merge changes: after minus before, in points", (after[:rows] - before[:rows])[1:], 1, True)]
    else:
        panels += [
            ("After each stage: accuracy in %", after, 0, False),
            ("Change from the base model, in points", (after - after[0])[1:], 1, True),
        ]
    panels = [panel for panel in panels if len(panel[1])]
    heights = [len(values) for _, values, _, _ in panels]
    width = 2.2 + 0.72 * len(first.tasks)
    figure = Figure(figsize=(width, 1.3 + 0.42 * sum(heights) + 0.85 * len(panels)), layout="constrained")
    figure.suptitle(arm_label(arm), x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    for place, axes in enumerate(figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]):
        title, values, stage, change = panels[place]
        lefts = _matrix_panel(axes, arm, values, stage, change)
        axes.set_title(title, pad=8 if place else 24)
        if place == 0:
            _label_groups(axes, first.held_out, lefts)
    figure.supxlabel(
        "outlined: the task that the stage has just trained" + _seeds_note(arm), fontsize=9.5, color="#4b5563", x=0.01, ha="left"
    )
    return figure


def _matrix_panel(axes: Axes, arm: Arm, values: np.ndarray, first_stage: int, change: bool) -> list[float]:
    """One matrix [stages, tasks] with its values in the cells; row 0 is `first_stage`. Gives the left edges of the columns."""
    run = arm.runs[0]
    held = len(run.held_out)
    limit = max(float(np.abs(values).max()), 0.01)
    norm = TwoSlopeNorm(0, -limit, limit) if change else mpl.colors.Normalize(0, 1)
    colors: Colormap = CHANGE_MAP if change else SCORES_MAP
    lefts = [column + (GAP if column >= held and held else 0) for column in range(len(run.tasks))]
    for (row, column), value in np.ndenumerate(values):
        face = colors(norm(value))
        axes.add_patch(Rectangle((lefts[column], row), 1, 1, facecolor=face, edgecolor="white", linewidth=1))
        ink = "white" if np.dot(face[:3], (0.299, 0.587, 0.114)) < 0.55 else INK
        text = f"{100 * value:+.0f}" if change else f"{100 * value:.0f}"
        axes.text(
            lefts[column] + 0.5,
            row + 0.52,
            "0" if text in ("+0", "-0") else text.replace("-", "−"),
            ha="center",
            va="center",
            color=ink,
            fontsize=10.5,
            in_layout=False,  # it lies within its axes: the layout need not measure it
        )
    for row in range(len(values)):
        if row + first_stage > 0:
            own = lefts[held + row + first_stage - 1]
            for color, width in (("white", 4.2), (INK, 1.8)):
                axes.add_patch(Rectangle((own + 0.05, row + 0.05), 0.9, 0.9, fill=False, edgecolor=color, linewidth=width))
    axes.set(xlim=(0, lefts[-1] + 1), ylim=(len(values), 0))
    axes.set_xticks([left + 0.5 for left in lefts], run.tasks)
    names = ["base", *(f"{stage} {task}" for stage, task in enumerate(run.stream, 1))]
    axes.set_yticks(np.arange(len(values)) + 0.5, names[first_stage : first_stage + len(values)])
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    _slant(axes, run.tasks, room=9)
    return lefts


def _label_groups(axes: Axes, held_out: Sequence[str], lefts: Sequence[float]) -> None:
    """The names of the two groups of columns, above their first column."""
    words = {"held-out tasks": 0, "stream tasks": len(held_out)} if held_out else {"stream tasks": 0}
    for word, column in words.items():
        axes.text(lefts[column], -0.12, word, ha="left", va="bottom", fontsize=10, color="#4b5563", style="italic")


@styled
def before_after(arm: Arm) -> Figure:
    """Held-out mean and stream mean over the stages, before and after the merge, with standard errors."""
    held = len(arm.runs[0].held_out)
    groups = [("Held-out tasks, never trained", slice(0, held)), ("Stream tasks, trained one after another", slice(held, None))]
    groups = groups if held else groups[1:]
    figure = Figure(figsize=(5.4 * len(groups), 4.6), layout="constrained")
    figure.suptitle(arm_label(arm), x=0.01, ha="left", fontsize=13, fontweight="bold")
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axes, (title, columns) in zip(panels, groups, strict=True):
        _curves_panel(axes, arm, columns)
        axes.set_title(title)
    panels[0].set(ylabel="mean accuracy in %", ylim=(0, 102))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    count = len(arm.runs)
    over = f"mean of {count} seeds; bars: ± 1 standard error over seeds" if count > 1 else "bars: ± 1 standard error over samples"
    figure.text(0.99, 0.015, over, ha="right", va="bottom", fontsize=9.5, color="#4b5563")
    return figure


def _curves_panel(axes: Axes, arm: Arm, columns: slice) -> None:
    """The mean over `columns` after each stage, one curve per role; the base model's level as a dotted line."""
    run = arm.runs[0]
    looks = {
        BEFORE: (ORANGE, "s", "--", "before the merge"),
        AFTER: (BLUE, "o", "-", "after the merge" if run.merges else "after each stage"),
    }
    for role in run.roles:
        color, marker, line, label = looks[role]
        means, errors = _curve(arm, role, columns)
        shown = np.arange(1 if role == BEFORE else 0, len(means))
        look = {"color": color, "marker": marker, "linestyle": line, "linewidth": 1.8, "markersize": 5, "label": label}
        axes.errorbar(shown, 100 * means[shown], 100 * errors[shown], **look)
    axes.axhline(100 * _curve(arm, AFTER, columns)[0][0], color=GRAY, linewidth=1, linestyle=":", zorder=0, label="base model")
    axes.set_xticks(range(len(run.stream) + 1), ["base", *run.stream])
    _slant(axes, run.stream, room=8)
    axes.set_xlabel("stage just trained")
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


@styled
def comparison(arms: Sequence[Arm]) -> Figure:
    """Arms side by side after the last stage: average accuracy, held-out accuracy, forgetting; and learning against forgetting."""
    figure = Figure(figsize=(12.5, 4.3 + 0.32 * len(arms)), layout="constrained")
    when = after_stage(arms[0].stage, arms[0].runs[0].stream)
    figure.suptitle(f"{when.capitalize()}: what each arm knows, keeps and forgets", x=0.01, ha="left", fontsize=13, fontweight="bold")
    grid = figure.add_gridspec(1, 4, width_ratios=(1, 1, 1, 1.9))
    measures = {
        "acc/average": "All tasks:\naccuracy in %",
        "acc/held_out": "Held-out tasks:\naccuracy in %",
        "forgetting/stream": "Stream tasks:\nforgotten, points",
    }
    shown = {metric: words for metric, words in measures.items() if any(metric in arm.figures for arm in arms)}
    for column, (metric, words) in enumerate(shown.items()):
        axes = figure.add_subplot(grid[column])
        _dots(axes, arms, metric)
        axes.set_title(words)
        axes.set_yticks(range(len(arms)), [arm.name for arm in arms] if column == 0 else [""] * len(arms))
    _learning_against_forgetting(figure.add_subplot(grid[3]), arms)
    handles = [
        Line2D(
            [],
            [],
            color=ARM_COLORS[index % ARMS_TOLD_APART],
            marker=ARM_MARKERS[index % ARMS_TOLD_APART],
            linestyle="",
            markersize=8,
            label=arm_label(arm),
        )
        for index, arm in enumerate(arms)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(3, len(arms)))
    return figure


def _dots(axes: Axes, arms: Sequence[Arm], metric: str) -> None:
    """One row per arm: a faint dot per seed, the mean and its standard error."""
    for row, arm in enumerate(arms):
        if metric in arm.figures:
            color, marker = ARM_COLORS[row % ARMS_TOLD_APART], ARM_MARKERS[row % ARMS_TOLD_APART]
            seeds = [100 * summary(run, arm.stage)[metric] for run in arm.runs]
            axes.plot(seeds, [row] * len(seeds), ".", color=color, alpha=0.35, markersize=7, markeredgewidth=0)
            value = arm.figures[metric]
            axes.errorbar(100 * value.mean, row, xerr=_bar(value), color=color, marker=marker, markersize=6, linewidth=1.8)
            axes.annotate(percent(value.mean), (100 * value.mean, row), (0, 9), textcoords="offset points", ha="center", fontsize=10)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.margins(x=0.22)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _learning_against_forgetting(axes: Axes, arms: Sequence[Arm]) -> None:
    """x: drop of the held-out tasks from the base, y: gain on the stream's tasks over the base; the upper left is best."""
    for index, arm in enumerate(arms):
        if "forgetting/held_out" not in arm.figures or "learning/final_gain" not in arm.figures:
            continue
        color, marker = ARM_COLORS[index % ARMS_TOLD_APART], ARM_MARKERS[index % ARMS_TOLD_APART]
        seeds = [summary(run, arm.stage) for run in arm.runs]
        points = [[100 * figures[metric] for figures in seeds] for metric in ("forgetting/held_out", "learning/final_gain")]
        axes.plot(*points, ".", color=color, alpha=0.35, markersize=7, markeredgewidth=0)
        lost, kept = arm.figures["forgetting/held_out"], arm.figures["learning/final_gain"]
        axes.errorbar(100 * lost.mean, 100 * kept.mean, _bar(kept), _bar(lost), color=color, marker=marker, markersize=7, linewidth=1.8)
    axes.axhline(0, color=GRAY, linewidth=1, linestyle=":")
    axes.axvline(0, color=GRAY, linewidth=1, linestyle=":")
    axes.margins(0.15)
    axes.set_title("Learning against forgetting\n(upper left is best)")
    axes.set(xlabel="held-out tasks: drop from the base, points", ylabel="stream tasks: gain over the base, points")
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def mean_scores(arm: Arm, role: str) -> np.ndarray:
    """The arm's score matrix, mean over its seeds, [stages + 1, tasks]; as many stages as all seeds have."""
    matrices = [score_matrix(run, role).scores for run in arm.runs]
    rows = min(map(len, matrices))
    return np.mean([matrix[:rows] for matrix in matrices], axis=0)


def _curve(arm: Arm, role: str, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Mean over `columns` after each stage and its standard error: over seeds, or with one seed over samples."""
    rows = len(mean_scores(arm, role))
    if len(arm.runs) == 1:
        errors = stderr_matrix(arm.runs[0], role)[:, columns]
        return score_matrix(arm.runs[0], role).scores[:, columns].mean(axis=1), np.sqrt((errors**2).sum(axis=1)) / errors.shape[1]
    curves = np.array([score_matrix(run, role).scores[:rows, columns].mean(axis=1) for run in arm.runs])
    estimates = [estimate(values.tolist()) for values in curves.T]
    return np.array([value.mean for value in estimates]), np.array([value.stderr or 0.0 for value in estimates])


def _slant(axes: Axes, names: Sequence[str], room: int) -> None:
    """Turn the labels below `axes` where a name is longer than `room` letters."""
    if max(map(len, names)) > room:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _bar(value: Estimate) -> float | None:
    return None if value.stderr is None else 100 * value.stderr


def _seeds_note(arm: Arm) -> str:
    return f"; mean of {len(arm.runs)} seeds" if len(arm.runs) > 1 else f"; seed {arm.runs[0].seed}"
