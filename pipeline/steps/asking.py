"""A model is asked what a suite holds: questions of tasks, or sets of images with text."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from evaluators.pairs.suite import PairSuite
from evaluators.suite import Suite
from pipeline.step import Measurement, Outcome, Step, Work, execution


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Measurement):
    """What every evaluation has: the model that is asked. Its `suite` names what it is asked, as stream and held-out."""

    model: Step
    suite: Suite | PairSuite
    batch_size: int = 100
    threads: int = 1
    gpus: float = execution(0)

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": self.threads, "num_gpus": self.gpus}


@dataclass(frozen=True, eq=False, repr=False)
class Evaluate(Evaluation):
    """One model is asked every task of a suite: in the step's own process, or by so many `workers` side by side."""

    kind: ClassVar[str] = "evaluate"
    loads: ClassVar[tuple[str, ...]] = ("evaluators.generate",)
    version: ClassVar[int] = 2
    suite: Suite
    workers: int = execution(0)

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0} if self.workers else super().ray_options

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": self.threads, "GPU": self.gpus}  # of one worker: the others join when there is room

    def run(self, work: Work) -> Outcome:
        from evaluators.evaluate import evaluate

        done: dict[str, int] = {}
        totals = dict.fromkeys(self.suite.names, self.suite.samples)

        def on_progress(task: str, answered: int, total: int) -> None:
            done[task], totals[task] = answered, total
            work.progress(sum(done.values()), sum(totals.values()), task)

        place, parts = work.checkpoint_of(self.model), work.scratch / "parts"
        with crew_of(self.workers, self.gpus, self.threads) as crew:
            scores = evaluate(place, self.suite, work.directory, self.batch_size, self.threads, on_progress, scratch=parts, crew=crew)
        return Outcome(
            metrics={name: asdict(score) for name, score in scores.items()},
            details={"split": self.suite.split.value, "samples": self.suite.samples},
        )


def crew_of(workers: int, gpus: float, threads: int) -> Any:
    """So many Ray actors, or None for 0: this process."""
    if not workers:
        return nullcontext()
    from pipeline.graph.actors import RayActors

    return RayActors(workers, gpus, threads)


@dataclass(frozen=True, eq=False, repr=False)
class EvaluatePairs(Evaluation):
    """One modality-expert model is asked every set of a suite."""

    kind: ClassVar[str] = "ask"
    suite: PairSuite

    def run(self, work: Work) -> Outcome:
        from evaluators.pairs.ask import evaluate_pairs

        asked = {each.name: index for index, each in enumerate(self.suite.tasks)}

        def on_progress(name: str, done: int, total: int) -> None:
            work.progress(asked[name] + done / total, len(asked), name)

        scores = evaluate_pairs(work.checkpoint_of(self.model), self.suite, work.directory, self.batch_size, self.threads, on_progress)
        return Outcome(
            metrics={name: asdict(score) for name, score in scores.items()},
            details={"split": self.suite.split.value, "samples": self.suite.samples},
        )
