"""A search from start to end: checked first, then trial by trial on Ray Tune (or in this process), each on disk as it ends.

Nothing but `trials.jsonl` and what each sample scored is written. A search that is killed goes on with the trials that ended; started
again when it is complete, it returns them. Scores do not depend on the number of workers; nor do the points of a grid or of random draws,
nor their numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from evaluators.suite import Suite
from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.search.checks import check_points, check_sources, check_spec, check_suite
from pipeline.search.choosing import Chooser, Listed, chooser_of
from pipeline.search.halving import Named, halving, stops
from pipeline.search.points import described
from pipeline.search.records import Ended, Records, identity_of
from pipeline.search.setting import Setting, setting_of
from pipeline.search.spec import Point, SearchSpec, Trial
from pipeline.search.trials import Trials

Progress = Callable[[float, float, str], None]


class Ledger:
    """What has been tried and what comes next. Trials that ended before count as told."""

    def __init__(self, chooser: Chooser, records: Records) -> None:
        self.chooser = chooser
        self.records = records
        self.ended = records.read()
        self.given: set[int] = set(self.ended)
        self.on_trial: Callable[[Trial], None] | None = None
        self.on_progress: Progress | None = None
        self.failure: BaseException | None = None
        for number in sorted(self.ended):
            chooser.tell(self.ended[number].trial)

    @property
    def complete(self) -> bool:
        """Whether every trial has ended."""
        return len(self.ended) >= self.chooser.total

    def next(self) -> tuple[int, Point] | None:
        """The lowest number that has not been given out, with its point; None if all have."""
        number = next((number for number in range(self.chooser.total) if number not in self.given), None)
        if number is None:
            return None
        self.given.add(number)
        point = self.chooser.ask(number)
        return None if point is None else (number, point)

    def add(self, ended: Ended) -> None:
        """A trial has ended: write it down, then tell of it."""
        self.records.add(ended)
        self.ended[ended.trial.number] = replace(ended, answers=None)
        self.chooser.tell(ended.trial)
        if self.on_trial is not None:
            self.on_trial(ended.trial)
        self.tell_progress(f"{described(ended.trial.point)}: {ended.trial.value:.3f}")

    def tell_progress(self, note: str) -> None:
        """Say how many trials have ended."""
        if self.on_progress is not None:
            self.on_progress(len(self.ended), self.chooser.total, note)

    def trials(self) -> list[Trial]:
        """All that have ended, by number."""
        return [self.ended[number].trial for number in sorted(self.ended)]


def search(
    spec: SearchSpec,
    sources: Mapping[str, Path],
    base: Path | None,
    suite: Suite,
    new: str | None,
    scratch: Path,
    *,
    workers: int = 1,
    gpus: float = 0,
    threads: int = 1,
    batch_size: int = 100,
    statistics: Mapping[str, Path] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    on_progress: Progress | None = None,
) -> list[Trial]:
    """The trials of a search, by number: merges of `sources` (and `base`), each asked `spec.samples` validation questions of every task.

    `workers` actors of Ray Tune work side by side, each on `gpus` GPUs and `threads` CPU threads; 0: one trial after another in this
    process, without Ray. `new` is the task just learned. `statistics`: the name of a source -> the safetensors file of what was measured
    on it, for methods that read it. `on_trial` hears of each trial that ends now, in the order in which they end;
    `on_progress(done, total, note)` of all. Raises ConfigError and InputError for what cannot be honoured, before anything runs; the error
    of a trial, which names its point; ResourceError where workers are lost for good.
    """
    check_execution(workers, gpus, threads, batch_size)
    stray = next((name for name in statistics or {} if name not in sources), None)
    if stray is not None:
        raise ConfigError(f"search: statistics of {stray!r}: {unknown('source', stray, list(sources))}")
    check_spec(spec, tuple(sources), base is not None, tuple(statistics or {}))
    chooser = chooser_of(spec, workers)
    if isinstance(chooser, Listed):
        check_points(spec, chooser.points, tuple(sources))
    check_suite(spec, suite, new)
    check_sources(spec, sources, base, statistics)
    setting = setting_of(spec, sources, base, suite, new, threads, batch_size, statistics)
    ledger = Ledger(chooser, Records(scratch, identity_of(setting)))
    ledger.on_trial, ledger.on_progress = on_trial, on_progress
    if ledger.ended:
        ledger.tell_progress("trials found")
    if not ledger.complete:
        if workers:
            from pipeline.search.tuning import on_tune

            on_tune(ledger, setting, workers, gpus, scratch)
        else:
            in_process(ledger, setting)
    return ledger.trials()


def check_execution(workers: int, gpus: float, threads: int, batch_size: int) -> None:
    """Raise ConfigError for numbers that nothing could run with."""
    for name, value, least in (("workers", workers, 0), ("gpus", gpus, 0), ("threads", threads, 1), ("batch_size", batch_size, 1)):
        if value < least:
            raise ConfigError(f"search: {name} is {value}; give {least} or more")


def in_process(ledger: Ledger, setting: Setting) -> None:
    """One trial after another, here."""
    trials = Trials(setting)
    scheduler = halving(ledger.ended[number] for number in sorted(ledger.ended)) if setting.spec.halving else None
    while (given := ledger.next()) is not None:
        name = Named(f"trial {given[0]}")
        if scheduler:
            scheduler.on_trial_add(None, name)
        for quarters, ended in zip(trials.parts(), trials.carry_out(*given), strict=False):
            if scheduler and stops(scheduler, name, quarters, ended.trial.value) and ended.trial.stopped:
                break
        ledger.add(ended)
