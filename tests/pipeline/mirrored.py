"""An experiment with real records (files, digests, histories, scores) though nothing was trained, and its mirror as plain data."""

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from foundation.files import write_atomic, write_json_atomic
from pipeline.config.experiment import EXPERIMENT_FILE, Built, build
from pipeline.graph.history import HistoryLog
from pipeline.results import rows, write_rows
from pipeline.step import Outcome, Step
from pipeline.steps import Evaluate, FineTune, Fisher, Merge
from pipeline.store import Store
from pipeline.tracking.book import Book
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.writing.writer import Writer
from pipeline.tracking.writing.written import Job, Written, read_written

TINY = Path(__file__).parent / "tiny.yaml"
REPOSITORY = Path(__file__).parents[2]
START = 1_700_000_000.0
POINTS = (2, 4, 6)
Dump = dict[str, Any]
Whole = tuple[Built, Store, Mirror, Dump]


def write_record(store: Store, step: Step, started: float) -> None:
    """Store a step as if it had run: a checkpoint with weights of its own, a training history, scores."""
    directory = store.begin(step)
    number = int(step.fingerprint[:8], 16)
    if isinstance(step, Evaluate):
        scores = {task.name: _score(number + index) for index, task in enumerate(step.suite.tasks)}
        write_json_atomic(directory / "scores.json", scores)
        outcome = Outcome(metrics=scores, details={"split": "test", "samples": 8})
    elif isinstance(step, Fisher):
        (directory / "fisher.safetensors").write_bytes(b"measured")
        outcome = Outcome(details={"task": step.task.name})
    else:
        checkpoint = directory / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_bytes(hashlib.sha256(step.key.encode()).digest() * 32)
        (checkpoint / "config.json").write_text("{}")
        log = HistoryLog(directory / "history.jsonl", step.key)
        for point in POINTS if isinstance(step, FineTune) else ():
            log(point, loss(point))
        outcome = Outcome(checkpoint, {"seconds_of_training": 1.5}, _details(step))
    store.finish(step, outcome, {"started": started, "finished": started + 5, "seconds": 5.0, "versions": {"python": "3"}})


def loss(point: int) -> dict[str, float]:
    return {"train/loss": 1 / point, "train/learning_rate": 1e-3}


def _score(number: int) -> dict[str, float]:
    return {"accuracy": (number % 9) / 8, "stderr": 0.1, "samples": 8}


def _details(step: Step) -> dict[str, Any]:
    if isinstance(step, FineTune):
        return {"task": step.task.name, "trained_on": list(step.train.parts), "learning_rate": step.train.learning_rate}
    if isinstance(step, Merge):
        return {"method": "wise_ft", "sources": {"previous": "weight 0.5 (alpha)", "tuned": "weight 0.5"}, "alpha": 0.5}
    return {"seed": 0, "threads": 1}


def make(workspace: Path, file: Path = TINY, *overrides: str, steps: int | None = None) -> tuple[Built, Store]:
    """An experiment with the records of its first `steps` steps (None: of all)."""
    built = build(file, [f"workspace={workspace}", *overrides])
    store = Store(workspace / "store")
    for index, step in enumerate(built.steps[:steps]):
        if store.by_key(step.key) is None:  # of another experiment in the same workspace
            write_record(store, step, START + 10 * index)
    leave(built)
    return built, store


def work(tracker: Tracker, store: Store, step: Step, started: float, pause: float = 0) -> None:
    """What a run tells its tracker of one step: its points while it works, that it is stored."""
    if isinstance(step, FineTune):
        log = HistoryLog(store.begin(step) / "history.jsonl", step.key, tracker)
        for point in POINTS:
            log(point, loss(point))
            time.sleep(pause)
    write_record(store, step, started)
    tracker.done(step)


