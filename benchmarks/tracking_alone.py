"""The processes of the part "tracking".

    python -m benchmarks.tracking_alone stages DIRECTORY ROUNDS KIND=URI...   stages on one Ray, kinds in turn, `none` among them
    python -m benchmarks.tracking_alone journal DIRECTORY POINTS EXPERIMENT   a finished run, and so many points more in its journal

What they print last is JSON: seconds; or the run's name and workspace. A stage is from the start of its fine-tuning to the end of its last
evaluation, by the steps' records: what tracking takes of the machine meanwhile is in it. The run's end is from there, without the report.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from pipeline import runner
from pipeline.config.experiment import Built, build
from pipeline.graph.history import HistoryLog
from pipeline.step import Step
from pipeline.store import Store
from pipeline.tracking.tracker import Tracked, Tracker
from pipeline.tracking.writing.journal import Event, Journal, Kind, journal_file

EXPERIMENT = """\
recipe: wise_ft
name: tracked
base: {pretrain: digits_llava, settings: {tower_steps: 3, language_steps: 3, most_samples: 40, threads: 1}}
tasks: [parity]
held_out: [name]
alpha: 0.5
train: {samples: 640, max_steps: 200, batch_size: 32, log_steps: 2, learning_rate: 1e-3}
evaluate: {samples: 300}
merge: {actors: 0}
"""
FIRST = "first"
"""The workspace of a run that warms Ray's processes up and leaves the base to all others."""


class Untracked(Tracker):
    """The driver's end of tracking with nothing behind it."""

    def start(self) -> None:
        """Nothing to begin."""

    def point(self, key: str, point: Any) -> None:
        """Heard by nobody."""

    def done(self, step: Step) -> None:
        """Nobody is told."""

    def finish(self, *_: Any) -> Tracked:
        """Nothing to wait for."""
        return Tracked(None)


@dataclass
class Timed:
    """`finish` of a tracker, timed."""

    finish: Callable[..., Any]
    seconds: float = 0.0

    def __call__(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        outcome = self.finish(*arguments)
        self.seconds = time.perf_counter() - began
        return outcome


def built_in(home: Path, name: str, *overrides: str) -> Built:
    """The experiment, in a workspace of its own."""
    file = home / "tracked.yaml"
    file.write_text(EXPERIMENT)
    return build(file, [f"workspace={home / name}", *overrides])


def stages(home: Path, rounds: int, addresses: dict[str, str]) -> dict[str, list[dict[str, float]]]:
    """Kind -> the seconds of its stages, in the order of the rounds."""
    from pipeline.graph.cluster import connected

    kinds = ["none", *addresses]
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    digests = set()
    shutil.rmtree(home / FIRST, ignore_errors=True)
    with connected(cpus=1):
        stage(built_in(home, FIRST, "tracking.usage=0"), Untracked)
        for number in range(rounds):
            first = number % len(kinds)
            for kind in (*kinds[first:], *kinds[:first]):
                told = ["tracking.usage=0"]
                if kind in addresses:
                    told = [f"tracking.uri={addresses[kind]}", f"tracking.experiment={kind}-{number}"]
                seconds, digest = stage(with_base(home, "turn", *told), Tracker if kind in addresses else Untracked)
                found[kind].append(seconds)
                digests.add(digest)
    if len(digests) != 1:
        raise RuntimeError(f"the stages ended with {len(digests)} different models; they did not do the same work")
    return found


def with_base(home: Path, name: str, *overrides: str) -> Built:
    """The experiment in a workspace that holds the base and what it was asked, and nothing of the stage."""
    shutil.rmtree(home / name, ignore_errors=True)
    built = built_in(home, name, *overrides)
    base = built.milestones[0]
    for step in (base.model, base.evaluation):
        shutil.copytree(home / FIRST / "store" / step.key, home / name / "store" / step.key)
    return built


def stage(built: Built, tracker: type[Tracker]) -> tuple[dict[str, float], str]:
    """Run what is missing; the seconds of the stage and of the wait at the end, and the digest of the model it ends with."""
    timed: list[Timed] = []

    def made(*arguments: Any) -> Tracker:
        one = tracker(*arguments)
        timed.append(Timed(one.finish))
        setattr(one, "finish", timed[0])  # noqa: B010 (for mypy)
        return one

    with patch.object(runner, "Tracker", made), open(os.devnull, "w") as nowhere:
        finished = runner.run(built, Console(file=nowhere), cpus=1)
    if finished.lacking:
        raise RuntimeError(finished.lacking)
    store = Store(built.workspace / "store")
    base = built.milestones[0]
    records = [store.by_key(step.key) for step in built.steps if step.key not in (base.model.key, base.evaluation.key)]
    times = [(record.content["started"], record.content["finished"]) for record in records if record is not None]
    seconds = max(end for _, end in times) - min(start for start, _ in times)
    last = store.by_key(built.milestones[-1].model.key)
    return {"stage": seconds, "end": timed[0].seconds}, "" if last is None else last.digest


def journal(home: Path, points: int, name: str) -> dict[str, str]:
    """A copy of the finished run under another experiment's name, with `points` more values, two to each line of its fine-tuning."""
    workspace = home / "replay"
    shutil.rmtree(workspace, ignore_errors=True)
    shutil.copytree(home / FIRST, workspace, symlinks=True)
    built = built_in(home, "replay", f"tracking.experiment={name}")
    tune = next(step for step in built.steps if step.kind == "finetune")
    place, finished = workspace / "store" / tune.key, time.time()
    log = HistoryLog(place / "history.jsonl", tune.key)
    for number in range(points // 2):
        log(1000 + number, {"train/loss": 1 / (1 + number), "train/learning_rate": 1e-3})
    known = [] if log.known is None else list(log.known.values())
    shutil.rmtree(journal_file(built.run_directory).parent, ignore_errors=True)
    built.run_directory.mkdir(parents=True, exist_ok=True)
    (built.run_directory / "experiment.yaml").write_text(json.dumps(built.resolved))
    events = [Event(Kind.OPENED, finished, identity=built.identity)]
    events += [Event(Kind.POINT, point.time, tune.key, point.step, point.values) for point in known]
    events += [Event(Kind.DONE, finished, step.key) for step in built.steps]
    written = Journal(journal_file(built.run_directory))
    written.append([*events, Event(Kind.CLOSED, finished, status="FINISHED")])
    written.close()
    return {"name": built.name, "workspace": str(workspace)}


def main(task: str, *arguments: str) -> None:
    """Print what the arguments ask for."""
    home = Path(arguments[0])
    if task == "stages":
        addresses = dict(each.split("=", 1) for each in arguments[2:])
        told: Any = stages(home, int(arguments[1]), addresses)
    else:
        told = journal(home, int(arguments[1]), arguments[2])
    print(json.dumps(told))


if __name__ == "__main__":
    from benchmarks.tracking_alone import main as entry  # so that workers know the steps by a name that they can import

    entry(*sys.argv[1:])
