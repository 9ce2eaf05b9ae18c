"""The report of searches: `search.md` and PNG for people, `trials.csv` for machines.

Plain data in (`Searched`), so it can be made again from stored trials at any time. Everything is composed before the first file is written;
every file is written atomically and is the same bytes for the same trials.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from foundation.errors import InputError
from foundation.files import write_atomic
from pipeline.report.search_figures import Group, Searched, by_arm, front, measured, scales_of
from pipeline.report.search_tables import grids_of, versus_pick
from pipeline.report.tables import markdown
from pipeline.report.write import to_csv

CAPTIONS = {
    "curve": "score over the parameter",
    "parallel": "parallel coordinates of every trial",
    "frontier_held_out": "the task just learned against the held-out tasks",
    "frontier_others": "the task just learned against all others",
}
WORDS = """\
How to read this. A trial is a merge (or a training) that was tried with one set of parameters; its *value* is what the search was told to
judge by, on the {split} split. The *margin* is the pick's value minus the runner-up's: the best of several noisy values is too high on
average, so only the test score of the pick says how good it is. A trial is *dominated* where another is at least as good on both axes
and better on one; the others are the *Pareto front*. *previous* and *tuned* are the two models that are merged (alpha 1 and alpha 0).
"""


def write_search_report(searches: Sequence[Searched], directory: Path, title: str, notes: Sequence[str] = ()) -> list[Path]:
    """Write the report of `searches` into `directory` and give its files, `search.md` last. `notes` are paragraphs below the title.

    InputError for no search, for one stage and seed searched twice in an arm, for arms that would share a file name.
    """
    arms = by_arm(searches)
    drawn = {arm: pictures(members, suffix_of(arm, list(arms))) for arm, members in arms.items()}
    files: dict[str, str | bytes] = {"trials.csv": trials_csv(searches)}
    for images in drawn.values():
        files |= images
    files["search.md"] = search_markdown(arms, drawn, title, notes)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(directory / name, content)
    return [directory / name for name in files]


def suffix_of(arm: str, arms: Sequence[str]) -> str:
    """What tells the files of an arm apart, where there are several; InputError where two would be alike."""
    slugs = {name: re.sub(r"[^A-Za-z0-9._-]+", "-", name or "search") for name in arms}
    alike = [name for name, text in slugs.items() if text == slugs[arm]]
    if len(alike) > 1:
        raise InputError(f"arms {alike} would share the file name part {slugs[arm]!r}; tell their names apart by letters or digits")
    return f"_{slugs[arm]}" if len(arms) > 1 else ""


def pictures(searches: Sequence[Searched], suffix: str = "") -> dict[str, bytes]:
    """File name -> PNG, for the searches of one arm: the curve of one parameter, or parallel coordinates; the frontiers.

    There is no frontier without a task just learned and another one, and one frontier where the others are the held-out tasks.
    """
    from pipeline.report.search_frontier import frontier
    from pipeline.report.search_parallel import parallel
    from pipeline.report.search_plots import curve

    one = len(scales_of(searches)) == 1
    drawn: dict[str, bytes] = {f"curve{suffix}.png": curve(searches)} if one else {f"parallel{suffix}.png": parallel(searches)}
    both = [group for group in (Group.HELD_OUT, Group.OTHERS) if all(each.new and each.members(group) for each in searches)]
    if all(each.members(Group.OTHERS) == each.members(Group.HELD_OUT) for each in searches):
        both = [group for group in both if group is not Group.OTHERS]
    return drawn | {f"frontier_{group.value}{suffix}.png": frontier(searches, group) for group in both}


def trials_csv(searches: Sequence[Searched]) -> str:
    """Every trial as a row, in full precision: place, point, value and its standard error, scores by task, cost, what became of it."""
    axes = [scale.name for scale in scales_of(searches)]
    tasks = list(dict.fromkeys(task for each in searches for task in each.tasks))
    rows = []
    paired = any(each.answers for each in searches)
    for each in searches:
        best = front(each, Group.OTHERS) if each.new else set()
        for trial in each.trials:
            value = measured(each, trial, Group.GOAL)
            scores = [trial.scores.get(task) for task in tasks]
            versus = versus_pick(each, trial)
            rows.append(
                (
                    *(each.arm, each.seed, each.stage, each.task, each.split, trial.number),
                    *(trial.point.get(name, "") for name in axes),
                    *(each.goal, trial.value, "" if value is None or value.stderr is None else value.stderr),
                    *(() if not paired else ("", "") if versus is None else (versus.value, versus.stderr)),
                    *(part for score in scores for part in (("", "") if score is None else (score.accuracy, score.stderr))),
                    *(trial.samples, trial.seconds, int(trial.number == each.pick), int(trial.stopped), int(trial.number in best)),
                )
            )
    header = ["arm", "seed", "stage", "trained", "split", "trial", *axes, "goal", "value", "value_stderr"]
    header += ["minus_pick", "minus_pick_stderr"] if paired else []
    header += [name for task in tasks for name in (f"acc/{task}", f"acc_stderr/{task}")]
    return to_csv([*header, "samples", "seconds", "picked", "stopped", "pareto_front"], rows)


def search_markdown(arms: dict[str, list[Searched]], drawn: dict[str, dict[str, bytes]], title: str, notes: Sequence[str]) -> str:
    """The tables and pictures on one page."""
    parts = [f"# {title}\n", *(f"{note}\n" for note in notes)]
    for arm, members in arms.items():
        parts += [f"## {arm}\n"] if len(arms) > 1 else []
        tables = [markdown(grid) for grid in grids_of(members)]
        whole = len(tables) - len(members)
        images = [f"![{caption_of(name)}]({name})\n" for name in drawn[arm]]
        parts += [*tables[:whole], *images, "### Every trial\n", *tables[whole:]]
    split = next(iter(arms.values()))[0].split
    return "\n".join([*parts, WORDS.format(split=split)])


def caption_of(name: str) -> str:
    """What a picture shows, by its file name."""
    return next(caption for start, caption in CAPTIONS.items() if name.startswith(start))
