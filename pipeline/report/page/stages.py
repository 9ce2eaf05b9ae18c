"""Before and after each merge on the same questions, and arms against each other: differences with their intervals and p, as tables."""

from collections.abc import Sequence

from pipeline.report.comparison import COMPARED, Arm, seeds_difference
from pipeline.report.page.arms import NOTHING, difference_words, figure_words, points
from pipeline.report.page.markup import Cell, element, folded, table, text
from pipeline.report.paired import AVERAGE, HELD_OUT_MEAN, STREAM_MEAN, Compared, Contrast, Kind, PairedScores
from pipeline.report.paired_tables import OWN, measured, p_text

CLEAR = 0.05
"""From an adjusted p below this a difference is marked."""
LESS_IS_BETTER = ("forgetting", "intransigence")
TITLES = {OWN: "the stage's own task", HELD_OUT_MEAN: "held-out tasks, mean", AVERAGE: "all tasks, mean"}


def figures_table(arms: Sequence[Arm]) -> str:
    """A row per arm: every figure's mean over seeds with its interval; the best mean of accuracies and gains in bold."""
    found = [arm.figures for arm in arms]
    shown = [metric for metric in COMPARED if any(metric in each for each in found)]
    rows = []
    for arm, figures in zip(arms, found, strict=True):
        cells: list[str | Cell] = [arm.name, str(len(arm.runs))]
        for metric in shown:
            means = [each[metric].mean for each in found if metric in each]
            best = min(means) if metric.startswith(LESS_IS_BETTER) else max(means)
            leads = len(set(means)) > 1 and metric in figures and figures[metric].mean == best
            cells.append(Cell(figure_words(arm, metric), "best" if leads else ""))
        rows.append(cells)
    return table(["arm", "seeds", *(COMPARED[metric] for metric in shown)], rows)


def merges_tables(arms: Sequence[Arm], paired: PairedScores, chosen: int) -> str:
    """For every arm that merges a table of its stages; the one at `chosen` is unfolded."""
    contrasts = paired.together(Kind.MERGE)
    blocks = []
    for place, arm in enumerate(arms):
        own = [each for each in contrasts if each.arm == arm.name]
        if own:
            note = f"{arm.weights}; seed{'s' if len(own[0].seeds) > 1 else ''} {', '.join(map(str, own[0].seeds))}"
            title = element("summary", text(arm.name), " ", element("span", text(note), class_="soft"))
            every = folded("Every task", tasks_table(own), note=f"{sum(len(each.tasks) for each in own)} comparisons")
            shown = place == chosen or len({each.arm for each in contrasts}) == 1
            blocks.append(element("details", title, stages_table(own), every, open=shown))
    return "".join(blocks)


def stages_table(contrasts: Sequence[Contrast]) -> str:
    """A row per stage: the stage's own task, the held-out tasks, all tasks; each before → after, the difference, and p."""
    groups = [name for name in (OWN, HELD_OUT_MEAN, AVERAGE) if any(measured(each, name) for each in contrasts)]
    columns = ["stage"] + ["before → after", "difference", "p"] * len(groups)
    rows = []
    for each in contrasts:
        cells: list[str | Cell] = [f"{each.stage} {each.trained}"]
        for group in groups:
            found = measured(each, group)
            cells += change_cells(found) if found else [NOTHING] * 3
        rows.append(cells)
    return table(columns, rows, groups=[(TITLES.get(group, group), 3) for group in groups])


def change_cells(found: Compared) -> list[str | Cell]:
    """ "60.0 → 72.5", "+12.5 [8.0, 17.1]", "0.004"; marked where it is clear."""
    each = found.found
    clear = ("better" if each.difference > 0 else "worse") if found.adjusted < CLEAR else ""
    return [f"{points(each.before)} → {points(each.after)}", Cell(samples_difference(found), clear), p_text(found.adjusted)]


def samples_difference(found: Compared) -> str:
    """ "+12.5 [8.0, 17.1]" in points."""
    each = found.found
    return f"{points(each.difference, True)} [{points(each.low)}, {points(each.high)}]"


def tasks_table(contrasts: Sequence[Contrast]) -> str:
    """A row per stage and task, with how many samples each side got right alone."""
    rows = [
        [
            f"{contrast.stage} {contrast.trained}", each.name, *change_cells(each)[:2], p_text(each.found.p), p_text(each.adjusted),
            f"{each.found.won}", f"{each.found.lost}", f"{each.found.samples}",
        ]
        for contrast in contrasts
        for each in contrast.tasks
    ]  # fmt: skip
    columns = ["stage", "task", "before → after", "difference", "p", "p adjusted", "better", "worse", "samples"]
    return table(columns, rows, labels=2)


def arms_table(arms: Sequence[Arm], paired: PairedScores) -> str:
    """A row per pair of arms: the difference over seeds, and over the same questions with its p; "" where no pair can be compared."""
    rows: list[list[str | Cell]] = []
    by_name = {arm.name: arm for arm in arms}
    for each in paired.together(Kind.ARMS):
        first, second = by_name[each.first], by_name[each.second]
        over = seeds_difference(first, second)
        cells: list[str | Cell] = [f"{second.name} − {first.name}", NOTHING if over is None else difference_words(over)]
        for mean in (AVERAGE, HELD_OUT_MEAN, STREAM_MEAN):
            found = each.of.get(mean)
            cells += change_cells(found)[1:] if found else [NOTHING] * 2
        rows.append(cells)
    columns = ["difference of", "over seeds", *["same questions", "p"] * 3]
    groups = [("all tasks, mean", 3), ("held-out tasks, mean", 2), ("stream tasks, mean", 2)]
    return table(columns, rows, groups=groups) if rows else ""
