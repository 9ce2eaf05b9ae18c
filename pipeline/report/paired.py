"""Two models on the same questions, question by question: a stage before its merge and after it, and the last models of two arms.

`paired_scores` reads the answers that runs left and gives every comparison as plain data, with intervals and p-values of
`evaluators.statistics`. Several seeds are compared one by one and together: then each question's score is its mean over the seeds, so the
interval speaks of the questions, for the models at hand. The p-values of one table are adjusted for their number (Holm).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from evaluators.statistics import Paired, Resampled, holm, paired_mean, resample
from foundation.errors import InputError
from pipeline.report.comparison import Arm, arms_of, compared_pairs, same_setting, same_tasks
from pipeline.report.paired_answers import Answered, Answers, Tasks, parts_of, same_questions
from pipeline.report.run_scores import AFTER, BEFORE, RunScores, StageScores, rows_of

HELD_OUT_MEAN, STREAM_MEAN, AVERAGE = "held-out mean", "stream mean", "average"


class Kind(StrEnum):
    """What is held against what."""

    MERGE = "merge"  # a stage's model before its merge and after it
    ARMS = "arms"  # the last models of two arms


@dataclass(frozen=True)
class Compared:
    """Two models on a task, or on the mean over several (each task counts the same); `adjusted` is Holm's p."""

    name: str
    found: Paired
    adjusted: float


@dataclass(frozen=True)
class Contrast:
    """Two models on all tasks. `first` and `second` are "before" and "after", or the names of two arms (`arm` is then empty).

    `seeds`: one, or several taken together. `tasks` in the order of tables; `means`: over the held-out tasks, the stream, and all.
    `unpaired`: tasks that have no samples, or whose score is no mean over them, so they cannot be compared this way and are in no mean.
    """

    kind: Kind
    arm: str
    first: str
    second: str
    seeds: tuple[int, ...]
    stage: int
    trained: str | None
    tasks: tuple[Compared, ...]
    means: tuple[Compared, ...]
    unpaired: tuple[str, ...] = ()

    @property
    def of(self) -> dict[str, Compared]:
        """Task or mean -> what was found."""
        return {each.name: each for each in (*self.tasks, *self.means)}


@dataclass(frozen=True)
class PairedScores:
    """All comparisons of some runs: `merges` by arm, seeds and stage, `arms` by pair and seeds; `notes`: what was not compared, and why."""

    merges: tuple[Contrast, ...]
    arms: tuple[Contrast, ...]
    notes: tuple[str, ...] = ()

    def together(self, kind: Kind) -> list[Contrast]:
        """Those over the most seeds: all seeds together where there are several."""
        found = self.merges if kind is Kind.MERGE else self.arms
        most: dict[tuple[str, str, str], int] = {}
        for each in found:
            place = (each.arm, each.first, each.second)
            most[place] = max(most.get(place, 0), len(each.seeds))
        return [each for each in found if len(each.seeds) == most[each.arm, each.first, each.second]]


def paired_scores(runs: Sequence[RunScores]) -> PairedScores:
    """Every comparison that the runs' answers allow.

    Raises InputError where the models of one run were not asked the same questions. Arms that were not are left apart, and `notes` says so.
    """
    arms = arms_of(runs)
    answers = Answers()
    notes: list[str] = []
    merges = [contrast for arm in arms for contrast in _merges(arm, answers, notes)]
    against = [contrast for one, other in arm_pairs(arms) for contrast in _arms(one, other, answers, notes)]
    return PairedScores(tuple(_adjusted(merges)), tuple(_adjusted(against)), tuple(dict.fromkeys(notes)))


