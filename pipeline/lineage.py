"""Where a checkpoint comes from and what came of it: read from a store's records alone, so it needs neither the experiment nor MLflow.

A model is known by its step's key, by the digest of its files (a copy of the directory is found too), or by its place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
class Lineage:
    """All records of a store by key, each with what it read, in the order of its fields."""

    records: Mapping[str, Record]
    parents: Mapping[str, tuple[Parent, ...]]

    def makes_model(self, key: str) -> bool:
        """Whether a step made a checkpoint (and did not only measure one)."""
        return key in self.records and self.records[key].checkpoint is not None

    def above(self, key: str) -> tuple[Parent, ...]:
        """The models that a model was made from; what helped to choose or weigh them (`helpers`) is not among them."""
        return tuple(parent for parent in self.parents.get(key, ()) if self.makes_model(parent.key) or parent.key not in self.records)

    def helpers(self, key: str) -> tuple[Parent, ...]:
        """What was measured on models to make this one: a search, Fisher information, Grams."""
        return tuple(parent for parent in self.parents.get(key, ()) if parent not in self.above(key))

    def below(self, key: str) -> tuple[Parent, ...]:
        """The models that were made from a model, by the time they were made; each with the role that it had in them."""
        return self._children.get(key, ())

    def scores(self, key: str) -> float | None:
        """The mean over all tasks of the newest evaluation of a model, on the test split if there is one; None where it was not asked."""
        asked = [self.records[name] for name in self._asked.get(key, ())]
        if not asked:
            return None
        newest = max(asked, key=lambda record: (record.content["details"].get("split") == "test", record.content["finished"]))
        names = [name for name in newest.metrics if not any(name.startswith(f"{other}/") for other in newest.metrics)]
        return sum(newest.metrics[name]["accuracy"] for name in names) / len(names)

    @cached_property
    def _children(self) -> dict[str, tuple[Parent, ...]]:
        found: dict[str, list[Parent]] = {}
        for child in sorted(filter(self.makes_model, self.records), key=lambda key: (self.records[key].content["finished"], key)):
            for parent in self.above(child):
                found.setdefault(parent.key, []).append(Parent(parent.role, child))
        return {key: tuple(children) for key, children in found.items()}

    @cached_property
    def _asked(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, record in self.records.items():
            if record.content["kind"] in ASKING:
                for parent in self.parents[name]:
                    found.setdefault(parent.key, []).append(name)
        return found


def read_lineage(root: Path) -> Lineage:
    """The lineage of everything in a store; InputError where there is none."""
    store = Store(root)
    keys = sorted(path.parent.name for path in store.root.glob("*/record.json"))
    if not keys:
        raise InputError(f"{store.root} holds no finished step; name the workspace of a run with --workspace")
    records = {key: record for key in keys if (record := store.by_key(key)) is not None}
    return Lineage(records, {key: parents_of(record) for key, record in records.items()})


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
    models = {key: record for key, record in lineage.records.items() if record.checkpoint is not None}
    found = [key for key, record in models.items() if key.startswith(text) or (len(wanted) >= 6 and record.digest.startswith(wanted))]
    if len(found) == 1 or text in found:
        return text if text in found else found[0]
    if found:
        raise InputError(f"{text!r} begins the names of {len(found)} models, e.g. {found[0]} and {found[1]}; write more of it")
    close = nearest(text, list(models))
    advice = f"did you mean {close!r}? " if close else ""
    raise InputError(f"no model of this store is called {text!r}; {advice}give a step's key, sha256:… or a directory")


def by_place(lineage: Lineage, place: Path) -> str:
    """The key of the step whose checkpoint lies at `place`, or has the same files."""
    for key, record in lineage.records.items():
        if record.checkpoint is not None and record.checkpoint.exists() and record.checkpoint.resolve() == place:
            return key
    if not (place / "config.json").is_file():
        raise InputError(f"{place} has no config.json, so it is no checkpoint; name a checkpoint's directory, a step's key or sha256:…")
    digest = manifest_digest(directory_manifest(place))
    for key, record in lineage.records.items():
        if record.checkpoint is not None and record.digest == digest:
            return key
    raise InputError(f"{place} (sha256:{digest[:SHOWN]}) is no checkpoint of this store, nor a copy of one; name its --workspace")


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
    told = ", ".join(f"{name} {value}" for name, value in details.items() if isinstance(value, str | int | float) and value != "")
    return f"{kind}: {told}" if told else kind
