"""Where a checkpoint comes from and what came of it, as plain data: models, and which was made from which as what.

Read from a store's records alone, without the experiment (`read_lineage`), or from MLflow alone (`pipeline/tracking/ancestry.py`). A model
is known by its step's key, by the digest of its files (a copy of the directory is found too), or by its place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluators.scores import whole_tasks
from foundation.errors import InputError
from foundation.files import directory_manifest, manifest_digest
from foundation.hints import nearest
from pipeline.store import Record, Store

SHOWN = 12
"""Characters of a digest that people are shown."""

ASKING = ("evaluate", "ask")
"""The kinds of steps that score a model."""


@dataclass(frozen=True)
class Parent:
    """A step that another one read, and as what: "previous", "tuned", "start", "search"."""

    role: str
    key: str


@dataclass(frozen=True)
class Model:
    """One checkpoint: how it was made and from what, SHA-256 over its files, where it lies, when it was done, by which code.

    `helpers`: what was measured to make it (a search, Fisher information). `score`: the mean over all tasks of its newest evaluation, on
    the test split if there is one; None where it was not asked.
    """

    key: str
    how: str
    parents: tuple[Parent, ...]
    helpers: tuple[Parent, ...]
    digest: str
    place: str
    finished: float
    commit: str
    score: float | None = None

    @property
    def kind(self) -> str:
        """The kind of step that made it."""
        return self.key.partition("-")[0]


@dataclass(frozen=True)
class Lineage:
    """Models by key."""

    models: Mapping[str, Model]

    def above(self, key: str) -> tuple[Parent, ...]:
        """The models that a model was made from, in the order of its step's fields."""
        return self.models[key].parents

    def below(self, key: str) -> tuple[Parent, ...]:
        """The models that were made from a model, by the time they were made; each with the role that it had in them."""
        return self._children.get(key, ())

    @cached_property
    def _children(self) -> dict[str, tuple[Parent, ...]]:
        found: dict[str, list[Parent]] = {}
        for child in sorted(self.models.values(), key=lambda model: (model.finished, model.key)):
            for parent in child.parents:
                found.setdefault(parent.key, []).append(Parent(parent.role, child.key))
        return {key: tuple(children) for key, children in found.items()}


def read_lineage(root: Path) -> Lineage:
    """The lineage of everything in a store; InputError where there is none."""
    store = Store(root)
    records = {path.parent.name: store.by_key(path.parent.name) for path in sorted(store.root.glob("*/record.json"))}
    known = {key: record for key, record in records.items() if record is not None}
    if not known:
        raise InputError(f"{store.root} holds no finished step; name the workspace of a run with --workspace")
    asked = scores_of(known)
    return Lineage({key: model_of(record, known, asked.get(key)) for key, record in known.items() if record.checkpoint is not None})


def model_of(record: Record, known: Mapping[str, Record], score: float | None) -> Model:
    """A record as a model. What it read that is not `known` any more counts as a model."""
    read = parents_of(record)
    made = tuple(each for each in read if each.key not in known or known[each.key].checkpoint is not None)
    helpers = tuple(each for each in read if each not in made)
    content = record.content
    commit = content["versions"].get("commit", "unknown")
    return Model(record.key, how_made(record), made, helpers, record.digest, str(record.checkpoint), content["finished"], commit, score)


def scores_of(known: Mapping[str, Record]) -> dict[str, float]:
    """Key -> mean score of every model that was asked."""
    newest: dict[str, Record] = {}
    for record in sorted(known.values(), key=lambda record: (record.content["details"].get("split") == "test", record.content["finished"])):
        if record.content["kind"] in ASKING:
            newest |= {parent.key: record for parent in parents_of(record)}
    return {key: mean_score({name: score["accuracy"] for name, score in record.metrics.items()}) for key, record in newest.items()}


def mean_score(scores: Mapping[str, float]) -> float:
    """The mean over the tasks; their measures and groups do not count beside them."""
    whole = whole_tasks(scores)
    return sum(scores[name] for name in whole) / len(whole)


