"""What a search found, in figures: the score of every trial by what is asked of it, its standard error, the pick, what it was chosen over.

Plain data in, plain data out; tables (`search_tables.py`), pictures (`search_plots.py`) and MLflow (`tracking/search.py`) read it. All
scores are fractions on the split that was searched. Trials that were stopped early answered fewer samples: they are shown, but neither
joined, nor averaged, nor a runner-up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from statistics import median
from typing import Any

from evaluators.scores import TaskScore, whole_tasks
from foundation.errors import InputError
from foundation.hints import unknown
from pipeline.report.comparison import Estimate, estimate
from pipeline.search.goal import paired_stderr, runner_up, shares_among, stderr_of, value_of
from pipeline.search.spec import Goal, Point, Trial, Value

METHOD = "method"
LOG_FROM = 10.0
"""From this ratio of the largest to the smallest value on, an axis may be logarithmic."""


class Group(StrEnum):
    """Tasks whose mean is shown: the one just learned, all others, the held-out ones. `goal` is what the trials were judged by."""

    GOAL = "goal"
    NEW = "new"
    OTHERS = "others"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class Measured:
    """A mean over tasks and its standard error over samples; None where trials carry no scores."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Searched:
    """One search of one stage. `pick` is the number of the trial that was chosen, `new` the task just learned ("" if there is none).

    `stream` are the tasks learned so far, `samples` those asked of each task, `weight` the new task's share in the goal `balanced`. Where
    they are known: `method` all trials are merged by, `test` the scores of the pick on the test split, `answers` the score of each sample
    (trial number -> task -> scores, in one order for all trials), from which paired standard errors come.
    """

    arm: str
    seed: int
    stage: int
    task: str
    trials: tuple[Trial, ...]
    pick: int
    goal: str
    new: str
    stream: tuple[str, ...]
    held_out: tuple[str, ...]
    samples: int
    split: str = "validation"
    weight: float = 0.5
    method: str = ""
    test: Mapping[str, TaskScore] = field(default_factory=dict)
    answers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.goal not in list(Goal):
            raise InputError(f"search: {unknown('goal', self.goal, [each.value for each in Goal])}")
        numbers = [trial.number for trial in self.trials]
        where = f"search of {self.arm}, seed {self.seed}, stage {self.stage}"
        if len(set(numbers)) < len(numbers):
            raise InputError(f"{where}: two trials share a number in {numbers}; number each trial once")
        if self.pick not in numbers:
            raise InputError(f"{where}: the pick is trial {self.pick}, and the trials are {numbers}; name one of them")
        broken = next((trial.number for trial in self.trials if not math.isfinite(trial.value)), None)
        if broken is not None:
            raise InputError(f"{where}: the value of trial {broken} is no finite number; search again, or leave that trial out")

    @property
    def picked(self) -> Trial:
        """The trial that was chosen."""
        return next(trial for trial in self.trials if trial.number == self.pick)

    @property
    def complete(self) -> tuple[Trial, ...]:
        """The trials that answered all samples."""
        return tuple(trial for trial in self.trials if not trial.stopped)

    @property
    def runner_up(self) -> Trial | None:
        """The best complete trial but the pick; of equals the first. None where there is no other."""
        return runner_up(self.trials, self.picked)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """All tasks asked: held-out, stream, then others by name."""
        asked = set(whole_tasks(dict.fromkeys(name for trial in self.trials for name in trial.scores)))
        first = [name for name in (*self.held_out, *self.stream) if name in asked]
        return tuple(dict.fromkeys([*first, *sorted(asked)]))

    def members(self, group: Group) -> tuple[str, ...]:
        """The tasks of a group; for the goal all that it reads."""
        if group is Group.GOAL:
            return tuple(self.shares())
        if group is Group.NEW:
            return tuple(name for name in self.tasks if name == self.new)
        if group is Group.HELD_OUT:
            return tuple(name for name in self.tasks if name in self.held_out)
        return tuple(name for name in self.tasks if name != self.new)

    def shares(self) -> dict[str, float]:
        """Task -> its share in the goal; the value of a trial is the sum of share times score."""
        return shares_among(Goal(self.goal), self.weight, self.tasks, self.stream, self.held_out, self.new)


