"""MLflow as a book that can be written again: every run and model is found by a key of ours before it is made.

Making a run is not idempotent in MLflow, and a killed pipeline writes its book again; so runs and models carry the tag `mergeline.key`, and
metrics keep the time stamps of their records (MLflow drops an identical point). One process writes. The file store is not offered.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
KEY_TAG = "mergeline.key"


@dataclass(frozen=True)
class Metric:
    """One value at one step; `time` in seconds. `dataset` is (name, digest) of what was asked, where something was."""

    key: str
    value: float
    time: float
    step: int = 0
    model_id: str | None = None
    dataset: tuple[str, str] | None = None


def tracking_uri(configured: str | None, workspace: Path) -> str:
    """The configured URI, else `MLFLOW_TRACKING_URI`, else an SQLite file in the workspace."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace / 'mlflow.db'}"


def sqlite_file(uri: str) -> Path | None:
    """The database file of an SQLite URI, else None."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def sqlite_has_run(uri: str, run_id: str) -> bool:
    """Whether an SQLite tracking database holds that run, asked without loading MLflow."""
    path = sqlite_file(uri)
    if path is None or not path.exists():
        return False
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return (
                connection.execute("select 1 from runs where run_uuid = ? and lifecycle_stage = 'active'", (run_id,)).fetchone() is not None
            )
    except sqlite3.Error:
        return False


class Book:
    """One MLflow experiment, opened for writing."""

    def __init__(self, uri: str, experiment: str, artifacts: Path) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        from mlflow import MlflowClient

        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri)
        self._runs: dict[str, str] = {}
        self._models: dict[str, str] = {}
        database = sqlite_file(uri)
        if database is not None:
            self._create_schema(database)
        self.experiment_id = self._experiment(experiment, artifacts if database is not None else None)

    def _create_schema(self, database: Path) -> None:
        """Open a new database under a lock: MLflow's first opening is not safe against a second process."""
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            self.client.search_experiments(max_results=1)
            with sqlite3.connect(database) as connection:
                connection.execute("pragma journal_mode=WAL")

    def _experiment(self, name: str, artifacts: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                location = None if artifacts is None else (artifacts / name).absolute().as_uri()
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def run(self, key: str, name: str, tags: Mapping[str, str], started: float, parent: str | None = None) -> str:
        """The id of the run with this key, made if it is not there."""
        if key not in self._runs:
            found = self.client.search_runs([self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
            if found:
                self._runs[key] = found[0].info.run_id
            else:
                whole = {**tags, KEY_TAG: key, "mlflow.source.name": "mergeline", "mlflow.source.type": "LOCAL"}
                if parent is not None:
                    whole["mlflow.parentRunId"] = parent
                made = self.client.create_run(self.experiment_id, start_time=_milliseconds(started), tags=whole, run_name=name)
                self._runs[key] = made.info.run_id
        return self._runs[key]

    def model(self, key: str, name: str, source_run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """The id of the logged model with this key, made if it is not there: a place and a digest, never a copy of weights."""
        if key not in self._models:
            found = self.client.search_logged_models([self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
            if found:
                self._models[key] = found[0].model_id
            else:
                whole = {**tags, KEY_TAG: key, "mlflow.model.isExternal": "true"}
                made = self.client.create_logged_model(
                    self.experiment_id, name=name, source_run_id=source_run, params=dict(params), tags=whole, model_type="checkpoint"
                )
                self.client.finalize_logged_model(made.model_id, "READY")
                self._models[key] = made.model_id
        return self._models[key]

    def tag_model(self, model_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a model."""
        self.client.set_logged_model_tags(model_id, dict(tags))

    def describe(self, run_id: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Write a run's parameters and tags; writing the same again changes nothing."""
        from mlflow.entities import Param, RunTag

        told = [Param(key, str(value)[:6000]) for key, value in params.items()]
        self.client.log_batch(run_id, params=told, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log(self, run_id: str, metrics: Iterable[Metric]) -> None:
        """Write points; one that is there already stays one."""
        from mlflow.entities import Metric as MlflowMetric

        points = []
        for metric in metrics:
            name, digest = metric.dataset or (None, None)
            point = MlflowMetric(
                metric.key,
                round(metric.value, 6),
                _milliseconds(metric.time),
                metric.step,
                model_id=metric.model_id,
                dataset_name=name,
                dataset_digest=digest,
                run_id=run_id if metric.model_id else None,
            )
            points.append(point)
        for first in range(0, len(points), 500):
            self.client.log_batch(run_id, metrics=points[first : first + 500])

    def link(self, run_id: str, read: Sequence[str] = (), made: Sequence[str] = (), data: Sequence[tuple[str, str, str]] = ()) -> None:
        """Say which models a run read and made, and which data (name, digest, context) it used."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput

        datasets = [
            DatasetInput(Dataset(name, digest, "code", f'{{"task": "{name}"}}'), [InputTag("mlflow.data.context", context)])
            for name, digest, context in data
        ]
        self.client.log_inputs(run_id, models=[LoggedModelInput(model) for model in read], datasets=datasets)
        outputs = self.client.get_run(run_id).outputs
        there = {output.model_id for output in outputs.model_outputs} if outputs else set()
        new = [LoggedModelOutput(model, step=0) for model in made if model not in there]
        if new:
            self.client.log_outputs(run_id, models=new)

    def end(self, run_id: str, status: str, finished: float | None = None) -> None:
        """Close a run as FINISHED, FAILED or KILLED, or open it again as RUNNING."""
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status, _milliseconds(finished or time.time()))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
