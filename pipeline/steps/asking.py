"""A model is asked what a suite holds: questions of tasks, or sets of images with text."""

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
    """One model is asked every task of a suite."""

    kind: ClassVar[str] = "evaluate"
    suite: Suite

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
