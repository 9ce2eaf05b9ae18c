"""A pipeline whose steps are stored already, and which logs them as a run does: live points, then each step, then the end.

    python logging_pipeline.py EXPERIMENT.yaml key=value ...

It says `ready`, waits for a line, so that several begin together, and says how it ended.
"""

import sys
import time
from pathlib import Path

from pipeline.config.experiment import build
from pipeline.graph.history import read_history
from pipeline.store import Store
from pipeline.tracking.tracker import Tracker


def main(file: str, *overrides: str) -> None:
    built = build(Path(file), list(overrides))
    store = Store(built.workspace / "store")
    tracker = Tracker(built, store)
    report = built.run_directory / "report"
    report.mkdir(parents=True, exist_ok=True)
    (report / "report.md").write_text(f"# {built.name}\n")
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    tracker.start()
    for step in built.steps:
        for point in read_history(store.directory(step) / "history.jsonl"):
            tracker.point(step.key, point)
        tracker.done(step)
    tracked = tracker.finish("FINISHED")
    print(f"{time.monotonic() - began:.1f} s: {tracked}", flush=True)
    sys.exit(tracked.mirrored is None or bool(tracked.lacking))


if __name__ == "__main__":
    main(*sys.argv[1:])
