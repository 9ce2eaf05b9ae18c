"""The examination: which questions go to the nodes, in which order, and the findings that come of the answers."""

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.doctor.facts import Facts
from pipeline.doctor.findings import (
    Finding,
    judge,
    judge_clocks,
    judge_free,
    judge_gpus,
    judge_locks,
    judge_rename,
    judge_seen,
    judge_shared_memory,
    judge_tokens,
    judge_versions,
    judge_workspace,
)
from pipeline.doctor.nodes import START_SECONDS, Nodes, offset
from pipeline.doctor.objects import Told, judge_access, judge_conditions, judge_package, judge_removal, judge_seen_at_once

SECONDS = 20.0
"""For an answer of a node that has answered before."""
SEEN_SECONDS = 10.0
"""A file that one node wrote is to be seen by the others within these; NFS keeps what it knows of a directory for some seconds."""
STORE_SECONDS = 180.0
"""For a node's part with an object store: a file there and back, over a slow line."""
WATCH_SECONDS = 0.5
CLOCK_TRIES = 3
MAKER = "this machine"
"""Where the directory for the probes is made."""


@contextmanager
def probe_directory(workspace: Path) -> Iterator[Path]:
    """A directory in the workspace for the nodes to write in, gone at the end; not made where the workspace is not there."""
    place = workspace / f".doctor-{uuid.uuid4().hex[:12]}"
    if workspace.is_dir():
        place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def examine(
    nodes: Nodes, workspace: Path, needed: float, resources: Mapping[str, Mapping[str, float]], fix: bool, uri: str | None = None
) -> list[Finding]:
    """All findings about `nodes`. `resources`: what Ray counts on each, empty without Ray; `fix`: close open token files first.

    `uri`: the object store that they share, where they share no file system.
    """
    every = list(nodes.names)
    if fix:
        nodes.ask(dict.fromkeys(nodes.names, ("secure",)), START_SECONDS)
    clustered = bool(resources)
    described = nodes.names if clustered else nodes.names[:1]  # several processes of one machine have the same to tell
    facts: dict[str, Facts] = nodes.ask(dict.fromkeys(described, ("facts", uri is not None)), START_SECONDS)
    stores = {name: each.get("object_store_memory", 0.0) for name, each in resources.items()}
    counted = {name: each.get("GPU", 0.0) for name, each in resources.items()}
    findings = [
        judge_workspace(facts, str(workspace)),
        *(_files(nodes, clustered) if uri is None and any(not fact.workspace for fact in facts.values()) else []),
        *(_store(nodes, uri) if uri is not None else []),
        judge_free(facts, needed),
        judge_shared_memory(facts, stores),
        *judge_versions(facts),
        *([_clocks(nodes)] if clustered else []),
        judge_gpus(facts, counted),
        *judge_tokens(facts, clustered),
    ]
    remedy = "look at Ray's logs of that node; is mergeline installed there (pip install -c constraints.txt -e .)?"
    answering = judge("nodes", nodes.lost, f"{len(every)} answer", remedy)
    return [answering, *findings] if clustered or nodes.lost else findings


def _files(nodes: Nodes, clustered: bool) -> list[Finding]:
    """Files seen, replaced and locked; only among nodes that see each other's files, once it is said who does not, and not by one alone."""
    wrote = nodes.ask(dict.fromkeys(nodes.names, ("write",)), SECONDS)
    seeing = [name for name in nodes.names if wrote.get(name)]
    asked = dict.fromkeys(seeing, ("unseen", seeing, SEEN_SECONDS))
    unseen = nodes.ask(asked, SEEN_SECONDS + SECONDS) | {name: seeing or [MAKER] for name, there in wrote.items() if not there}
    findings = [judge_seen(unseen, len(wrote))] if clustered or not seeing else []
    alike = [name for name in seeing if not unseen.get(name, [MAKER])]
    if len(alike) > 1:
        findings += [_rename(nodes, alike), _locks(nodes, alike)]
    return findings


def _rename(nodes: Nodes, names: list[str]) -> Finding:
    """The first replaces a file over and over while all others read it."""
    first, *others = names
    nodes.ask({first: ("swap", 0.01)}, SECONDS)
    questions: dict[str, Any] = {first: ("swap", WATCH_SECONDS), **dict.fromkeys(others, ("watch", WATCH_SECONDS))}
    answers = nodes.ask(questions, SECONDS)
    watched = {name: answers[name] for name in others if name in answers}
    if not answers.get(first, False):
        watched[first] = (0, 1)
    return judge_rename(watched)


def _locks(nodes: Nodes, names: list[str]) -> Finding:
    """The first holds the lock while all others try it, one after another; then the last may have it."""
    first, *others = names
    held = nodes.ask({first: ("hold",)}, SECONDS).get(first, False)
    refused = {}
    for name in others:
        refused.update(nodes.ask({name: ("refused",)}, SECONDS))
    nodes.ask({first: ("release",)}, SECONDS)
    last = others[-1]
    free = not nodes.ask({last: ("refused",)}, SECONDS).get(last, True)
    return judge_locks(first, refused, held and free)


def _store(nodes: Nodes, uri: str) -> list[Finding]:
    """What every node finds by itself; then, of those that can use the store, whether one alone wins, and all see what each wrote."""
    place = f"doctor/{uuid.uuid4().hex[:12]}"
    told: dict[str, Told] = nodes.ask(dict.fromkeys(nodes.names, ("try_store", uri, place)), STORE_SECONDS)
    findings = [judge_package(told)]
    able = {name: each for name, each in told.items() if each.package}
    well = {name: each for name, each in able.items() if not each.wrong}
    if able:
        findings.append(judge_access(able, uri))
    if well:
        missed = nodes.ask(dict.fromkeys(well, ("store_unseen", uri, place, list(well))), STORE_SECONDS)
        won = nodes.ask(dict.fromkeys(well, ("store_race", uri, place)), STORE_SECONDS)
        findings += [judge_conditions(well, [name for name, first in won.items() if first]), judge_seen_at_once(missed)]
        left = nodes.ask({next(iter(well)): ("store_clear", uri, place)}, STORE_SECONDS)
        findings += judge_removal(left)
    return findings


def _clocks(nodes: Nodes) -> Finding:
    """Each node's clock against this machine's, one after another."""
    offsets = {}
    for name in list(nodes.names):

        def ask(name: str = name) -> float:
            return float(nodes.ask({name: ("now",)}, SECONDS).get(name, float("nan")))

        found = offset(ask, CLOCK_TRIES)
        if name in nodes.names:  # it has answered every time
            offsets[name] = found
    return judge_clocks(offsets)
