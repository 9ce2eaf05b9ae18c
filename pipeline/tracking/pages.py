"""Where runs stand in MLflow, and the pages that show them next to each other.

Told by what each run left beside its records. MLflow itself is asked only for a stage that is not the last one of a finished run.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from pipeline.compare import Comparisons, Opened
from pipeline.report.run_scores import AFTER, BASE, BEFORE
from pipeline.results import read_identity
from pipeline.tracking.addresses import SERVERS
from pipeline.tracking.admission import check_readable
from pipeline.tracking.backend import open_client, reason_of, sqlite_file, sqlite_has_run, without_secrets
from pipeline.tracking.links import compare_runs, metric_page, ui_base, view_page
from pipeline.tracking.tracker import MARKER
from pipeline.tracking.views import CURVES_VIEW, STAGES_VIEW
from pipeline.tracking.writing.written import Mirrored, as_place, read_written

CHARTED = ("acc/average", "acc/held_out", "acc/stream")
"""The metrics that the chart over the stages draws, of those that the runs have."""

MOST = 12
"""Runs that a page of their own shows well; of more, the experiment's table and charts are linked."""


@dataclass(frozen=True)
class Pages:
    """Links by what they show: "compare", "chart". `runs`: those of the compare page; `lacking`: runs that no MLflow is known to hold.

    `local`: the pages are those that `python -m pipeline ui` shows.
    """

    base: str = ""
    local: bool = False
    links: dict[str, str] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    lacking: tuple[Opened, ...] = ()
    notes: tuple[str, ...] = ()


def pages_of(found: Comparisons) -> Pages:
    """The pages for what is compared; without links where they would not show all of it, and `notes` says why."""
    places = {run.directory: standings(run) for run in found.runs}
    lacking = tuple(run for run in found.runs if not places[run.directory])
    if lacking:
        names = ", ".join(run.name for run in lacking)
        return Pages(lacking=lacking, notes=(f"not in MLflow, as far as its files say: {names}",))
    shared = set.intersection(*({place.uri for place in own} for own in places.values()))
    if not shared:
        where = "; ".join(f"{run.name}: {places[run.directory][0].uri}" for run in found.runs)
        first, other = found.runs[0], found.runs[1]
        command = f"python -m pipeline sync {other.name} --workspace {other.directory.parents[1]} --tracking URI"
        note = f"the runs are in different MLflows, and no page shows them together ({where}); bring one to {first.name}'s: {command}"
        return Pages(notes=(note,))
    chosen = [next(place for place in places[run.directory] if place.uri in shared) for run in found.runs]
    uri, local = chosen[0].uri, sqlite_file(chosen[0].uri) is not None
    base, experiments = ui_base(uri), list(dict.fromkeys(place.experiment for place in chosen))
    try:
        compared = [run for opened, place in zip(found.runs, chosen, strict=True) for run in _compared(found, opened, place)]
    except Exception as error:  # whatever MLflow's client raises: the tables do not depend on it
        notes = (f"MLflow at {uri} does not say which runs show this stage ({reason_of(error)})",)
        return Pages(base, local, notes=notes)
    tracks = list(chain.from_iterable(_tracks(run, place, len(found.runs)) for run, place in zip(found.runs, chosen, strict=True)))
    links = {}
    if 1 < len(compared) <= MOST:
        links["compare"] = compare_runs(base, experiments, compared)
    elif len(experiments) == 1 and compared:
        links["compare"] = view_page(base, experiments[0], STAGES_VIEW)
    if 0 < len(tracks) <= MOST:
        links["chart"] = metric_page(base, experiments, tracks, _charted(found))
    elif len(experiments) == 1 and tracks:
        links["chart"] = view_page(base, experiments[0], CURVES_VIEW, charts=True)
    return Pages(base, local, links, tuple(compared))


def standings(run: Opened) -> list[Mirrored]:
    """Where a run is in MLflow by the files it left, the place written last first; a database that has lost it does not count."""
    identity = read_identity(run.directory)
    found = []
    written = read_written(run.directory)
    if written is not None and written.identity == identity and written.place is not None:
        found.append(written.place)
    try:
        told = json.loads((run.directory / MARKER).read_text())
        if told.pop("identity") == identity:
            found.append(as_place(told))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # none was left, or by an older version: then it is not known to be there
    there = [place for place in found if place.uri.startswith(SERVERS) or _holds(place)]
    return list({place.uri: place for place in reversed(there)}.values())[::-1]


def _holds(place: Mirrored) -> bool:
    return sqlite_file(place.uri) is None or sqlite_has_run(place.uri, place.pipeline_run)


def _tracks(run: Opened, place: Mirrored, runs: int) -> Sequence[str]:
    """The curves to draw of a run: before and after the merges; of several runs those after alone, which come second."""
    pairs = len(place.tracks) == 2 * len(run.scores) and all(score.merges for score in run.scores)
    return place.tracks[1::2] if runs > 1 and pairs else place.tracks


def _charted(found: Comparisons) -> tuple[str, ...]:
    held_out = any(score.held_out for run in found.runs for score in run.scores)
    return CHARTED if held_out else tuple(metric for metric in CHARTED if metric != "acc/held_out")


def _compared(found: Comparisons, run: Opened, place: Mirrored) -> Sequence[str]:
    """The evaluation runs of what is compared of one run: before and after its merge, or of several runs the models after it."""
    roles, alone = (BEFORE, AFTER), len(found.runs) == 1
    stage = next(each.second.stage for each in found.merges) if alone else _stage_of(found, run)
    last = not run.lacking and all(stage == len(score.stream) for score in run.scores)
    if last and len(place.compared) == 2 * len(run.scores):
        return place.compared if alone else place.compared[1::2]
    return _asked(place, stage, roles if alone else (AFTER,))


def _stage_of(found: Comparisons, run: Opened) -> int:
    sides = [found.models[0].first, *(each.second for each in found.models)]
    mine = {id(score) for score in run.scores}
    return next(each.stage for each in sides if any(id(score) in mine for score in each.runs))


def _asked(place: Mirrored, stage: int, roles: Sequence[str]) -> list[str]:
    """The evaluation runs of a stage, asked of MLflow; in the order of arms, before the merge first."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = uri if without_secrets(uri) == place.uri else place.uri
    check_readable(uri)
    client = open_client(uri)
    pipeline = client.get_run(place.pipeline_run).data.tags["mergeline.pipeline"]
    question = f"tags.`mergeline.pipeline` = '{pipeline}' and tags.`mergeline.kind` = 'evaluation' and tags.`mergeline.stage` = '{stage}'"
    found = client.search_runs([place.experiment], question, order_by=["attributes.start_time"], max_results=1000)
    if BEFORE in roles and not any(run.data.tags["mergeline.role"] == BEFORE for run in found):
        bases = f"tags.`mergeline.pipeline` = '{pipeline}' and tags.`mergeline.role` = '{BASE}'"
        found = [*client.search_runs([place.experiment], bases, max_results=1000), *found]
        roles = (BASE, AFTER)
    return [run.info.run_id for run in found if run.data.tags["mergeline.role"] in roles]
