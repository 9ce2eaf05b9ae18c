"""The kinds of steps: where weights come from, how they learn, how they are merged, how they are asked.

Each is a value (see `step.py`) whose `run` calls one of the libraries. Heavy imports stand inside `run`: planning needs none of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from evaluators.suite import Suite
from foundation.files import manifest_digest
from mergers.merger import Merger
from mergers.table import hyperparameters, method_name
from pipeline.step import Outcome, Resources, Step, Work, execution
from tasks.task import Task
from trainers.pretrain_spec import DigitsPretraining
from trainers.spec import TrainSpec

ONE_WORKER = Resources()
DIGESTS_FILE = "digests.json"


@dataclass(frozen=True, eq=False, repr=False)
class Pretrained(Step):
    """Weights that were there before: a local directory, known by the digest of its files, or a hub id at a revision."""

    kind: ClassVar[str] = "pretrained"
    source: str  # "sha256:…" of a directory's files, or the hub id
    place: str = execution("")  # where the directory lies, or the hub id again

    def run(self, work: Work) -> Outcome:
        from mergers.checkpoints.resolve import fetch, is_hub_id, resolve_checkpoint
        from pipeline.digests import checkpoint_manifest

        if is_hub_id(self.place):  # into the store, which all nodes see and nobody prunes
            commit = fetch(self.place, work.directory / "checkpoint")
            return Outcome(work.directory / "checkpoint", details={"place": self.place, "commit": commit})
        place = resolve_checkpoint(self.place)
        files = checkpoint_manifest(place, work.directory.parent / DIGESTS_FILE)
        return Outcome(place, details={"place": self.place}, files=files)


@dataclass(frozen=True, eq=False, repr=False)
class Pretrain(Step):
    """The tiny digits model, made from a seed."""

    kind: ClassVar[str] = "pretrain"
    recipe: DigitsPretraining
    seed: int
    threads: int = 2  # part of the identity: sums over several threads are taken in another order

    def run(self, work: Work) -> Outcome:
        from trainers.pretrain_digits import pretrain_digits

        log, total = work.log_function(), self.recipe.tower.steps + self.recipe.language.steps

        def on_log(step: int, values: dict[str, float]) -> None:
            log(step, values)
            work.progress(step, total)

        output = work.directory / "checkpoint"
        figures = pretrain_digits(self.seed, output, on_log, self.threads, self.recipe)
        return Outcome(output, metrics=figures, details={"seed": self.seed, "threads": self.threads, **asdict(self.recipe)})


@dataclass(frozen=True, eq=False, repr=False)
class FineTune(Step):
    """One stage of learning: a model takes up a task. Its Ray task only coordinates; Ray Train's workers do the work."""

    kind: ClassVar[str] = "finetune"
    start: Step
    task: Task
    train: TrainSpec
    resources: Resources = execution(ONE_WORKER)  # noqa: RUF009

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0}

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": self.resources.workers, "GPU": self.resources.workers * self.resources.gpus}

    def run(self, work: Work) -> Outcome:
        from pipeline.graph.training import fit

        result = fit(work, work.checkpoint_of(self.start), self.task, self.train, self.resources)
        details = {"task": self.task.name, "trained_on": list(self.train.parts), **_plain(self.train), "resources": asdict(self.resources)}
        return Outcome(work.directory / "checkpoint", metrics=result, details=details)


@dataclass(frozen=True, eq=False, repr=False)
class Merge(Step):
    """Several checkpoints become one. `sources` are named; the base, else the first, gives names, dtypes, config and tokenizer."""

    kind: ClassVar[str] = "merge"
    merger: Merger
    sources: Mapping[str, Step]
    base: Step | None = None
    actors: int = execution(2)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """As of any step; without a base as it was before there could be one, so that what is stored stays known."""
        whole = super().identity
        fields = {name: value for name, value in whole["fields"].items() if name != "base" or value is not None}
        return {**whole, "fields": fields}

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0 if self.actors else 1}

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": 1}

    def run(self, work: Work) -> Outcome:
        from pipeline.graph.actors import merge_step

        def opened(step: Step) -> tuple[Path, str]:
            return work.checkpoint_of(step), f"{step.key}, sha256:{work.digest_of(step)}"

        places = {name: opened(step) for name, step in self.sources.items()}
        base = opened(self.base) if self.base else None
        roles = dict(zip(self.sources, self.merger.roles(tuple(self.sources)), strict=True))
        outcome = merge_step(self.merger, places, base, work.directory / "checkpoint", self.actors, work.progress)
        based = {"base": self.base.key} if self.base else {}
        details = {"method": method_name(self.merger), "sources": roles, **based, **hyperparameters(self.merger)}
        return replace(outcome, details=details)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluate(Step):
    """One model is asked every task of a suite."""

    kind: ClassVar[str] = "evaluate"
    model: Step
    suite: Suite
    batch_size: int = 100
    threads: int = 1
    gpus: float = execution(0)

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": self.threads, "num_gpus": self.gpus}

    def run(self, work: Work) -> Outcome:
        from evaluators.evaluate import evaluate

        asked = {task.name: index for index, task in enumerate(self.suite.tasks)}

        def on_progress(task: str, done: int, total: int) -> None:
            work.progress(asked[task] * total + done, len(asked) * total, task)

        place = work.checkpoint_of(self.model)
        scores = evaluate(place, self.suite, work.directory, self.batch_size, self.threads, on_progress)
        return Outcome(
            metrics={name: asdict(score) for name, score in scores.items()},
            details={"split": self.suite.split.value, "samples": self.suite.samples},
        )


def pretrained(text: str, digests: Path) -> Pretrained:
    """The step for a checkpoint a user named; a local one is known by its content (digests are remembered in `digests`)."""
    from mergers.checkpoints.resolve import is_hub_id, resolve_checkpoint
    from pipeline.digests import checkpoint_manifest

    if is_hub_id(text):
        return Pretrained(source=text, place=text)
    place = resolve_checkpoint(text).absolute()
    return Pretrained(source=f"sha256:{manifest_digest(checkpoint_manifest(place, digests))}", place=str(place))


def _plain(spec: TrainSpec) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items() if name != "parts"}
