"""One arm and seed in MLflow: a run for every model that was asked, and two track runs whose step is the stage.

All carry the same metric keys (`acc/<task>`, `acc/average`, `forgetting/stream`, …), so before and after a merge lie on one chart.
Metrics carry the time of their record, so writing them again adds nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from pipeline.lineage import data_digest
from pipeline.recipes.milestone import Milestone, Role
from pipeline.report.run_scores import RunScores, StageScores, mean_with_stderr, stage_metrics
from pipeline.results import Row, run_scores, task_scores
from pipeline.step import Step, canonical
from pipeline.store import Record, Store
from pipeline.tracking.book import Book, Metric
from pipeline.tracking.usage import usage_metrics

LAYOUT = 1  # of what is written per step; a higher one has finished runs written again
COLORS = {Role.BASE: "#6b7280", Role.WITHIN: "#a3a3a3", Role.BEFORE: "#d97706", Role.AFTER: "#2563eb"}
SHADES = {
    Role.BEFORE: (COLORS[Role.BEFORE], "#b91c1c", "#db2777", "#78350f", "#eab308"),
    Role.AFTER: (COLORS[Role.AFTER], "#7c3aed", "#059669", "#0891b2", "#1e3a8a"),
}
"""Warm before the merge, cold after it; variants, arms and seeds apart as far as there are colours."""
Tags = Callable[[Mapping[str, str]], dict[str, str]]


class ScoreMirror:
    """Writes the evaluations of one arm and seed."""

    def __init__(
        self,
        book: Book,
        stream: Sequence[Milestone],
        rows: Sequence[Row],
        store: Store,
        tags: Tags,
        model: Callable[[Step], str],
        variant: str = "",
    ) -> None:
        self.book, self.stream, self.rows, self.store, self.tags, self.model = book, stream, rows, store, tags, model
        first = stream[0]
        self.place = f"{book.pipeline}/{first.arm}/{first.seed}"
        told = ", ".join(filter(None, (variant, f"{first.arm} seed {first.seed}" if first.arm else "")))
        self.prefix = f"{told}: " if told else ""
        self.weights = next((milestone.weights for milestone in stream if milestone.weights), "none")
        roles = {milestone.role for milestone in stream}
        # A track begins at the base; where that cannot be asked, as before it has the head for it, there is none.
        self.roles = [role for role in (Role.BEFORE, Role.AFTER) if Role.BASE in roles and role in roles]
        self._on_track: set[tuple[Role, int]] = set()

    def write(self, evaluation: str) -> None:
        """Mirror one evaluation, by its key, and the tracks as far as their stages are complete."""
        for milestone in self.stream:
            record = self.store.by_key(milestone.evaluation.key) if milestone.evaluation.key == evaluation else None
            if record is not None and not self.book.stamped(self._key(milestone), stamp_of(record)):
                run = self._evaluation(milestone, record)
                scores = run_scores(self.rows, self.store)
                for role in self.roles:
                    self._track_points(role, scores)
                self.book.stamp(run, stamp_of(record))

    def track_runs(self) -> list[str]:
        """The ids of the track runs."""
        found = [self.book.find(self._track_key(role)) for role in self.roles]
        return [run for run in found if run is not None]

    def last_runs(self) -> list[str]:
        """The ids of the last stage's evaluation runs, before and after the merge; without merging, the base's and the last."""
        chosen = [next(m for m in reversed(self.stream) if m.role is role) for role in self.roles]
        if len(chosen) < 2:
            chosen.insert(0, self.stream[0])
        found = [self.book.find(self._key(milestone)) for milestone in chosen]
        return [run for run in found if run is not None]

    def _key(self, milestone: Milestone) -> str:
        return f"{self.place}/{milestone.stage}/{milestone.role.value}{'' if milestone.step is None else milestone.step}"

    def _track_key(self, role: Role) -> str:
        return f"{self.place}/track/{role.value}"

    def _run(self, milestone: Milestone, started: float) -> str:
        tags = {
            "mergeline.kind": "evaluation",
            "mergeline.role": milestone.role.value,
            "mergeline.stage": str(milestone.stage),
            "mergeline.arm": milestone.arm,
            "mlflow.runColor": COLORS[milestone.role],
        }
        return self.book.run(self._key(milestone), self.prefix + self._title(milestone), self.tags(tags), started)

    def _title(self, milestone: Milestone) -> str:
        """Short, because MLflow's table cuts names: `s2 count, before merge`."""
        if milestone.family:
            return "fine-tuned" if milestone.role is Role.AFTER else "as it is"
        if milestone.role is Role.BASE:
            return "s0 base"
        if milestone.role is Role.WITHIN:
            return f"s{milestone.stage} {milestone.task}, step {milestone.step}"
        what = "tuned" if len(self.roles) == 1 else f"{milestone.role.value} merge"
        return f"s{milestone.stage} {milestone.task}, {what}"

    def _evaluation(self, milestone: Milestone, record: Record) -> str:
        run, model = self._run(milestone, record.content["started"]), self.model(milestone.model)
        finished, suite, scores = record.content["finished"], milestone.evaluation.suite, task_scores(record)
        entry, metrics = StageScores(milestone.stage, milestone.task, milestone.role.value, scores), []
        for group, members in {"average": suite.names, "held_out": suite.held_out_names, "stream": suite.stream_names}.items():
            if members:
                mean, stderr = mean_with_stderr(entry, members)
                metrics.append(Metric(f"acc/{group}", mean, finished, milestone.stage))
                metrics.append(Metric(f"acc_stderr/{group}", stderr, finished, milestone.stage))
        digests = {task.name: data_digest(canonical(task, "task")) for task in suite.tasks}
        for name in suite.names:
            asked = (name, digests[name]) if name in digests else None  # a task of another harness names no data of ours
            metrics.append(Metric(f"acc/{name}", scores[name].accuracy, finished, milestone.stage, model, asked))
            metrics.append(Metric(f"acc_stderr/{name}", scores[name].stderr, finished, milestone.stage))
        parts = sorted(scores.keys() - set(suite.names))  # of a score, as TR@1
        metrics += [Metric(f"acc/{metric_name(name)}", scores[name].accuracy, finished, milestone.stage) for name in parts]
        metrics += usage_metrics(record, milestone.stage)
        params: dict[str, Any] = {
            "role": milestone.role.value,
            "stage": milestone.stage,
            "trained": milestone.task or "-",
            "merge": {Role.BASE: "none", Role.WITHIN: "not yet", Role.BEFORE: "not yet"}.get(milestone.role, self.weights),
        }
        params |= {} if milestone.step is None else {"step": milestone.step}
        params |= {"method": milestone.family, "value": milestone.value} if milestone.family else {}
        params |= {"arm": milestone.arm, "seed": milestone.seed} if milestone.arm else {}
        self.book.describe(run, {**params, "split": suite.split.value}, {"mergeline.model_id": model, "mergeline.step": record.key})
        self.book.log(run, metrics)
        self.book.link(run, read=[model], data=[(name, digest, suite.split.value) for name, digest in digests.items()])
        self.book.end(run, "FINISHED", finished)
        return run

    def _track(self, role: Role, started: float) -> str:
        name = "fine-tuning" if self.stream[0].family else "no merge" if len(self.roles) == 1 else f"{role.value} merge"
        tags = {
            "mergeline.kind": "track",
            "mergeline.role": role.value,
            "mergeline.arm": self.stream[0].arm,
            "mlflow.runColor": SHADES[role][self._shade(role)],
        }
        return self.book.run(self._track_key(role), self.prefix + name, self.tags(tags), started)

    def _shade(self, role: Role) -> int:
        """Which shade a track has: the plain experiment the first, others one by their name."""
        return 0 if not self.prefix else 1 + int(sha256(self.prefix.encode()).hexdigest()[:8], 16) % (len(SHADES[role]) - 1)

    def _track_points(self, role: Role, scores: RunScores) -> None:
        shown = [milestone for milestone in self.stream if milestone.role in (Role.BASE, role)]
        known = [row for row in shown if any((row.stage, row.role.value) == (entry.stage, entry.role) for entry in scores.stages)]
        metrics = []
        for milestone in known:
            record = None if (role, milestone.stage) in self._on_track else self.store.by_key(milestone.evaluation.key)
            if record is not None:
                values = stage_metrics(scores, role.value, milestone.stage)
                metrics += [Metric(key, value, record.content["finished"], milestone.stage) for key, value in values.items()]
        if not metrics:
            return
        track = self._track(role, metrics[0].time)
        self.book.describe(track, {"role": role.value, "merge": self.weights, "seed": self.stream[0].seed}, {})
        self.book.log(track, metrics)
        self.book.end(track, "FINISHED" if len(known) == len(shown) else "RUNNING", metrics[-1].time)
        self._on_track |= {(role, milestone.stage) for milestone in known}


def stamp_of(record: Record) -> str:
    """What a run carries when all of this record is in it: a step that is made again has another time."""
    return f"{LAYOUT} {record.content['finished']}"


def metric_name(text: str) -> str:
    """`text` in the characters that MLflow allows in the name of a metric."""
    return re.sub(r"[^\w. /-]", "_", text.replace("@", "_at_").replace("&", "and"))
