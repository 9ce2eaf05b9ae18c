"""Records become MLflow's runs, models and metrics. MLflow mirrors the store: all of this can be written again from records alone.

    experiment            the experiment's name
    ├── pipeline run      one per identity; pretraining, fine-tunes and merges are nested in it
    ├── evaluation runs   top level, one per model that was asked: role, stage, the same metric keys   (`scores.py`)
    ├── track runs        "before merge" and "after merge", the same keys, the stage as the step       (`scores.py`)
    └── models            place and digest of every checkpoint, linked by the runs that read and made them

Runs that are to be compared are not nested: MLflow's charts show only the parents of nested runs. Parameters hold what was asked for;
ids, digests and places are tags, because the compare page draws every parameter that differs.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.config.experiment import Built
from pipeline.graph.history import Point, read_history
from pipeline.lineage import data_of
from pipeline.recipes.milestone import Milestone, Role
from pipeline.report.run_scores import stages_done, summary
from pipeline.results import rows, run_scores, streams
from pipeline.searches import searched
from pipeline.step import Step
from pipeline.steps import Evaluation, FineTune, Merging, Search
from pipeline.store import Record, Store
from pipeline.titles import step_titles, title_of
from pipeline.tracking.ancestry import LINEAGE_TAG, lineage_tag
from pipeline.tracking.book import Book, Metric
from pipeline.tracking.lineage import model_note, parents_of, reader, tell_lineage
from pipeline.tracking.registry import register
from pipeline.tracking.results import mirror_comparison
from pipeline.tracking.scores import ScoreMirror, stamp_of
from pipeline.tracking.search import mirror_search
from pipeline.tracking.usage import step_times, usage_metrics
from pipeline.tracking.views import saved_views

Attempt = Callable[[str, Callable[[], object]], object]
"""Carries out one part of the mirror, named: one that MLflow refuses for good must not keep the others from being written."""
NOT_PARAMETERS = ("place",)  # details that may differ for the same step, so they are told as tags


class Mirror:
    """Writes one built experiment into a book; what it has written once it does not write again."""

    def __init__(self, book: Book, built: Built, store: Store) -> None:
        self.book, self.built, self.store = book, built, store
        self.pipeline = built.identity[:16]
        self.titles = step_titles(built.milestones)
        self.steps = {step.key: step for step in built.steps}
        self.places: dict[str, Milestone] = {}
        for milestone in built.milestones:
            self.places.setdefault(milestone.model.key, milestone)
        variant = built.name.removeprefix(built.config.tracking.experiment or built.config.name).removeprefix("-")
        self.scores = [
            ScoreMirror(book, stream, rows(stream, built.config.recipe), store, self.tags, self.model, variant)
            for stream in streams(built.milestones)
        ]
        self._written: set[str] = set()

    def open(self, started: float) -> str:
        """The id of the pipeline's run, marked as running."""
        run = self.pipeline_run(started)
        for each in (run, *(track for track in self.track_runs() if self.book.status(track) != "FINISHED")):
            self.book.end(each, "RUNNING")
        suite = self.built.milestones[0].evaluation.suite
        self.book.tag_experiment(saved_views(suite.names))
        return run

    def pipeline_run(self, started: float = 0) -> str:
        """The id of the pipeline's run."""
        weights = next((milestone.weights for milestone in self.built.milestones if milestone.weights), "none")
        note = f"`{self.built.config.recipe}`: {len(self.built.steps)} steps, {len(self.built.milestones)} evaluations. Merge: {weights}."
        tags = {"mergeline.kind": "pipeline", "mergeline.identity": self.built.identity, "mlflow.note.content": note}
        return self.book.run(self.pipeline, self.built.name, self.tags(tags), started)

    def points(self, key: str, points: Sequence[Point]) -> None:
        """Show training points of a step that is not stored yet; those of a stored one are in its history, which `step` shows."""
        if self.store.by_key(key) is None:
            run = self._work_run(self.steps[key], points[0].time)
            self.book.end(run, "RUNNING")  # an earlier attempt may have closed it
            self.book.log(run, [metric for point in points for metric in _metrics_of(point)])

    def step(self, step: Step) -> None:
        """Mirror one stored step, and of its stages what can be said by now."""
        record = self.store.by_key(step.key)
        if record is None or step.key in self._written:
            return
        if isinstance(step, Evaluation):
            for scores in self.scores:
                scores.write(step.key)
        else:
            self._work(step, record)
        self._written.add(step.key)

    def everything(self, attempt: Attempt = lambda _, part: part()) -> None:
        """Mirror all that is stored and was not written before, part by part."""
        for step in self.built.steps:
            attempt(f"step {step.key}", partial(self.step, step))
        attempt("results", self._results)
        attempt("comparison", partial(mirror_comparison, self))
        attempt("registered models", partial(register, self.book, self.built, self.store, self.model))
        attempt("lineage", partial(tell_lineage, self.book, self.built, self.store, self.model, self.titles))

    def close(self, status: str, finished: float) -> None:
        """Close the pipeline's run, and every run of a step that was not finished."""
        self.book.close(status, finished)

    def _results(self) -> None:
        """What a finished run came to, on the pipeline's run: so that whole runs can be compared too."""
        if len(self.scores) > 1:
            return  # several arms and seeds have their own tracks
        stream = self.scores[0].stream
        found = run_scores(self.scores[0].rows, self.store)
        record = self.store.by_key(stream[-1].evaluation.key)
        if record is None or len(found.stages) < len(stream) or stream[0].role is not Role.BASE:
            return
        told = {"recipe": self.built.config.recipe, "tasks": ", ".join(found.stream), "held_out": ", ".join(found.held_out) or "-"}
        told |= {"merge": found.weights or "none", "seed": str(found.seed), "training": found.training or "-"}
        run, stage = self.pipeline_run(), stages_done(found)
        self.book.describe(run, told, {})
        self.book.log(run, [Metric(key, value, record.content["finished"], stage) for key, value in summary(found).items()])

    def track_runs(self) -> list[str]:
        """The track runs of every arm and seed, before the merge and after it."""
        return [run for scores in self.scores for run in scores.track_runs()]

    def compared_runs(self) -> list[str]:
        """The runs to lay side by side: the last stage's evaluations before and after its merge, of every arm and seed."""
        return [run for scores in self.scores for run in scores.last_runs()]

    def tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        """`tags` and those that every run and model of this pipeline carries."""
        return {"mergeline.run": self.built.name, **tags}

    def model(self, step: Step) -> str:
        """The id of the logged model of a stored checkpoint, linked to its parents' models."""
        key = f"{self.pipeline}/{step.key}"
        known = self.book.find_model(key)
        if known is not None:
            return known
        record = self.store.by_key(step.key)
        if record is None or record.checkpoint is None:
            raise LookupError(f"{step.key} has no stored checkpoint to show")
        run = self._work_run(step, record.content["started"])
        parents = {parent: self.model(parent) for parent in parents_of(step)}
        note = model_note(step, self.model, reader(self.store), self.book.experiment_id, self.titles)
        tags = {
            "mergeline.parents": ",".join(parents.values()),
            "mergeline.digest": f"sha256:{record.digest}",
            "mergeline.uri": str(record.checkpoint),
            "mergeline.step": step.key,
            "mergeline.kind": step.kind,
            LINEAGE_TAG: lineage_tag(record, self.store),
            "mlflow.note.content": note,
        }
        params = {name: str(value) for name, value in {**self._place(step), "digest": record.digest[:12]}.items()}
        return self.book.model(key, self._model_name(step), run, params, self.tags(tags))

    def _work(self, step: Step, record: Record) -> None:
        if self.book.stamped(f"{self.pipeline}/{step.key}", stamp_of(record)):
            return
        run = self._work_run(step, record.content["started"])
        details = {key: value for key, value in record.content["details"].items() if not isinstance(value, dict)}
        tags = {f"mergeline.version.{name}": value for name, value in record.content["versions"].items()}
        tags |= {f"mergeline.{name}": str(details.pop(name)) for name in NOT_PARAMETERS if name in details}
        self.book.describe(run, {**details, **self._place(step)}, {"mergeline.step": step.key, **tags})
        history = list(read_history(self.store.directory(step) / "history.jsonl"))
        totals = {key: float(value) for key, value in record.metrics.items() if isinstance(value, int | float)}
        totals["seconds"] = record.content["seconds"]
        finished = record.content["finished"]
        if isinstance(step, Search):
            milestone = next(each for each in self.built.milestones if each.search is not None and each.search.key == step.key)
            shown = searched(record, milestone.arm, milestone.seed, milestone.stage, milestone.task or "", {})
            mirror_search(self.book, run, f"{self.pipeline}/{step.key}", shown, finished, self.tags)
        points = [metric for point in history for metric in _metrics_of(point)] + [*step_times(history), *usage_metrics(record)]
        self.book.log(run, points + [Metric(f"total/{key}", value, finished) for key, value in totals.items()])
        data = [(each.name, each.digest, "training") for each in data_of(record)]
        made = [self.model(step)] if record.checkpoint is not None else []  # a measurement makes no model
        self.book.link(run, read=[self.model(parent) for parent in parents_of(step)], made=made, data=data)
        self.book.end(run, "FINISHED", finished)
        self.book.stamp(run, stamp_of(record))

    def _work_run(self, step: Step, started: float) -> str:
        """The id of the run of a step that makes something. It begins at its first training point, which live points know too."""
        key = f"{self.pipeline}/{step.key}"
        if self.book.find(key) is None:
            first = next(read_history(self.store.directory(step) / "history.jsonl"), None)
            started = started if first is None else first.time
        tags = self.tags({"mergeline.kind": step.kind, **{f"mergeline.{name}": str(value) for name, value in self._place(step).items()}})
        return self.book.run(key, title_of(step, self.titles), tags, started, parent=self.pipeline_run())

    def _place(self, step: Step) -> dict[str, Any]:
        milestone = self.places.get(step.key)
        return {} if milestone is None else {"stage": milestone.stage, "trained": milestone.task or "-", "role": milestone.role.value}

    def _model_name(self, step: Step) -> str:
        milestone = self.places.get(step.key)
        if milestone is None:  # made on the way to one that is asked
            return re.sub(r"[^A-Za-z0-9_ =+-]", "_", f"{title_of(step, self.titles)[:80]} {step.fingerprint[:6]}")
        if milestone.family:
            whole = f"{milestone.arm}-seed{milestone.seed}-{'fine-tuned' if milestone.role is Role.AFTER else 'model'}"
            return re.sub(r"[^A-Za-z0-9_ =+-]", "_", whole)
        made = "merged" if isinstance(step, Merging) else "tuned" if isinstance(step, FineTune) else "base"
        made = made if milestone.step is None else f"step{milestone.step}"
        name = f"s{milestone.stage}-{milestone.task}-{made}" if milestone.task else made
        whole = f"{milestone.arm}-seed{milestone.seed}-{name}" if len(self.scores) > 1 else name
        return re.sub(r"[^A-Za-z0-9_ =+-]", "_", whole)  # MLflow takes no . / : % or quotes here


def _metrics_of(point: Point) -> list[Metric]:
    return [Metric(key, value, point.time, point.step) for key, value in point.values.items()]