class Standing:
    """A parent that stays, and has no time to wait."""

    def __init__(self, pauses: int = 1000) -> None:
        self.gone = threading.Event()
        self.pauses = pauses

    def pause(self, seconds: float) -> bool:
        self.pauses -= 1
        if not self.pauses:
            self.gone.set()
        return False


def write(built: Built, database: Path, whole: bool = False, pauses: int = 1000) -> Written:
    """Have the run's journal written to a database, to its end or for so many pauses."""
    Writer(Job(str(built.run_directory), "s", f"sqlite:///{database}", whole), Standing(pauses)).run()  # type: ignore[arg-type]
    written = read_written(built.run_directory)
    assert written is not None
    return written


def leave(built: Built) -> None:
    """What a run leaves in its directory before anything else: its experiment and its rows."""
    built.run_directory.mkdir(parents=True, exist_ok=True)
    write_atomic(built.run_directory / EXPERIMENT_FILE, yaml.safe_dump(built.resolved, sort_keys=False, allow_unicode=True))
    write_rows(built.run_directory, rows(built.milestones, built.config.recipe), built.identity)


def open_mirror(built: Built, store: Store, database: Path) -> Mirror:
    return Mirror(Book(f"sqlite:///{database}", built.config.name, database.parent / "artifacts", built.identity[:16]), built, store)


def complete(mirror: Mirror) -> None:
    """What the process that writes does at the end of a finished run, whose times are those of its records."""
    records = [record for step in mirror.built.steps if (record := mirror.store.by_key(step.key)) is not None]
    mirror.open(min(record.content["started"] for record in records))
    mirror.everything()
    mirror.close("FINISHED", max(record.content["finished"] for record in records))


def dump(mirror: Mirror) -> Dump:
    """All that the database holds of the experiment, with ids replaced by our keys, so that two databases can be held side by side."""
    client, experiment = mirror.book.client, mirror.book.experiment_id
    runs = list(client.search_runs([experiment], max_results=1000))
    models = list(client.search_logged_models([experiment], max_results=50))
    names = {run.info.run_id: "run " + run.data.tags["mergeline.key"] for run in runs}
    names |= {model.model_id: "model " + model.tags["mergeline.key"] for model in models}
    found: Dump = {}
    for run in runs:
        points = [
            (key, point.step, point.value, point.timestamp)
            for key in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, key)
        ]
        tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.log-model.history"}
        read = sorted(model.model_id for model in run.inputs.model_inputs)
        data = sorted((entry.dataset.name, entry.dataset.digest, entry.tags[0].value) for entry in run.inputs.dataset_inputs)
        made = [model.model_id for model in run.outputs.model_outputs] if run.outputs else []
        place = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
        found.setdefault(run.info.run_id, []).append([place, run.data.params, tags, sorted(points), read, data, made])
    for model in models:
        scores = sorted((metric.key, metric.step, metric.value, metric.dataset_name) for metric in model.metrics or [])
        found.setdefault(model.model_id, []).append([model.name, str(model.status), model.params, model.tags, scores, model.source_run_id])
    assert all(len(entries) == 1 for entries in found.values())
    text = json.dumps(found, sort_keys=True).replace(f"/experiments/{experiment}/", "/experiments/ours/")
    for name, key in names.items():
        text = text.replace(name, key)
    keys = [names[identifier] for identifier in found]
    assert len(set(keys)) == len(keys), "a run or model was made twice"
    result: Dump = json.loads(text)
    return result


def runs_of(mirror: Mirror, kind: str) -> list[Any]:
    question = f"tags.`mergeline.kind` = '{kind}'"
    return list(mirror.book.client.search_runs([mirror.book.experiment_id], question, order_by=["attributes.start_time"]))


def points_of(mirror: Mirror) -> list[tuple[str, str, int]]:
    """(run, metric, step) of every point, as often as the database holds it."""
    client = mirror.book.client
    runs = client.search_runs([mirror.book.experiment_id], max_results=1000)
    return [
        (run.info.run_id, key, point.step)
        for run in runs
        for key in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, key)
    ]
