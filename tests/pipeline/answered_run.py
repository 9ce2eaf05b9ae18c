"""A run as the pipeline leaves it, made without running anything: run.json, experiment.yaml and the records of its evaluations."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from evaluators.scores import Sample, task_score, write_samples
from pipeline.config.experiment import EXPERIMENT_FILE, build
from pipeline.recipes.milestone import Milestone
from pipeline.results import Row, rows, write_rows
from tasks.registry import get_task
from tasks.task import Example, Split

Answer = Callable[[Milestone, Example], str]


def answered_run(workspace: Path, experiment: str, answer: Answer, samples: int = 4) -> tuple[Path, list[Row]]:
    """The directory of a finished run of `experiment`, whose models answer as `answer` says; and its rows."""
    file = workspace / "given.yaml"
    file.write_text(f"{experiment}workspace: {workspace}\n")
    built = build(file)
    built.run_directory.mkdir(parents=True)
    (built.run_directory / EXPERIMENT_FILE).write_text(file.read_text())
    found = rows(built.milestones, built.config.recipe)
    write_rows(built.run_directory, found, built.identity)
    for milestone in built.milestones:
        answered = []
        for task in milestone.evaluation.suite.tasks:
            for example in get_task(task.name).examples(Split.TEST, samples):
                response = answer(milestone, example)
                answered.append(Sample(task.name, example.key, example.question, example.answer, response, task.score(response, example)))
        place = workspace / "store" / milestone.evaluation.key
        place.mkdir(parents=True, exist_ok=True)
        write_samples(answered, place / "samples.parquet")
        scores = {task: asdict(task_score([each.score for each in answered if each.task == task])) for task in {s.task for s in answered}}
        step = milestone.evaluation
        known = {"format": 1, "kind": step.kind, "fingerprint": step.fingerprint, "spec": {}, "inputs": []}
        outputs = {"checkpoint": None, "files": {}, "sizes": {}, "digest": ""}
        record = {**known, "outputs": outputs, "metrics": scores, "details": {"split": "test", "samples": samples}}
        (place / "record.json").write_text(json.dumps(record))
    return built.run_directory, found
