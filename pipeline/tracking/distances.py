"""A distance measurement in MLflow: one run of kind `distance`, with its metrics, its curves over depth, and its files."""

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from foundation.errors import ResourceError
from foundation.files import file_name
from mergers.distances.measure import Distances
from mergers.distances.metrics import METRICS
from pipeline.report.distances import as_json, write_distances

KIND = "distance"


def log_distances(found: Distances, uri: str, experiment: str, workspace: Path) -> str:
    """Write the run and give its id; the same measurement, logged again, is the same run. ResourceError if MLflow cannot be written.

    `distance/l2` and so on are those of the whole; with several pairs `distance/a-b/l2`. Below it, by tower and part, the step is the
    layer: `distance/relative_l2/mlp`.
    """
    from pipeline.tracking.book import Book

    digest = hashlib.sha256(json.dumps(as_json(found), sort_keys=True).encode()).hexdigest()
    now = time.time()
    try:
        book = Book(uri, experiment, workspace / "mlartifacts", KIND)
        name = f"distance of {', '.join(found.sources)}" + (f" from {found.base}" if found.base else "")
        run = book.run(f"{KIND}/{digest}", name, {"mergeline.kind": KIND, "mergeline.digest": f"sha256:{digest}"}, now)
        told = {"sources": ", ".join(found.sources), "base": found.base or "-", "density": found.density}
        book.describe(run, told, {})
        book.log(run, metrics_of(found, now))
        with tempfile.TemporaryDirectory() as scratch:
            for path in write_distances(found, Path(scratch)):
                book.client.log_artifact(run, str(path), KIND)
        book.end(run, "FINISHED", now)
    except Exception as error:  # the client raises many unrelated kinds; all mean: not written
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(f"MLflow at {uri} could not be written ({reason}); run again without --mlflow, or mend the address") from error
    return run


def metrics_of(found: Distances, now: float) -> list[Any]:
    """Totals at step 0, and each part of the layers at the step of its layer."""
    from pipeline.tracking.book import Metric

    points = []
    for pair in found.pairs:
        room = f"{KIND}/{file_name(pair[0])}-{file_name(pair[1])}" if len(found.pairs) > 1 else KIND
        points += [
            Metric(f"{room}/{name}", value, now) for name, value in found.total(pair).items() if name in METRICS and value is not None
        ]
        for group in found.groups:
            if group.layer < 0:
                continue
            part = "-".join(file_name(word) for word in (group.tower, group.part) if word)
            measured = found.group(pair, group)
            points += [
                Metric(f"{room}/{name}/{part}", measured[name] or 0.0, now, group.layer) for name in METRICS if measured[name] is not None
            ]
    return points
