"""What a trial is worth, and which of them is picked: the goal as a weighted mean over tasks, its standard error, and ties.

A search that looks at noise picks noise, so the pick is shown with the standard error of its value over the samples.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.scores import TaskScore
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from pipeline.search.spec import Goal, SearchSpec, Trial, Value


def shares_of(spec: SearchSpec, suite: Suite, new: str | None) -> dict[str, float]:
    """Task -> its share in the value of a trial; the shares sum to 1.

    `new` is the task just learned: `stream` then means the tasks up to it, in the order of the suite. ConfigError for a goal that no task
    yields, or a `new` that the suite does not ask.
    """
    names = [task.name for task in suite.tasks]
    if new is not None and new not in names:
        raise ConfigError(f"search: {unknown('task', new, names)}; the task just learned must be one that is asked")
    stream = [task.name for task in suite.stream]
    learned = stream[: stream.index(new) + 1] if new in stream else stream
    others = [name for name in names if name != new]
    if spec.goal in (Goal.NEW, Goal.BALANCED) and new is None:
        raise ConfigError(f"search: the goal {spec.goal.value} judges the task just learned, and none is named; use average, or name it")
    if spec.goal is Goal.BALANCED and spec.weight < 1 and not others:
        raise ConfigError(f"search: the goal balanced weighs {new!r} against other tasks, and the suite asks no others; use new")
    if spec.goal is Goal.HELD_OUT and not suite.held_out:
        raise ConfigError("search: the goal held_out needs held-out tasks, and the suite has none; name some, or use average or stream")
    if spec.goal is Goal.STREAM and not stream:
        raise ConfigError("search: the goal stream needs tasks of a stream, and the suite has none; name some, or use average or held_out")
    return shares_among(spec.goal, spec.weight, names, learned, [task.name for task in suite.held_out], new)


def shares_among(
    goal: Goal, weight: float, names: Sequence[str], learned: Sequence[str], held_out: Sequence[str], new: str | None
) -> dict[str, float]:
    """Task -> its share by a goal, of the tasks `names`; `learned` are those of the stream up to `new`. Empty where none is judged."""
    if goal is Goal.BALANCED:
        others = [name for name in names if name != new]
        rest = (1 - weight) / len(others) if others else 0.0
        return {name: share for name in names if (share := weight if name == new else rest)}
    judged = {Goal.AVERAGE: names, Goal.STREAM: learned, Goal.HELD_OUT: held_out, Goal.NEW: [new]}[goal]
    chosen = [name for name in names if name in judged]
    return {name: 1 / len(chosen) for name in chosen}


def value_of(scores: Mapping[str, TaskScore], shares: Mapping[str, float]) -> float:
    """The value of a trial: the mean of its tasks' accuracies by their shares, from 0 to 1."""
    return math.fsum(share * scores[task].accuracy for task, share in shares.items())


def stderr_of(scores: Mapping[str, TaskScore], shares: Mapping[str, float]) -> float:
    """The standard error of the value over the samples; tasks are asked different samples, so their variances add up."""
    return math.sqrt(math.fsum((share * scores[task].stderr) ** 2 for task, share in shares.items()))


def pick(trials: Sequence[Trial]) -> Trial:
    """The trial of highest value that was asked all samples; InputError if there is none.

    Of several with the same value it is the one nearest to the others, so the middle of a plateau rather than its edge: the least sum of
    distances, each parameter scaled by the range that was tried; of equals the lower number.
    """
    whole = [trial for trial in trials if not trial.stopped]
    if not whole:
        raise InputError(f"none of {len(trials)} trials was asked all samples, so there is nothing to pick; run the search again")
    best = max(trial.value for trial in whole)
    tied = [trial for trial in whole if trial.value == best]
    spans = spans_of(trials)
    return min(tied, key=lambda trial: (round(math.fsum(distance(trial, other, spans) for other in tied), 9), trial.number))


def runner_up(trials: Sequence[Trial], best: Trial) -> Trial | None:
    """The best trial but one that was asked all samples; of equals the first. None where there is no other."""
    others = (trial for trial in trials if not trial.stopped and trial.number != best.number)
    return max(others, key=lambda trial: trial.value, default=None)


def paired_stderr(one: Mapping[str, Any], other: Mapping[str, Any], shares: Mapping[str, float]) -> float | None:
    """The standard error of the difference in value of two trials, from what each sample scored (task -> array or list, in one order).

    Both answered the same samples, so it is that of the differences sample by sample, by task, weighted as in the goal. None where the
    samples are not known, or are not the same number.
    """
    import numpy as np

    errors = []
    for task, share in shares.items():
        ours, theirs = one.get(task, ()), other.get(task, ())
        if not len(ours) or len(ours) != len(theirs):
            return None
        spread = float(np.subtract(ours, theirs).std(ddof=1)) if len(ours) > 1 else 0.0
        errors.append(share * spread / math.sqrt(len(ours)))
    return math.sqrt(math.fsum(error**2 for error in errors)) if errors else None


def spans_of(trials: Sequence[Trial]) -> dict[str, float]:
    """Parameter -> the width of the range of numbers that was tried."""
    tried: dict[str, list[float]] = {}
    for trial in trials:
        for name, value in trial.point.items():
            if not isinstance(value, str):
                tried.setdefault(name, []).append(float(value))
    return {name: max(values) - min(values) for name, values in tried.items()}


def distance(one: Trial, other: Trial, spans: Mapping[str, float]) -> float:
    """How far apart two points are: each parameter adds 0 to 1; words, and what only one of the two has, add 0 if equal, else 1."""
    return math.fsum(apart(one.point.get(name), other.point.get(name), spans.get(name, 0.0)) for name in {**one.point, **other.point})


def apart(one: Value | None, other: Value | None, span: float) -> float:
    """How far apart two values of a parameter are, of the range that was tried."""
    if one == other:
        return 0.0
    if span and isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) / span
    return 1.0
