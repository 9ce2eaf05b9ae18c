"""The tables of a search: every trial; each stage's pick and what it was chosen over; several seeds in the mean.

Figures are percent with one decimal, differences percentage points. Laid out by `tables.print_grids` or `tables.markdown`.
"""

from collections.abc import Callable, Sequence

from pipeline.report.comparison import estimate, estimate_text, percent
from pipeline.report.search_figures import (
    Group,
    Measured,
    Searched,
    by_stage,
    difference,
    front,
    margin,
    measured,
    point_words,
    scales_of,
    score_on_test,
    value_words,
)
from pipeline.report.tables import Grid
from pipeline.search.spec import Trial

SELECTED = "the margin is what the search chose by, so it flatters the pick; within one or two of its standard errors either would do"
PAIRED = "its standard error is that of the difference, sample by sample (paired)"
UNPAIRED = "trials answer the same samples, so the margin is mostly surer than the ± of the two values suggest"


def place_words(searched: Searched) -> str:
    """Arm, stage, task and seed, as titles name them."""
    parts = [searched.arm, f"stage {searched.stage}{f' ({searched.task})' if searched.task else ''}", f"seed {searched.seed}"]
    return ", ".join(filter(None, parts))


def measured_text(found: Measured | None, signed: bool = False) -> str:
    """`71.2 ± 1.1`; – for nothing."""
    if found is None:
        return "–"
    text = percent(found.value, signed)
    return text if found.stderr is None else f"{text} ± {percent(found.stderr)}"


def trials_grid(searched: Searched) -> Grid:
    """Every trial in its order: the point, the value, the means it trades, what it cost, what became of it."""
    axes = [scale.name for scale in scales_of([searched])]
    compared = [versus_pick(searched, trial) for trial in searched.trials]
    groups = {Group.NEW: searched.new or "new task", Group.OTHERS: "all others", Group.HELD_OUT: "held-out"}
    shown = {group: words for group, words in groups.items() if any(measured(searched, trial, group) for trial in searched.trials)}
    if searched.members(Group.OTHERS) == searched.members(Group.HELD_OUT):
        shown.pop(Group.OTHERS, None)
    rows = []
    for trial, versus in zip(searched.trials, compared, strict=True):
        point = [value_words(trial.point[name]) if name in trial.point else "–" for name in axes]
        value, *scores = [measured_text(measured(searched, trial, group)) for group in (Group.GOAL, *shown)]
        scores = [value, *([measured_text(versus, signed=True)] if any(compared) else []), *scores]
        rows.append((str(trial.number), *point, *scores, str(trial.samples), f"{trial.seconds:.1f}", fate(searched, trial)))
    columns = ("trial", *axes, "value", *(["− pick"] if any(compared) else []), *shown.values(), "samples", "seconds", "")
    title = f"{place_words(searched)}: {len(searched.trials)} trials, {searched.split} split, accuracy in %"
    note = f"value: the goal {searched.goal}; ± standard error over samples, {searched.samples} of each task"
    note += f"\n− pick: the value minus the pick's; {PAIRED}" if any(compared) else ""
    return Grid(title, columns, tuple(rows), blocks=tuple((name,) for name in columns[1:]), note=note)


def versus_pick(searched: Searched, trial: Trial) -> Measured | None:
    """A trial's value minus the pick's, with its paired standard error; None for the pick, and where that error is not known."""
    if trial.number == searched.pick:
        return None
    found = difference(searched, trial, searched.picked)
    return None if found.stderr is None else found


def fate(searched: Searched, trial: Trial) -> str:
    """What became of a trial: picked, runner-up, stopped early; and whether it is on the Pareto front."""
    second = searched.runner_up
    words = ["picked"] if trial.number == searched.pick else ["runner-up"] if second and trial.number == second.number else []
    words += ["stopped early"] if trial.stopped else []
    words += ["Pareto front"] if searched.new and trial.number in front(searched, Group.OTHERS) else []
    return ", ".join(words)


