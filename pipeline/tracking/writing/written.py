"""What a driver and the process that writes MLflow for it tell each other: which run is to be written, and how far it is.

How far is left beside the journal, so that it outlives both.

A later writer goes on from `offset`, if it writes the same experiment to the same MLflow and that still knows the run.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundation.files import write_atomic, write_json_atomic
from pipeline.tracking.writing.journal import ROOM

WRITTEN_FILE, REFUSED_FILE = "written.json", "refused.jsonl"


@dataclass(frozen=True)
class Mirrored:
    """Where a run stands in MLflow; `uri` without what only its owner may know."""

    uri: str
    experiment: str
    pipeline_run: str
    compared: tuple[str, ...]  # the last stage's evaluation before and after its merge
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class Wrote:
    """What one writer made: runs, models, and points sent (those that MLflow held already included)."""

    runs: int = 0
    models: int = 0
    points: int = 0


@dataclass(frozen=True)
class Written:
    """`session` is the writer's; `place` is there once it has come to the end of the journal's last, closed attempt and all is written."""

    uri: str
    identity: str
    offset: int = 0
    session: str = ""
    trouble: str = ""
    refused: int = 0
    wrote: Wrote = Wrote()
    place: Mirrored | None = None


@dataclass(frozen=True)
class Job:
    """Which run is to be written where. `whole`: from the first event on, whatever an earlier writer noted."""

    run_directory: str
    session: str
    uri: str | None = None
    whole: bool = False

    def line(self) -> bytes:
        """The job as it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"


def read_written(run_directory: Path) -> Written | None:
    """What the last writer left; None where there was none, or a file that is none of ours."""
    try:
        told = json.loads((run_directory / ROOM / WRITTEN_FILE).read_text())
        place = told.pop("place")
        found = Written(**{**told, "wrote": Wrote(**told["wrote"])}, place=None if place is None else as_place(place))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    texts = (found.uri, found.identity, found.session, found.trouble)
    sound = all(isinstance(text, str) for text in texts) and type(found.offset) is int and found.offset >= 0
    return found if sound and type(found.refused) is int else None


def as_place(told: dict[str, Any]) -> Mirrored:
    """Where a run stands, as a file tells it; TypeError, KeyError or ValueError where it does not."""
    lists = {name: tuple(told[name]) for name in ("compared", "tracks")}
    texts = [told["uri"], told["experiment"], told["pipeline_run"], *lists["compared"], *lists["tracks"]]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("an address and ids are texts")
    return Mirrored(**{**told, **lists})


def write_written(run_directory: Path, written: Written) -> None:
    """Leave it, atomically."""
    write_json_atomic(run_directory / ROOM / WRITTEN_FILE, asdict(written))


def read_refused(run_directory: Path) -> dict[str, str]:
    """What MLflow refused for good -> why."""
    path = run_directory / ROOM / REFUSED_FILE
    found = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            found[str(entry["what"])] = str(entry["why"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # damaged: MLflow refuses it again
    return found


def write_refused(run_directory: Path, refused: dict[str, str]) -> None:
    """Leave what MLflow refused; no file where it refused nothing."""
    path = run_directory / ROOM / REFUSED_FILE
    if refused:
        write_atomic(path, "".join(json.dumps({"what": what, "why": why}) + "\n" for what, why in refused.items()))
    else:
        path.unlink(missing_ok=True)