def measured(searched: Searched, trial: Trial, group: Group) -> Measured | None:
    """A trial's score on a group of tasks: means with sqrt(sum of squared errors) / tasks; None where the group has no scores.

    For the goal the value is the trial's own, and the standard error that of the weighted sum, samples of tasks being independent.
    """
    if group is Group.GOAL:
        error = weighted_error(trial.scores, searched.shares())
        return Measured(trial.value, (trial.stderr or None) if error is None else error)
    names = [name for name in searched.members(group) if name in trial.scores]
    if not names:
        return None
    share = dict.fromkeys(names, 1 / len(names))
    return Measured(value_of(trial.scores, share), weighted_error(trial.scores, share))


def weighted_error(scores: Mapping[str, TaskScore], shares: Mapping[str, float]) -> float | None:
    """The standard error of the sum of share times score; None where a score is missing."""
    if not shares or any(name not in scores for name in shares):
        return None
    return stderr_of(scores, shares)


def score_on_test(searched: Searched) -> Measured | None:
    """The goal's value for the pick on the test split; None where it was not asked there."""
    shares = searched.shares()
    error = weighted_error(searched.test, shares)
    if error is None:
        return None
    return Measured(value_of(searched.test, shares), error)


def margin(searched: Searched) -> Measured | None:
    """The pick's value minus the runner-up's, as `difference` gives it; None without a runner-up."""
    second = searched.runner_up
    return None if second is None else difference(searched, searched.picked, second)


def difference(searched: Searched, one: Trial, other: Trial) -> Measured:
    """The value of one trial minus that of another, with its paired standard error where the answers are known."""
    shares = searched.shares()
    ours, theirs = ({name: answers_to(searched, trial, name) for name in shares} for trial in (one, other))
    return Measured(one.value - other.value, paired_stderr(ours, theirs, shares))


def answers_to(searched: Searched, trial: Trial, task: str) -> Any:
    """What each sample of a task scored; nothing where that is not known, or does not make up the trial's score."""
    found = searched.answers.get(trial.number, {}).get(task, ())
    score = trial.scores.get(task)
    if score is None or not len(found) or len(found) != score.samples:
        return ()
    return found if math.isclose(math.fsum(found) / len(found), score.accuracy, abs_tol=1e-9) else ()


@dataclass(frozen=True)
class Scale:
    """One parameter as trials had it: its values in order; numbers ascending, names as they first appear."""

    name: str
    values: tuple[Value, ...]
    numeric: bool
    logarithmic: bool = False


def scales_of(searches: Sequence[Searched]) -> list[Scale]:
    """The parameters that were searched, the method first, else in the order in which points name them."""
    first = [METHOD] if any(METHOD in trial.point for each in searches for trial in each.trials) else []
    found: dict[str, list[Value]] = {name: [] for name in first}
    for trial in (trial for each in searches for trial in each.trials):
        for name, value in trial.point.items():
            found.setdefault(name, []).append(value)
    return [scale_of(name, values) for name, values in found.items()]