def parents_of(record: Record) -> tuple[Parent, ...]:
    """What a step read, by its record: the role is the source's name where it has one, else the field's."""
    keys = {key.rpartition("-")[2]: key for key in record.content["inputs"]}
    found = dict.fromkeys(
        Parent(role, keys[fingerprint[:24]])
        for field, value in record.content["spec"]["fields"].items()
        for role, fingerprint in _steps_in(value, field)
        if fingerprint[:24] in keys
    )
    return tuple(found)


def _steps_in(value: Any, role: str) -> Iterator[tuple[str, str]]:
    """(role, fingerprint) of every step in a value of a record's spec: mappings are lists of [name, value] there."""
    if isinstance(value, dict):
        if set(value) == {"step"}:
            yield role, value["step"]
        else:
            for name, item in value.items():
                yield from _steps_in(item, name)
    elif isinstance(value, list):
        for item in value:
            named = isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)
            yield from _steps_in(item[1], item[0]) if named else _steps_in(item, role)


def find_model(lineage: Lineage, text: str) -> str:
    """The key of the step that made the model `text` names: a key or the beginning of one, a digest, or a directory.

    A directory outside the store is known by the digest of its files. Raises InputError where nothing, or more than one model, is meant.
    """
    place = Path(text).expanduser()
    if place.is_dir():
        return by_place(lineage, place.resolve())
    wanted = text.removeprefix("sha256:")
    found = [key for key, model in lineage.models.items() if key.startswith(text) or (len(wanted) >= 6 and model.digest.startswith(wanted))]
    if len(found) == 1 or text in found:
        return text if text in found else found[0]
    if found:
        raise InputError(f"{text!r} begins the names of {len(found)} models, e.g. {found[0]} and {found[1]}; write more of it")
    close = nearest(text, list(lineage.models))
    advice = f"did you mean {close!r}? " if close else ""
    raise InputError(f"no model here is called {text!r}; {advice}give a step's key, sha256:… or a checkpoint's directory")


def by_place(lineage: Lineage, place: Path) -> str:
    """The key of the step whose checkpoint lies at `place`, or has the same files."""
    for model in lineage.models.values():
        if Path(model.place).exists() and Path(model.place).resolve() == place:
            return model.key
    if not (place / "config.json").is_file():
        raise InputError(f"{place} has no config.json, so it is no checkpoint; name a checkpoint's directory, a step's key or sha256:…")
    digest = manifest_digest(directory_manifest(place))
    for model in lineage.models.values():
        if model.digest == digest:
            return model.key
    raise InputError(f"{place} (sha256:{digest[:SHOWN]}) is no checkpoint that is known here, nor a copy of one; name its --workspace")


def how_made(record: Record) -> str:
    """How a model was made, in a line: the method with its weights, or the data, the parts and the seed."""
    details, kind = record.content["details"], record.content["kind"]
    if "sources" in details:
        roles = ", ".join(f"{name} {role}" for name, role in details["sources"].items())
        return f"merged by {details.get('method', kind)}: {roles}"
    if "task" in details and "trained_on" in details:
        length = f"{details['max_steps']} steps" if details.get("max_steps") else f"{details.get('epochs', 1):g} epochs"
        told = [" + ".join(details["trained_on"]), length, f"rate {details['learning_rate']:g}", f"seed {details.get('seed', '?')}"]
        strategy = details.get("strategy", "fine_tuning")
        return f"learned {details['task']}: {', '.join([*told, *([strategy] if strategy != 'fine_tuning' else [])])}"
    if "sets" in details and "objectives" in details:
        return f"learned {', '.join(details['objectives'])} on {', '.join(details['sets'])}, seed {details.get('seed', '?')}"
    if kind == "pretrained":
        return f"was there before: {details.get('place', '')}" + (f" at {details['commit'][:SHOWN]}" if details.get("commit") else "")
    if kind == "chosen":
        return f"chosen among {len(details['values'])} by {details['by']}: {details['picked']}"
    rest = ", ".join(f"{name} {value}" for name, value in details.items() if isinstance(value, str | int | float) and value != "")
    return f"{kind}: {rest}" if rest else kind
