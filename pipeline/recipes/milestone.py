"""What a recipe yields: an evaluation, and the place in the experiment where it stands."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.step import Step
from pipeline.steps import Evaluation


class Role(StrEnum):
    """Which model of a stage is asked. Every stage has an AFTER: the model that the next stage goes on from."""

    BASE = "base"
    WITHIN = "within"  # the model in the middle of its fine-tuning, after a given optimizer step
    BEFORE = "before"  # the fine-tuned model, before the merge
    AFTER = "after"  # the merged model; without merging, the fine-tuned one


@dataclass(frozen=True)
class Milestone:
    """One row of the experiment: at `stage` (0 is the base), having learned `task`, the model in `role` is asked."""

    evaluation: Evaluation
    stage: int
    role: Role
    task: str | None = None
    arm: str = ""  # which of several compared methods
    seed: int = 0
    weights: str = ""  # of the merge, spelled out: "0.5 x previous + 0.5 x tuned"
    step: int | None = None  # the optimizer step of a model within its stage
    family: str = ""  # of an arm: the method whose hyperparameter `value` is, or what it is a reference for
    value: float | None = None
    measured: Step | None = None  # what was measured on the model it was merged from
    search: Step | None = None  # what chose the merge's parameters

    @property
    def model(self) -> Step:
        """The step whose checkpoint is asked."""
        return self.evaluation.model
