"""Steps in words, by the place they have in an experiment: for plans, progress lines and run names."""

from collections.abc import Sequence

from pipeline.recipes.milestone import Milestone, Role
from pipeline.step import Step
from pipeline.steps import FineTune, Fisher, Merging, Pretrain, Pretrained


def milestone_title(milestone: Milestone) -> str:
    """The evaluated model in words: `stage 2 count, after merge`."""
    if milestone.family:
        return "after fine-tuning" if milestone.role is Role.AFTER else "as it is"
    if milestone.role is Role.BASE:
        return "stage 0, base"
    if milestone.role is Role.WITHIN:
        return f"stage {milestone.stage} {milestone.task}, after step {milestone.step}"
    merged = isinstance(milestone.model, Merging)
    what = "before merge" if milestone.role is Role.BEFORE else "after merge" if merged else "tuned"
    return f"stage {milestone.stage} {milestone.task}, {what}"


def model_title(milestone: Milestone) -> str:
    """The step that made the evaluated model, in words: `merge stage 2 count (0.5 x previous + 0.5 x tuned)`."""
    step = milestone.model
    if milestone.family:
        return step.title
    if isinstance(step, Pretrain):
        return f"pretrain the digits model, seed {step.seed}"
    if isinstance(step, Pretrained):
        return f"base model {step.place}"
    if isinstance(step, FineTune):
        return f"fine-tune stage {milestone.stage} {milestone.task}"
    if milestone.role is Role.WITHIN:
        return f"step {milestone.step} of stage {milestone.stage} {milestone.task}"
    return f"merge stage {milestone.stage} {milestone.task} ({milestone.weights})"


def step_titles(milestones: Sequence[Milestone]) -> dict[str, str]:
    """Step key -> words, for every step that makes or asks a model. Steps that several arms share carry the first one's arm."""
    titles: dict[str, str] = {}
    several = len({(milestone.arm, milestone.seed) for milestone in milestones}) > 1
    for milestone in milestones:
        where = f"{milestone.arm}, seed {milestone.seed}: " if several else ""
        titles.setdefault(milestone.model.key, where + model_title(milestone))
        for needed in milestone.model.inputs:
            if isinstance(needed, Fisher):
                titles.setdefault(needed.key, f"{where}Fisher information of {needed.task.name}")
        titles.setdefault(milestone.evaluation.key, f"{where}evaluate {milestone_title(milestone)}")
    return titles


def title_of(step: Step, titles: dict[str, str]) -> str:
    """A step's words, or its key where it has none."""
    return titles.get(step.key) or step.title or step.key
