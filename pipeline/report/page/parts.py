"""Parts of scores: further measures ("pathvqa/f1") and categories ("mmstar/math"), of the base and of each arm's last model."""

from collections.abc import Sequence

from pipeline.report.comparison import Arm
from pipeline.report.page.arms import interval_words, over_seeds
from pipeline.report.page.markup import folded, table
from pipeline.report.run_scores import AFTER, StageScores, rows_of


def parts_of(arms: Sequence[Arm]) -> list[str]:
    """The names of all parts, task by task in the order of the tables, each task's sorted."""
    tasks = list(dict.fromkeys(task for arm in arms for task in arm.runs[0].tasks))
    names = {name for arm in arms for run in arm.runs for entry in run.stages for name in entry.scores if name not in run.tasks}
    return sorted(
        names, key=lambda name: (next((place for place, task in enumerate(tasks) if name.startswith(f"{task}/")), len(tasks)), name)
    )


def parts_table(arms: Sequence[Arm]) -> str:
    """A row per part, folded; "" where no task has parts."""
    names = parts_of(arms)
    if not names:
        return ""
    rows = []
    for name in names:
        cells = [interval_words(over_seeds([part(rows_of(run, AFTER)[0], name) for run in arms[0].runs]))]
        cells += [interval_words(over_seeds([part(rows_of(run, AFTER)[arm.stage], name) for run in arm.runs])) for arm in arms]
        rows.append([name, *cells])
    columns = ["part of a score", "base", *(arm.name for arm in arms)]
    return folded("Parts of scores", table(columns, rows), note=f"{len(names)} further measures and categories, in %")


def part(entry: StageScores, name: str) -> float | None:
    """A part's score, None where the model has none."""
    return entry.scores[name].accuracy if name in entry.scores else None
