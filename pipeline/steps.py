"""The kinds of steps: where weights come from, how they learn, how they are merged, how they are asked.

Each is a value (see `step.py`) whose `run` calls one of the libraries. Heavy imports stand inside `run`: planning needs none of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from evaluators.suite import Suite
from foundation.errors import InputError
from foundation.files import manifest_digest
from mergers.merger import Merger
from mergers.table import hyperparameters, method_name
from pipeline.step import Outcome, Resources, Step, Work, execution
from tasks.files.task import FileTask
from tasks.mixture import MixedTask
from tasks.task import Split, Task
from trainers.pretraining.spec import DigitsPretraining
from trainers.spec import TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.table import strategy_name
from trainers.strategy import Learning, Strategy

ONE_WORKER = Resources()
DIGESTS_FILE = "digests.json"
FISHER_FILE = "fisher.safetensors"


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
        from trainers.pretraining.digits import pretrain_digits

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
    strategy: Strategy = FineTuning()  # noqa: RUF009
    earlier: tuple[Task, ...] = ()  # whose training examples the strategy rehearses, oldest first
    fishers: tuple[Step, ...] = ()  # what mattered to the earlier stages' models, oldest first
    resources: Resources = execution(ONE_WORKER)  # noqa: RUF009

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0}

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": self.resources.workers, "GPU": self.resources.workers * self.resources.gpus}

    def run(self, work: Work) -> Outcome:
        from pipeline.graph.training import fit

        left_out = [checked(task, Split.TRAIN, self.train.samples) for task in (*tasks_in(self.task), *self.earlier)]
        fishers = tuple(work.directory_of(step) / FISHER_FILE for step in self.fishers)
        learning = Learning(self.task, self.train, self.strategy, self.earlier, fishers)
        result = fit(work, work.checkpoint_of(self.start), learning, self.resources)
        files = result.pop("files")
        details = {
            "task": self.task.name,
            "trained_on": list(self.train.parts),
            "strategy": strategy_name(self.strategy),
            **asdict(self.strategy),  # type: ignore[call-overload]
            **_plain(self.train),
            "resources": asdict(self.resources),
            **({"left_out": found} if (found := [each for each in left_out if each]) else {}),
        }
        return Outcome(work.directory / "checkpoint", metrics=result, details=details, files=files)


@dataclass(frozen=True, eq=False, repr=False)
class Within(Step):
    """The model as it was after optimizer step `at` of its fine-tuning, which wrote it on the way."""

    kind: ClassVar[str] = "within"
    tuned: FineTune
    at: int

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0}

    def run(self, work: Work) -> Outcome:
        from trainers.checkpoints.milestones import milestone_directory

        place = milestone_directory(work.directory_of(self.tuned) / "checkpoint", self.at)
        if not (place / "config.json").exists():
            raise InputError(
                f"{self.tuned.key} was to leave the model after its step {self.at} in {place}, but nothing is there; "
                f"remove {place.parent} from the store and run again"
            )
        return Outcome(place, details={"step": self.at})


@dataclass(frozen=True, eq=False, repr=False)
class Fisher(Step):
    """The diagonal Fisher information of a model on a task's training examples: which weights the task rests on."""

    kind: ClassVar[str] = "fisher"
    model: Step
    task: Task
    parts: tuple[str, ...]
    samples: int
    seed: int
    threads: int = 1
    gpus: float = execution(0)

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": self.threads, "num_gpus": self.gpus}

    def run(self, work: Work) -> Outcome:
        from trainers.fisher.measure import fisher

        output = work.directory / FISHER_FILE
        fisher(
            work.checkpoint_of(self.model),
            self.task,
            self.parts,
            self.samples,
            self.seed,
            output,
            threads=self.threads,
            on_progress=work.progress,
        )
        return Outcome(details={"task": self.task.name, "samples": self.samples, "parts": list(self.parts)})


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


def tasks_in(task: Task) -> tuple[Task, ...]:
    """The tasks that a task is made of: of a mixture its own, else itself."""
    return task.tasks if isinstance(task, MixedTask) else (task,)


def checked(task: Task, split: Split, count: int | None) -> dict[str, Any] | None:
    """What is left out of a task in the user's files and why, once all of it has been looked at; None where nothing is.

    Before the workers start, so that bad records are refused by one process and images are decoded once. Raises InputError where more
    records are bad than the task allows.
    """
    if not isinstance(task, FileTask):
        return None
    report = task.check(split, count)
    return asdict(report) if report.problems else None


def pretrained(text: str, digests: Path) -> Pretrained:
    """The step for a checkpoint a user named; a local one is known by its content (digests are remembered in `digests`)."""
    from mergers.checkpoints.resolve import is_hub_id, resolve_checkpoint
    from pipeline.config.inputs import is_config_only
    from pipeline.digests import checkpoint_manifest

    if is_hub_id(text):
        return Pretrained(source=text, place=text)
    bare = Path(text).expanduser()  # a config alone will do to plan with; `run` has refused it by now
    place = (bare if bare.is_dir() and is_config_only(bare) else resolve_checkpoint(text)).absolute()
    return Pretrained(source=f"sha256:{manifest_digest(checkpoint_manifest(place, digests))}", place=str(place))


def _plain(spec: TrainSpec) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items() if name != "parts"}