def scale_of(name: str, values: Sequence[Value]) -> Scale:
    """Numeric if all values are numbers (not True or False); logarithmic if they lie like a geometric row over a decade or more."""
    distinct = list(dict.fromkeys(values))
    numbers = [float(value) for value in distinct if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(distinct):
        return Scale(name, tuple(distinct), numeric=False)
    low, high, middle = min(numbers), max(numbers), median(numbers)
    geometric = low > 0 and high / low >= LOG_FROM and abs(middle - math.sqrt(low * high)) < abs(middle - (low + high) / 2)
    return Scale(name, tuple(sorted(numbers)), numeric=True, logarithmic=geometric)


def along(searched: Searched, scale: Scale) -> list[Trial]:
    """The complete trials in the order of one parameter."""
    place = {value: index for index, value in enumerate(scale.values)}
    having = [trial for trial in searched.complete if scale.name in trial.point]
    return sorted(having, key=lambda trial: (place[trial.point[scale.name]], trial.number))


def mean_points(searches: Sequence[Searched], group: Group) -> list[tuple[Point, Estimate]]:
    """Point -> mean over seeds, for the points that every one of two seeds or more has completed; empty where none is shared."""
    if len(searches) < 2:
        return []
    tables = [{point_key(trial.point): (trial, measured(each, trial, group)) for trial in each.complete} for each in searches]
    found = []
    for key, (trial, _) in tables[0].items():
        scores = [score.value for table in tables for score in [table.get(key, (None, None))[1]] if score is not None]
        if len(scores) == len(searches):
            found.append((trial.point, estimate(scores)))
    return found


def point_key(point: Point) -> tuple[tuple[str, Value], ...]:
    """A point as a key: the same for the same values, in whatever order they are named."""
    return tuple(sorted(point.items()))


def pareto(points: Sequence[tuple[float, float]]) -> set[int]:
    """The places of points that no other is better than in one of two scores without being worse in the other."""
    return {
        place
        for place, (x, y) in enumerate(points)
        if not any(a >= x and b >= y and (a > x or b > y) for other, (a, b) in enumerate(points) if other != place)
    }


def front(searched: Searched, against: Group) -> set[int]:
    """The numbers of the complete trials on the Pareto front of the new task and `against`."""
    trials = [trial for trial in searched.complete if measured(searched, trial, against) and measured(searched, trial, Group.NEW)]
    scores = [[measured(searched, trial, group) for group in (against, Group.NEW)] for trial in trials]
    places = pareto([(x.value, y.value) for x, y in scores if x is not None and y is not None])
    return {trials[place].number for place in places}


def point_words(point: Point) -> str:
    """`alpha 0.4`; several parameters with commas; a method, which comes first, by its name alone."""
    ordered = sorted(point.items(), key=lambda item: item[0] != METHOD)
    return ", ".join(value_words(value) if name == METHOD else f"{name} {value_words(value)}" for name, value in ordered)


def value_words(value: Value) -> str:
    """A number with three significant places, or a name."""
    return f"{value:.3g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def end_name(point: Point) -> str | None:
    """`previous` where every alpha is 1 (the weight of the previous stage's model), `tuned` where every alpha is 0; else None."""
    numbers = {value for name, value in point.items() if name.startswith("alpha")}
    if not numbers or any(not name.startswith("alpha") for name in point):
        return None
    return "previous" if numbers == {1} else "tuned" if numbers == {0} else None


def by_stage(searches: Sequence[Searched]) -> dict[int, list[Searched]]:
    """Stage -> its searches by seed, in order."""
    found: dict[int, list[Searched]] = {}
    for each in sorted(searches, key=lambda each: (each.stage, each.seed)):
        found.setdefault(each.stage, []).append(each)
    return found


def by_arm(searches: Sequence[Searched]) -> dict[str, list[Searched]]:
    """Arm -> its searches by stage and seed, arms as they first appear. InputError for none, or for one place searched twice."""
    if not searches:
        raise InputError("no search to report on; name a run that searched")
    found: dict[str, list[Searched]] = {}
    for each in searches:
        found.setdefault(each.arm, []).append(each)
    for arm, members in found.items():
        places = [(each.stage, each.seed) for each in members]
        if len(set(places)) < len(places):
            raise InputError(f"arm {arm!r} has two searches of one stage and seed (stage, seed: {places}); report on one of them")
    return {arm: [each for stage in by_stage(members).values() for each in stage] for arm, members in found.items()}
