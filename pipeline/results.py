"""From records to results: the scores of every arm and seed.

A run leaves `run.json` in its directory: its milestones as plain rows, by step key. Reports are made from these rows and the store alone,
so an old run can be reported again after code, data or defaults have changed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from evaluators.scores import SAMPLES_FILE, TaskScore
from foundation.errors import InputError
from foundation.files import write_json_atomic
from pipeline.recipes.milestone import Milestone, Role
from pipeline.report import RunScores, StageScores
from pipeline.report.modality import Outcome
from pipeline.report.run_scores import Cost
from pipeline.steps import FineTune
from pipeline.steps.learning import tasks_in
from pipeline.store import Record, Store
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.table import strategy_name

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Row:
    """A milestone as plain data: which stored evaluation shows which model of which stage."""

    arm: str
    seed: int
    stage: int
    role: str
    task: str | None
    weights: str
    training: str
    stream: tuple[str, ...]
    held_out: tuple[str, ...]
    evaluation: str  # step keys
    model: str
    step: int | None = None
    strategy: str = ""
    family: str = ""
    value: float | None = None
    measured: str = ""  # step key
    search: str = ""  # step key
    learned: tuple[str, ...] = ()  # the tasks that the stage learns together; none where it is no fine-tuning


def rows(milestones: Sequence[Milestone], recipe: str) -> list[Row]:
    """The rows of an experiment; an arm without a name is called after its recipe."""
    return [
        Row(
            arm=milestone.arm or recipe,
            seed=milestone.seed,
            stage=milestone.stage,
            role=milestone.role.value,
            task=milestone.task,
            weights=milestone.weights,
            training=_training(milestone),
            stream=milestone.evaluation.suite.stream_names,
            held_out=milestone.evaluation.suite.held_out_names,
            evaluation=milestone.evaluation.key,
            model=milestone.model.key,
            step=milestone.step,
            strategy=_strategy(milestone),
            family=milestone.family,
            value=milestone.value,
            measured=milestone.measured.key if milestone.measured else "",
            search=milestone.search.key if milestone.search else "",
            learned=tuple(task.name for task in tasks_in(milestone.model.task)) if isinstance(milestone.model, FineTune) else (),
        )
        for milestone in milestones
    ]


def write_rows(run_directory: Path, found: Sequence[Row], identity: str) -> None:
    """Leave the rows in the run's directory."""
    write_json_atomic(run_directory / RUN_FILE, {"format": 1, "identity": identity, "milestones": [asdict(row) for row in found]})


def read_rows(run_directory: Path) -> list[Row]:
    """The rows a run left; InputError if it left none."""
    return _read_run(run_directory)[1]


def read_identity(run_directory: Path) -> str:
    """The identity of the experiment that a run was made by; InputError if it left none."""
    return _read_run(run_directory)[0]


def _read_run(run_directory: Path) -> tuple[str, list[Row]]:
    path = run_directory / RUN_FILE
    try:
        content = json.loads(path.read_bytes())
        return str(content["identity"]), [_row(told) for told in content["milestones"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a run ({error}); run the experiment again to write it anew") from error


def _row(told: dict[str, Any]) -> Row:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    return Row(**fields)


def streams(milestones: Sequence[Milestone]) -> list[list[Milestone]]:
    """The milestones of each arm and seed, in order."""
    return [list(group) for _, group in groupby(milestones, key=lambda milestone: (milestone.arm, milestone.seed))]


def all_scores(found: Sequence[Row], store: Store) -> list[RunScores]:
    """The scores of every arm and seed, as far as they are stored."""
    return [run_scores(list(group), store) for _, group in groupby(found, key=lambda row: (row.arm, row.seed))]


def run_scores(found: Sequence[Row], store: Store) -> RunScores:
    """The scores of one arm and seed, of whole stages; a stage is in only if all before it are."""
    stages = []
    for row in (each for each in found if each.role != Role.WITHIN):
        record = store.by_key(row.evaluation)
        if record is None:
            break
        samples = record.directory / SAMPLES_FILE
        stages.append(StageScores(row.stage, row.task, row.role, task_scores(record), samples if samples.exists() else None))
    weights = next((row.weights for row in found if row.weights), "")
    training = next((row.training for row in found if row.training), "")
    cost = learning_cost([row.model for row in found if row.role == Role.AFTER], store)
    strategy = next((row.strategy for row in found if row.strategy), "")
    first = found[0]
    joint = learns_jointly(found)
    return RunScores(first.arm, first.seed, first.stream, first.held_out, weights, tuple(stages), training, cost, strategy, joint)


def learns_jointly(found: Sequence[Row]) -> bool:
    """Whether every stage of one arm and seed learns its task together with all before it: the recipe `joint`."""
    later = [row for row in found if row.role == Role.AFTER and row.stage > 1]
    return bool(later) and all(row.learned == row.stream[: row.stage] for row in later)


def outcomes(found: Sequence[Row], store: Store) -> list[Outcome]:
    """The merges (and what they are held against) of an experiment that has families of arms, as far as they are stored."""
    made = []
    for (arm, seed), group in groupby(found, key=lambda row: (row.arm, row.seed)):
        asked = {row.role: (row, record) for row in group if (record := store.by_key(row.evaluation)) is not None}
        if not asked:
            continue
        first = next(iter(asked.values()))[0]
        merged, tuned = (task_scores(asked[role][1]) if role in asked else None for role in (Role.BASE, Role.AFTER))
        measured = store.by_key(first.measured) if first.measured else None
        model = store.by_key(asked[Role.AFTER][0].model) if tuned is not None else None
        steps = int(model.metrics["steps"]) if model is not None else 0
        distances = dict(measured.metrics) if measured is not None else {}
        made.append(Outcome(arm, first.family, first.value, seed, merged or {}, tuned, distances, steps))
    return made


def learning_cost(models: Sequence[str], store: Store) -> Cost | None:
    """What the fine-tuning behind the last of `models` that is stored took, with all that it rests on."""
    waiting = [next((key for key in reversed(models) if store.by_key(key)), "")]
    stages: dict[str, Record] = {}
    seen: set[str] = set()
    while waiting:
        key = waiting.pop()
        record = None if key in seen else store.by_key(key)
        seen.add(key)
        if record is not None:
            waiting.extend(record.content["inputs"])
            if "trained_parameters" in record.metrics:
                stages[key] = record
    if not stages:
        return None
    trained = [sum(record.metrics["trained_parameters"].values()) for record in stages.values()]
    return Cost(max(trained), sum(record.content["seconds"] for record in stages.values()))


def task_scores(record: Record) -> dict[str, TaskScore]:
    """The scores in an evaluation's record."""
    return {task: TaskScore(**score) for task, score in record.metrics.items()}


def _strategy(milestone: Milestone) -> str:
    """How the stage took up its task, beyond plain fine-tuning: "ewc, weight 1000, decay 1, samples 200"."""
    if not isinstance(milestone.model, FineTune) or isinstance(milestone.model.strategy, FineTuning):
        return ""
    settings = asdict(milestone.model.strategy)  # type: ignore[call-overload]
    given = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items() if value is not None
    ]
    return ", ".join([strategy_name(milestone.model.strategy), *given])


def _training(milestone: Milestone) -> str:
    """What the stage trained and how, for milestones that show a fine-tuned model."""
    if milestone.role is Role.BASE or not isinstance(milestone.model, FineTune):
        return ""
    train = milestone.model.train
    duration = f"{train.max_steps} steps" if train.max_steps else f"{train.epochs:g} epochs"
    return f"{' + '.join(train.parts)}, learning rate {train.learning_rate:g}, {duration} of {train.batch_size}"