def picks_grid(searches: Sequence[Searched]) -> Grid:
    """A row per stage and seed: the pick, its value, the spread of the others, the runner-up, the margin over it, the test score."""
    figures: dict[str, Callable[[Searched], str]] = {
        "picked": lambda each: point_words(each.picked.point),
        "value": lambda each: measured_text(measured(each, each.picked, Group.GOAL)),
        "chosen over": others_words,
        "runner-up": lambda each: point_words(each.runner_up.point) if each.runner_up else "–",
        "margin": lambda each: percent(found.value, True) if (found := margin(each)) else "–",
        "paired s.e.": lambda each: percent(found.stderr) if (found := margin(each)) and found.stderr is not None else "–",
        "test": lambda each: measured_text(score_on_test(each)),
    }
    if all(score_on_test(each) is None for each in searches):
        del figures["test"]
    paired = any((found := margin(each)) and found.stderr is not None for each in searches)
    if not paired:
        del figures["paired s.e."]
    rows = tuple((str(each.stage), each.task, str(each.seed), *(words(each) for words in figures.values())) for each in searches)
    goals = ", ".join(dict.fromkeys(each.goal for each in searches))
    title = f"{searches[0].arm or 'search'}: what each stage picked, {searches[0].split} split, in %"
    note = f"value: the goal {goals}; ± standard error over samples\n{SELECTED}\n{f'margin: {PAIRED}' if paired else UNPAIRED}"
    note += "\ntest: the same goal for the pick on the test split, asked once" if "test" in figures else ""
    return Grid(title, ("stage", "task", "seed", *figures), rows, 3, tuple((name,) for name in figures), note)


def others_words(searched: Searched) -> str:
    """How many trials the pick was chosen over, and from where to where their values go; trials that were stopped apart."""
    others = [100 * trial.value for trial in searched.complete if trial.number != searched.pick]
    stopped = len(searched.trials) - len(searched.complete)
    words = [f"{len(others)}: {min(others):.1f} to {max(others):.1f}"] if others else ["none"]
    return "; ".join([*words, *([f"{stopped} stopped early"] if stopped else [])])


def seeds_grid(searches: Sequence[Searched]) -> Grid | None:
    """A row per stage: figures of the pick as means over seeds; None for one seed."""
    stages = by_stage(searches)
    if all(len(members) < 2 for members in stages.values()):
        return None
    rows = []
    for stage, members in stages.items():
        margins = [found.value for each in members if (found := margin(each))]
        tests = [found.value for each in members if (found := score_on_test(each))]
        gaps = [found.value - each.picked.value for each in members if (found := score_on_test(each))]
        picks = "; ".join(point_words(each.picked.point) for each in members)
        figures = [[each.picked.value for each in members], margins, tests]
        cells = [estimate_text(estimate(values)) if values else "–" for values in figures]
        gap = estimate_text(estimate(gaps), signed=True) if gaps else "–"
        rows.append((str(stage), members[0].task, picks, *cells, gap))
    columns = ("stage", "task", "picked, by seed", "value", "margin", "test", "test − value")
    held = [at for at in range(len(columns)) if at < 3 or any(row[at] != "–" for row in rows)]
    title = f"{searches[0].arm or 'search'}: what {len({each.seed for each in searches})} seeds picked, in %"
    note = "mean ± standard error over seeds; value and margin on the split that was searched"
    return Grid(title, tuple(columns[at] for at in held), tuple(tuple(row[at] for at in held) for row in rows), 3, note=note)


def grids_of(searches: Sequence[Searched]) -> list[Grid]:
    """The tables of one arm: means over seeds where there are several, the picks, then every search's trials."""
    means = seeds_grid(searches)
    return [*([means] if means else []), picks_grid(searches), *(trials_grid(each) for each in searches)]
