"""Choosing: a merge's parameters among many trials or one of several models, on validation data; or alpha from the weights alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from evaluators.suite import Suite
from foundation.errors import InputError
from foundation.files import write_json_atomic
from pipeline.search.spec import SearchSpec
from pipeline.step import Measurement, Outcome, Step, Work, execution
from pipeline.steps.merging import Merging

TRIALS_FILE = "trials.json"


@dataclass(frozen=True, eq=False, repr=False)
class Search(Measurement):
    """Merges of the same sources with other parameters, each asked the suite's validation questions and none written.

    `new` is the task just learned, for goals that tell it from the others. Its record holds every trial and the pick.
    """

    kind: ClassVar[str] = "search"
    spec: SearchSpec
    sources: Mapping[str, Step]
    suite: Suite
    new: str | None = None
    base: Step | None = None
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
        from pipeline.search.goal import pick
        from pipeline.search.run import search

        found = search(
            self.spec,
            {name: work.checkpoint_of(step) for name, step in self.sources.items()},
            work.checkpoint_of(self.base) if self.base else None,
            self.suite,
            self.new,
            work.scratch / "trials",
            workers=self.workers,
            gpus=self.gpus,
            threads=self.threads,
            batch_size=self.batch_size,
            on_progress=work.progress,
        )
        best = pick(found)
        write_json_atomic(work.directory / TRIALS_FILE, {"trials": [asdict(trial) for trial in found], "pick": best.number})
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
        }
        return Outcome(metrics={"trials": len(found), "value": best.value}, details=told)


@dataclass(frozen=True, eq=False, repr=False)
class MergePicked(Merging):
    """The merge that a search has picked, written as a checkpoint."""

    kind: ClassVar[str] = "merge_picked"
    search: Search
    spec: SearchSpec  # the search's own: a detached step knows its inputs by name alone
    sources: Mapping[str, Step]
    base: Step | None = None

    def run(self, work: Work) -> Outcome:
        from mergers.table import hyperparameters, method_name
        from pipeline.graph.actors import merge_step
        from pipeline.search.points import merger_at

        point = read_pick(work.directory_of(self.search))
        merger = merger_at(self.spec, point)

        def opened(step: Step) -> tuple[Path, str]:
            return work.checkpoint_of(step), f"{step.key}, sha256:{work.digest_of(step)}"

        places = {name: opened(step) for name, step in self.sources.items()}
        base = opened(self.base) if self.base else None
        roles = dict(zip(self.sources, merger.roles(tuple(self.sources)), strict=True))
        outcome = merge_step(merger, places, base, work.directory / "checkpoint", self.actors, work.progress)
        details = {"method": method_name(merger), "sources": roles, "picked": dict(point), **hyperparameters(merger)}
        return replace(outcome, details=details)


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
        from pipeline.graph.actors import merge_step

        steps = {**self.sources, "base": self.base}
        opened = {name: Source(name, read_checkpoint(work.checkpoint_of(step))) for name, step in steps.items()}
        previous, tuned, base = (opened[name] for name in ("previous", "tuned", "base"))
        found = adaptive_alpha(previous, tuned, base, curvature=Curvature(self.rule), past=self.past, blocks=self.blocks)
        places = {name: (work.checkpoint_of(step), f"{step.key}, sha256:{work.digest_of(step)}") for name, step in self.sources.items()}
        roles = dict(zip(self.sources, found.merger.roles(tuple(self.sources)), strict=True))
        outcome = merge_step(found.merger, places, None, work.directory / "checkpoint", self.actors, work.progress)
        told = {"rule": self.rule, "past": self.past, "alpha": found.whole.alpha, "sources": roles}
        return replace(outcome, details={**told, "groups": {each.group: each.alpha for each in found.groups}})


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
        values = [mean_accuracy(work.directory_of(step)) for step in self.judged]
        best = max(range(len(values)), key=lambda index: values[index])
        told = dict(zip(self.names, values, strict=True))
        return Outcome(
            work.checkpoint_of(self.candidates[best]),
            metrics={"value": values[best]},
            details={"picked": self.names[best], "by": "validation", "values": told},
        )


def read_pick(directory: Path) -> dict[str, Any]:
    """The point that a search picked; InputError where its file is not there."""
    import json

    path = directory / TRIALS_FILE
    try:
        content = json.loads(path.read_text())
        return dict(content["trials"][content["pick"]]["point"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a search ({error}); remove {directory} from the store and run again") from error


def mean_accuracy(directory: Path) -> float:
    """The mean over the tasks of an evaluation, from its scores."""
    from evaluators.scores import SCORES_FILE, read_scores

    scores = read_scores(directory / SCORES_FILE)
    return sum(score.accuracy for score in scores.values()) / len(scores)
