"""Choosing: a merge's parameters among many trials or one of several models, on validation data; or alpha from the weights alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from evaluators.suite import Suite
from pipeline.search.spec import SearchSpec, Trial
from pipeline.step import Measurement, Outcome, Step, Work, execution
from pipeline.steps.learning import FISHER_FILE
from pipeline.steps.merging import Merging, write_merge


@dataclass(frozen=True, eq=False, repr=False)
class Search(Measurement):
    """Merges of the same sources with other parameters, each asked the suite's validation questions and none written.

    `new` is the task just learned, for goals that tell it from the others, `statistics` what was measured on the sources, for methods that
    read it. Its record holds the pick and why, files beside it every trial.
    """

    kind: ClassVar[str] = "search"
    spec: SearchSpec
    sources: Mapping[str, Step]
    suite: Suite
    new: str | None = None
    base: Step | None = None
    statistics: Mapping[str, Step] = field(default_factory=dict)
    batch_size: int = 100
    threads: int = 1
    workers: int = execution(1)
    gpus: float = execution(0)

    @property
    def title(self) -> str:
        return f"search {', '.join(axis.name for axis in self.spec.axes)} after {self.new}"

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0}

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": self.threads, "GPU": self.gpus}

    def run(self, work: Work) -> Outcome:
        from pipeline.search.answers import ANSWERS_FILE, write_answers
        from pipeline.search.goal import pick, shares_of
        from pipeline.search.records import Found, write_found
        from pipeline.search.run import search

        place = work.scratch / "trials"
        found = search(
            self.spec,
            {name: work.checkpoint_of(step) for name, step in self.sources.items()},
            work.checkpoint_of(self.base) if self.base else None,
            self.suite,
            self.new,
            place,
            workers=self.workers,
            gpus=self.gpus,
            threads=self.threads,
            batch_size=self.batch_size,
            statistics={name: work.directory_of(step) / FISHER_FILE for name, step in self.statistics.items()},
            on_progress=work.progress,
        )
        best = pick(found)
        kept = write_answers(place, found, work.directory / ANSWERS_FILE)
        write_found(work.directory, Found(tuple(found), best))
        told = {
            "goal": self.spec.goal.value,
            "weight": self.spec.weight,
            "method": self.spec.method,
            "samples": self.spec.samples,
            "split": self.suite.split.value,
            "new": self.new or "",
            "stream": [task.name for task in self.suite.stream],
            "held_out": [task.name for task in self.suite.held_out],
            "pick": dict(best.point),
            "answers_kept": kept,
            **why(found, best, work.directory / ANSWERS_FILE, shares_of(self.spec, self.suite, self.new)),
        }
        return Outcome(metrics={"trials": len(found), "value": best.value}, details=told)


def why(trials: Sequence[Trial], best: Trial, answers: Path, shares: Mapping[str, float]) -> dict[str, Any]:
    """Why the pick: its value, what it was chosen over, and the paired standard error of the margin (None where it is not known)."""
    from pipeline.search.answers import read_answers
    from pipeline.search.goal import paired_stderr, runner_up

    told = {"value": best.value, "stderr": best.stderr, "shares": dict(shares)}
    second = runner_up(trials, best)
    if second is None:
        return told
    found = read_answers(answers, (best.number, second.number))
    ours, theirs = (found[each.number].scores if each.number in found else {} for each in (best, second))
    told |= {"runner_up": dict(second.point), "margin": best.value - second.value}
    return told | {"margin_stderr": paired_stderr(ours, theirs, shares)}


@dataclass(frozen=True, eq=False, repr=False)
class MergePicked(Merging):
    """The merge that a search has picked, written as a checkpoint."""

    kind: ClassVar[str] = "merge_picked"
    search: Search
    spec: SearchSpec  # the search's own: a detached step knows its inputs by name alone
    sources: Mapping[str, Step]
    base: Step | None = None
    statistics: Mapping[str, Step] = field(default_factory=dict)

    def run(self, work: Work) -> Outcome:
        from mergers.merger import Need
        from mergers.table import hyperparameters, method_name
        from pipeline.search.points import merger_at
        from pipeline.search.records import read_found

        point = read_found(work.directory_of(self.search)).pick.point
        merger = merger_at(self.spec, point)
        details = {"method": method_name(merger), "picked": dict(point), **hyperparameters(merger)}
        base = None if merger.base is Need.NO else self.base  # of several methods, one may have no use for it
        statistics = self.statistics if merger.statistic else {}
        return write_merge(work, merger, self.sources, base, self.actors, details, statistics)


@dataclass(frozen=True, eq=False, repr=False)
class MergeAdaptive(Merging):
    """WiSE-FT with an alpha that follows from the weights alone (`mergers/adaptive.py`): nothing is asked and nothing tried.

    `past` is how many tasks the previous model has learned since `base`; `blocks` > 0 gives each block of layers an alpha of its own.
    """

    kind: ClassVar[str] = "merge_adaptive"
    sources: Mapping[str, Step]
    base: Step
    rule: str
    past: int
    blocks: int = 0

    def run(self, work: Work) -> Outcome:
        from mergers import Source, read_checkpoint
        from mergers.adaptive import Curvature, adaptive_alpha

        steps = {**self.sources, "base": self.base}
        opened = {name: Source(name, read_checkpoint(work.checkpoint_of(step))) for name, step in steps.items()}
        previous, tuned, base = (opened[name] for name in ("previous", "tuned", "base"))
        found = adaptive_alpha(previous, tuned, base, curvature=Curvature(self.rule), past=self.past, blocks=self.blocks)
        told = {"rule": self.rule, "past": self.past, "alpha": found.whole.alpha}
        details = {**told, "groups": {each.group: each.alpha for each in found.groups}}
        return write_merge(work, found.merger, self.sources, None, self.actors, details)


@dataclass(frozen=True, eq=False, repr=False)
class Chosen(Step):
    """One of several models: `candidates[i]`, where the model that `judged[i]` asked answers most of its suite's validation questions.

    Ties go to the first. The two need not be the same model: the model of an early stage is chosen by that of the last.
    """

    kind: ClassVar[str] = "chosen"
    candidates: tuple[Step, ...]
    judged: tuple[Step, ...]
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"choose among {', '.join(self.names)}"

    def run(self, work: Work) -> Outcome:
        from evaluators.scores import SCORES_FILE, mean_accuracy, read_scores

        values = [mean_accuracy(read_scores(work.directory_of(step) / SCORES_FILE)) for step in self.judged]
        best = max(range(len(values)), key=lambda index: values[index])
        told = dict(zip(self.names, values, strict=True))
        return Outcome(
            work.checkpoint_of(self.candidates[best]),
            metrics={"value": values[best]},
            details={"picked": self.names[best], "by": "validation", "values": told},
        )
