"""One stage of learning, the models in the middle of it, and what a task rests on."""

from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, ClassVar

from foundation.errors import InputError
from pipeline.step import Measurement, Outcome, Resources, Step, Work, execution
from tasks.benchmarks.task import BenchmarkTask
from tasks.files.task import FileTask
from tasks.mixture import MixedTask
from tasks.task import Split, Task
from trainers.spec import TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.table import strategy_name
from trainers.strategy import Learning, Strategy

ONE_WORKER = Resources()
FISHER_FILE = "fisher.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class Stage(Step):
    """One stage of learning. Its Ray task only coordinates; workers of its own do the work."""

    _: KW_ONLY
    resources: Resources = execution(ONE_WORKER)  # noqa: RUF009

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0}

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": self.resources.workers, "GPU": self.resources.workers * self.resources.gpus}


@dataclass(frozen=True, eq=False, repr=False)
class FineTune(Stage):
    """A model takes up a task."""

    kind: ClassVar[str] = "finetune"
    loads: ClassVar[tuple[str, ...]] = ("trainers.train",)
    start: Step
    task: Task
    train: TrainSpec
    strategy: Strategy = FineTuning()  # noqa: RUF009
    earlier: tuple[Task, ...] = ()  # whose training examples the strategy rehearses, oldest first
    fishers: tuple[Step, ...] = ()  # what mattered to the earlier stages' models, oldest first

    def run(self, work: Work) -> Outcome:
        from pipeline.graph.training import fit

        left_out = [checked(task, Split.TRAIN, self.train.samples) for task in (*tasks_in(self.task), *self.earlier)]
        fishers = tuple(work.directory_of(step) / FISHER_FILE for step in self.fishers)
        learning = Learning(self.task, self.train, self.strategy, self.earlier, fishers)
        result = fit(work, work.checkpoint_of(self.start), learning, self.resources)
        files, there = result.pop("files"), result.pop("there", {})
        details = {
            "task": self.task.name,
            "trained_on": list(self.train.parts),
            "strategy": strategy_name(self.strategy),
            **asdict(self.strategy),  # type: ignore[call-overload]
            **_plain(self.train),
            "resources": asdict(self.resources),
            **({"left_out": found} if (found := [each for each in left_out if each]) else {}),
        }
        return Outcome(work.directory / "checkpoint", metrics=result, details=details, files=files, there=there)


@dataclass(frozen=True, eq=False, repr=False)
class Within(Step):
    """The model as it was after optimizer step `at` of its fine-tuning, which wrote it on the way."""

    kind: ClassVar[str] = "within"
    tuned: Step
    at: int

    @property
    def title(self) -> str:
        return f"the model after step {self.at}"

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
class Fisher(Measurement):
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


def tasks_in(task: Task) -> tuple[Task, ...]:
    """The tasks that a task is made of: of a mixture its own, else itself."""
    return task.tasks if isinstance(task, MixedTask) else (task,)


def checked(task: Task, split: Split, count: int | None) -> dict[str, Any] | None:
    """What is left out of a task in files and why, once all of it has been looked at; None where nothing is.

    Before the workers start, so that bad records are refused by one process and images are decoded once. Raises InputError where more
    records are bad than the task allows.
    """
    if not isinstance(task, FileTask | BenchmarkTask):
        return None
    report = task.check(split, count)
    return asdict(report) if report.problems else None


def _plain(spec: TrainSpec) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items() if name != "parts"}