def arm_pairs(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """The arms that are held against each other: those with equal training first, then those that share tasks and their order alone.

    Of many arms, each with the first of either kind.
    """
    pairs = [*compared_pairs(arms, same_setting), *compared_pairs(arms, same_tasks)]
    return list({(one.name, other.name): (one, other) for one, other in pairs}.values())


def _merges(arm: Arm, answers: Answers, notes: list[str]) -> Iterable[Contrast]:
    """Before against after, stage by stage: each seed, then all seeds that have come so far."""
    found: dict[int, list[tuple[RunScores, StageScores, StageScores]]] = {}
    for run in arm.runs:
        for before, after in zip(rows_of(run, BEFORE)[1:], rows_of(run, AFTER)[1:], strict=False):
            found.setdefault(before.stage, []).append((run, before, after))
    for stage, pairs in found.items():
        for members in [*([pair] for pair in pairs), *([pairs] if len(pairs) > 1 else [])]:
            where = f"{arm.name}, seed {', '.join(str(run.seed) for run, _, _ in members)}, stage {stage}"
            if any(entry.samples is None for _, *entries in members for entry in entries):
                notes.append(f"not compared, as answers are gone: {where}")
                continue
            sides = [[answers.of(run, each[side]) for run, *each in members] for side in (0, 1)]
            if not same_questions([*sides[0], *sides[1]]):
                if len(members) == 1:
                    raise InputError(
                        f"{where}: the models before and after the merge were asked different samples; run the experiment again"
                    )
                notes.append(f"not taken together, as the seeds were asked different samples: {where}")
                continue
            seeds = tuple(run.seed for run, _, _ in members)
            settled = Contrast(Kind.MERGE, arm.name, BEFORE, AFTER, seeds, stage, members[0][1].task, (), ())
            yield _contrast(settled, sides[0], sides[1], members[0][0])


def _arms(one: Arm, other: Arm, answers: Answers, notes: list[str]) -> Iterable[Contrast]:
    """The models after the last stage that all arms have done: each shared seed, then all of them."""
    by_seed = {run.seed: run for run in other.runs}
    shared = [(run, by_seed[run.seed]) for run in one.runs if run.seed in by_seed]
    for members in [*([pair] for pair in shared), *([shared] if len(shared) > 1 else [])]:
        last = [[(run, rows_of(run, AFTER)[one.stage]) for run in pair] for pair in members]
        where = f"{one.name} and {other.name}, seed {', '.join(str(pair[0].seed) for pair in members)}"
        if any(entry.samples is None for pair in last for _, entry in pair):
            notes.append(f"not compared, as answers are gone or not known: {where}")
            continue
        sides = [[answers.of(*pair[side]) for pair in last] for side in (0, 1)]
        if not same_questions([*sides[0], *sides[1]]):
            notes.append(f"not compared, as they were asked different samples: {where}")
            continue
        seeds = tuple(pair[0].seed for pair in members)
        settled = Contrast(Kind.ARMS, "", one.name, other.name, seeds, one.stage, last[0][0][1].task, (), ())
        yield _contrast(settled, sides[0], sides[1], members[0][0])


def _contrast(settled: Contrast, before: Sequence[Tasks], after: Sequence[Tasks], run: RunScores) -> Contrast:
    """`settled` with what is found on its tasks; `before` and `after` hold a model's answers for each seed."""
    asked = [(place, name) for place, name in enumerate(run.tasks) if name in before[0]]
    found = {name: _parts([tasks[name] for tasks in before], [tasks[name] for tasks in after], place) for place, name in asked}
    parts = {name: own for name, own in found.items() if own}
    tasks = tuple(Compared(name, paired_mean(own), 1.0) for name, own in parts.items())
    means = []
    for title, members in {HELD_OUT_MEAN: run.held_out, STREAM_MEAN: run.stream, AVERAGE: run.tasks}.items():
        own = [name for name in members if name in parts]
        if own and (title != AVERAGE or run.held_out):
            weights = [1 / len(own) / len(parts[name]) for name in own for _ in parts[name]]
            means.append(Compared(title, paired_mean([part for name in own for part in parts[name]], weights), 1.0))
    return replace(settled, tasks=tasks, means=tuple(means), unpaired=tuple(name for name in run.tasks if name not in parts))


def _parts(before: Sequence[Answered], after: Sequence[Answered], place: int) -> list[Resampled]:
    """A task's scores in the order of the first model's samples, mean over the seeds, in the parts that count the same in its score.

    Empty where the score of a model is no mean over samples.
    """
    first, second = (np.mean([model.in_order_of(before[0].keys) for model in models], axis=0) for models in (before, after))
    places = parts_of([*before, *after])
    return [resample(first[part], second[part], seed=(place, index)) for index, part in enumerate(places)]


def _adjusted(found: Sequence[Contrast]) -> list[Contrast]:
    """With Holm's p: over all tasks, and over all means, of what one table shows (an arm's stages, or all pairs of arms; by seeds)."""
    families: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for place, contrast in enumerate(found):
        families.setdefault((contrast.arm, contrast.seeds), []).append(place)
    settled = list(found)
    for places in families.values():
        tasks = iter(holm([each.found.p for place in places for each in found[place].tasks]))
        means = iter(holm([each.found.p for place in places for each in found[place].means]))
        for place in places:
            settled[place] = replace(
                found[place],
                tasks=tuple(replace(each, adjusted=next(tasks)) for each in found[place].tasks),
                means=tuple(replace(each, adjusted=next(means)) for each in found[place].means),
            )
    return settled
