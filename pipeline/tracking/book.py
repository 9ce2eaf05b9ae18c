"""MLflow as a book that can be written again: every run and model is found by a key of ours before it is made.

Making a run is not idempotent in MLflow, and a killed pipeline writes its book again; so runs and models carry the tag `mergeline.key`, and
metrics keep the time stamps of their records (MLflow drops an identical point). A run that is written to its end carries a stamp, and is
not written again. One process writes. After a failure the book is opened anew: what was sent may have arrived, even after the failure was
told, and what was made twice that way is found and taken out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.tracking.backend import SERVERS, open_client

KEY_TAG, PIPELINE_TAG, STAMP_TAG = "mergeline.key", "mergeline.pipeline", "mergeline.mirrored"
PAGE = 500
BATCH = 1000
"""Points in one request: MLflow takes no more."""
PARENT_TAG = "mlflow.parentRunId"
FOLDER = re.compile(r"[A-Za-z0-9_=+-][A-Za-z0-9_.=+ -]{0,119}")


@dataclass(frozen=True)
class Metric:
    """One value at one step; `time` in seconds. `dataset` is (name, digest) of what was asked, where something was."""

    key: str
    value: float
    time: float
    step: int = 0
    model_id: str | None = None
    dataset: tuple[str, str] | None = None


@dataclass
class _Run:
    """What is known of a run in the book. `points` are those it held before: metric key -> step -> {(value, milliseconds)}."""

    id: str
    key: str
    found: bool = False
    stamp: str = ""
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    points: dict[str, dict[int, set[tuple[float, int]]]] = field(default_factory=dict)


class Book:
    """The part of one MLflow experiment that belongs to one pipeline, opened for writing."""

    def __init__(self, uri: str, experiment: str, artifacts: Path, pipeline: str) -> None:
        self.uri, self.pipeline = uri, pipeline
        self.client = open_client(uri)
        self.experiment_id = self._experiment(experiment, None if uri.startswith(SERVERS) else artifacts)
        self.points_sent = self.runs_made = self.models_made = 0
        self._runs = self._found_runs()
        self._ids = {run.id: run for run in self._runs.values()}
        self._models = self._found_models()

    def _experiment(self, name: str, artifacts: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                location = None if artifacts is None else (artifacts / folder_of(name)).absolute().as_uri()
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _found_runs(self) -> dict[str, _Run]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], self._mine(), max_results=PAGE, page_token=token)
            found += [run for run in page if KEY_TAG in run.data.tags]
            token = page.token
            if not token:
                break
        below = Counter(run.data.tags.get(PARENT_TAG) for run in found)
        runs: dict[str, _Run] = {}
        for run in sorted(found, key=lambda run: (-below[run.info.run_id], -len(run.data.metrics), -len(run.data.tags), run.info.run_id)):
            tags = run.data.tags
            if tags[KEY_TAG] in runs:
                self.client.delete_run(run.info.run_id)  # made by a request whose answer was lost, and empty
            else:
                known = _Run(run.info.run_id, tags[KEY_TAG], True, tags.get(STAMP_TAG, ""), run.info.status, dict(run.data.params))
                runs[known.key] = known
        return runs

    def _found_models(self) -> dict[str, str]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_logged_models([self.experiment_id], self._mine(), max_results=50, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        models: dict[str, str] = {}
        twice = {key for key, count in Counter(model.tags[KEY_TAG] for model in found).items() if count > 1}
        for model in sorted(found, key=lambda model: (model.tags[KEY_TAG] in twice and not self._is_output(model), model.model_id)):
            if model.tags[KEY_TAG] in models:
                self.client.delete_logged_model(model.model_id)
                continue
            models[model.tags[KEY_TAG]] = model.model_id
            if str(model.status) != "READY":
                self.client.finalize_logged_model(model.model_id, "READY")
        return models

    def _is_output(self, model: Any) -> bool:
        """Whether the run that made a model names it."""
        outputs = self.client.get_run(model.source_run_id).outputs
        return outputs is not None and any(output.model_id == model.model_id for output in outputs.model_outputs)

    def _mine(self) -> str:
        return f"tags.`{PIPELINE_TAG}` = '{self.pipeline}'"

    def find(self, key: str) -> str | None:
        """The id of the run with this key, if the book has it."""
        return self._runs[key].id if key in self._runs else None

    def find_model(self, key: str) -> str | None:
        """The id of the model with this key, if the book has it."""
        return self._models.get(key)

    def run(self, key: str, name: str, tags: Mapping[str, str], started: float, parent: str | None = None) -> str:
        """The id of the run with this key, made if it is not there."""
        if key not in self._runs:
            whole = {**tags, PIPELINE_TAG: self.pipeline, KEY_TAG: key, "mlflow.source.name": "mergeline", "mlflow.source.type": "LOCAL"}
            if parent is not None:
                whole[PARENT_TAG] = parent
            made = self.client.create_run(self.experiment_id, start_time=_milliseconds(started), tags=whole, run_name=name)
            self._runs[key] = self._ids[made.info.run_id] = _Run(made.info.run_id, key)
            self.runs_made += 1
        return self._runs[key].id

    def model(self, key: str, name: str, source_run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """The id of the logged model with this key, made if it is not there: a place and a digest, never a copy of weights."""
        if key not in self._models:
            whole = {**tags, PIPELINE_TAG: self.pipeline, KEY_TAG: key, "mlflow.model.isExternal": "true"}
            made = self.client.create_logged_model(
                self.experiment_id, name=name, source_run_id=source_run, params=dict(params), tags=whole, model_type="checkpoint"
            )
            self.client.finalize_logged_model(made.model_id, "READY")
            self._models[key] = made.model_id
            self.models_made += 1
        return self._models[key]

    def describe(self, run_id: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Write a run's parameters and tags. MLflow does not let a parameter change: the first value stays."""
        from mlflow.entities import Param, RunTag

        known = self._ids[run_id].params
        new = {key: str(value)[:6000] for key, value in params.items() if key not in known}
        told = [Param(key, value) for key, value in new.items()]
        self.client.log_batch(run_id, params=told, tags=[RunTag(key, str(value)) for key, value in tags.items()])
        known.update(new)

    def log(self, run_id: str, metrics: Iterable[Metric]) -> None:
        """Write points, rounded to six places. A point that is there stays one, also if its step was made again with the same result."""
        from mlflow.entities import Metric as MlflowMetric

        points = []
        for metric in metrics:
            name, digest = metric.dataset or (None, None)
            value, moment = round(metric.value, 6), _milliseconds(metric.time)
            before = self._points(run_id, metric.key).get(metric.step, set())
            if any(value == known for known, _ in before) and (metric.model_id is None or (value, moment) not in before):
                continue
            of_model = {"model_id": metric.model_id, "dataset_name": name, "dataset_digest": digest}
            points.append(MlflowMetric(metric.key, value, moment, metric.step, run_id=run_id if metric.model_id else None, **of_model))
        for first in range(0, len(points), BATCH):
            self.client.log_batch(run_id, metrics=points[first : first + BATCH])
        self.points_sent += len(points)

    def _points(self, run_id: str, key: str) -> dict[int, set[tuple[float, int]]]:
        """The points of a metric that the run held when the book was opened."""
        run = self._ids[run_id]
        if key not in run.points:
            run.points[key] = {}
            for point in self.client.get_metric_history(run_id, key) if run.found else []:
                run.points[key].setdefault(point.step, set()).add((point.value, point.timestamp))
        return run.points[key]

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

    def end(self, run_id: str, status: str, finished: float = 0) -> None:
        """Close a run as FINISHED, FAILED or KILLED, or open it again as RUNNING."""
        if status != "RUNNING":
            self.client.set_terminated(run_id, status, _milliseconds(finished))
        elif self._ids[run_id].status != status:
            self.client.update_run(run_id, status=status)
        self._ids[run_id].status = status

    def status(self, run_id: str) -> str:
        """MLflow's word for how a run stands."""
        return self._ids[run_id].status

    def close(self, status: str, finished: float) -> None:
        """Close every run that is still open."""
        for run in self._runs.values():
            if run.status == "RUNNING":
                self.end(run.id, status, finished)

    def stamped(self, key: str, stamp: str) -> bool:
        """Whether the run with this key was written to its end under this stamp."""
        return key in self._runs and self._runs[key].stamp == stamp

    def stamp(self, run_id: str, stamp: str) -> None:
        """Say that a run is written to its end."""
        self.client.set_tag(run_id, STAMP_TAG, stamp)
        self._ids[run_id].stamp = stamp

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment, where they differ."""
        there = self.client.get_experiment(self.experiment_id).tags
        for key, value in tags.items():
            if there.get(key) != value:
                self.client.set_experiment_tag(self.experiment_id, key, value)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def folder_of(experiment: str) -> str:
    """The directory for an experiment's artifacts: its name, or where that leads elsewhere or is too long, one that begins like it."""
    if FOLDER.fullmatch(experiment):
        return experiment
    return f"{re.sub(r'[^A-Za-z0-9_=+-]', '-', experiment)[:60]}-{sha256(experiment.encode()).hexdigest()[:8]}"
