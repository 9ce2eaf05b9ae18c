"""Where a checkpoint comes from and what came of it, as plain data: models, which was made from which as what, and from which data.

Read from a store's records alone, without the experiment (`read_lineage`), or from MLflow alone (`pipeline/tracking/ancestry.py`). Which
model a text names is found in `pipeline/lineage_names.py`.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluators.scores import whole_tasks
from foundation.errors import InputError
from pipeline.step import canonical
from pipeline.store import Record, Store
from tasks.digits import DigitsTask

SHOWN = 12
"""Characters of a digest that people are shown."""

ASKING = ("evaluate", "ask")
"""The kinds of steps that score a model."""

LEARNED, REHEARSED, MEASURED = "learned", "rehearsed", "measured"
USES = {"task": LEARNED, "sets": LEARNED, "texts": LEARNED, "images": LEARNED, "earlier": REHEARSED}
"""Field of a step that learns or measures -> what the data in it are for."""


@dataclass(frozen=True)
class Parent:
    """A step that another one read, and as what: "previous", "tuned", "start", "search"."""

    role: str
    key: str


@dataclass(frozen=True)
class Data:
    """A data set that a model rests on: its name, a digest of its identity (as MLflow carries it), and what it was for.

    `use`: learned, rehearsed beside what was learned, or measured (statistics by which a merge weighs).
    """

    name: str
    digest: str
    use: str

    @property
    def said(self) -> str:
        """Its name, and what it was for where that was not to learn."""
        return self.name if self.use == LEARNED else f"{self.name} ({self.use})"


@dataclass(frozen=True)
class Model:
    """One checkpoint: how it was made and from what, SHA-256 over its files, where it lies, when it was done, by which code.

    `how` tells it in a line, `method`, `weights` (role -> weight), `data` and `seed` tell it to programs. `helpers`: what was measured to
    make it (a search, Fisher information). `release` and `commit` are the code's. `score`: the mean over all tasks of its newest
    evaluation, on the test split if there is one; None where it was not asked.
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
    data: tuple[Data, ...] = ()
    method: str = ""
    weights: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    release: str = "unknown"

    @property
    def kind(self) -> str:
        """The kind of step that made it."""
        return self.key.partition("-")[0]

    @property
    def code(self) -> str:
        """The version of the code that made it: the commit, with a + where files differed from it, else the release."""
        changed = "+" if self.commit.endswith("+") else ""
        return self.commit.removesuffix("+")[:SHOWN] + changed if self.commit != "unknown" else self.release


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

    def learners(self, name: str, digests: Collection[str] = ()) -> tuple[Parent, ...]:
        """The models that rest on the data set `name` themselves (of these digests, if given), by time; each with what it was for."""
        ordered = sorted(self.models.values(), key=lambda model: (model.finished, model.key))
        meant = {
            model.key: [each for each in model.data if each.name == name and each.digest in (digests or (each.digest,))]
            for model in ordered
        }
        return tuple(Parent(", ".join(dict.fromkeys(each.use for each in found)), key) for key, found in meant.items() if found)

    def data_sets(self) -> dict[str, tuple[str, ...]]:
        """Name -> digests of every data set that a model rests on."""
        found: dict[str, dict[str, None]] = {}
        for _, model in sorted(self.models.items()):
            for each in model.data:
                found.setdefault(each.name, {})[each.digest] = None
        return {name: tuple(digests) for name, digests in sorted(found.items())}

    @cached_property
    def _children(self) -> dict[str, tuple[Parent, ...]]:
        found: dict[str, list[Parent]] = {}
        for child in sorted(self.models.values(), key=lambda model: (model.finished, model.key)):
            for parent in child.parents:
                found.setdefault(parent.key, []).append(Parent(parent.role, child.key))
        return {key: tuple(children) for key, children in found.items()}


def reached(lineage: Lineage, key: str, down: bool) -> list[str]:
    """`key` and all that it rests on (or that rests on it), each once; what is not known any more is left out."""
    found, waiting = {key: None}, [key]
    while waiting:
        at = waiting.pop()
        for each in lineage.below(at) if down else lineage.above(at):
            if each.key not in found and each.key in lineage.models:
                found[each.key] = None
                waiting.append(each.key)
    return list(found)


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
    details, versions = content["details"], content["versions"]
    measured = [Data(each.name, each.digest, MEASURED) for helper in helpers for each in data_of(known[helper.key])]
    return Model(
        key=record.key,
        how=how_made(record),
        parents=made,
        helpers=helpers,
        digest=record.digest,
        place=str(record.checkpoint),
        finished=content["finished"],
        commit=versions.get("commit", "unknown"),
        score=score,
        data=tuple(dict.fromkeys([*data_of(record), *measured])),
        method=method_of(record),
        weights=tuple(sorted(details.get("sources", {}).items())),
        seed=details.get("seed"),
        release=versions.get("mergeline", "unknown"),
    )


def data_of(record: Record) -> tuple[Data, ...]:
    """The data that a step learned from or measured on, by its record: of a mixture each of its tasks. A question asked is none of them."""
    fields = record.content["spec"]["fields"]
    if record.content["kind"] in (*ASKING, "search"):
        return ()
    if isinstance(recipe := fields.get("recipe"), dict) and recipe.get("class") == "DigitsPretraining":
        tasks = (DigitsTask(name, data_seed=fields["seed"]) for name, _ in recipe["samples"])
        return tuple(Data(task.name, data_digest(canonical(task, "task")), LEARNED) for task in tasks)
    found = dict.fromkeys(
        Data(_data_name(each), data_digest(each), use) for field, use in USES.items() for each in _sets_in(fields.get(field))
    )
    return tuple(found)


def data_digest(told: Any) -> str:
    """The identity of a data set, as a record tells it, in the 32 characters that MLflow allows for a data set's digest."""
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def _sets_in(value: Any) -> Iterator[dict[str, Any]]:
    """The data sets in a field of a record's spec; of a mixture those that it mixes."""
    if isinstance(value, list):
        for each in value:
            yield from _sets_in(each)
    elif isinstance(value, dict) and "class" in value:
        yield from _sets_in(value["tasks"]) if value["class"] == "MixedTask" else [value]


def _data_name(told: Mapping[str, Any]) -> str:
    """What a data set is called: its name, else its benchmark, else its class."""
    return str(next((told[field] for field in ("name", "benchmark") if isinstance(told.get(field), str)), told["class"]))


def scores_of(known: Mapping[str, Record]) -> dict[str, float]:
    """Key -> mean score of every model that was asked."""
    newest: dict[str, Record] = {}
    for record in sorted(known.values(), key=lambda record: (record.content["details"].get("split") == "test", record.content["finished"])):
        if record.content["kind"] in ASKING:
            newest |= {parent.key: record for parent in parents_of(record)}
    return {key: score_of(record) for key, record in newest.items()}


def score_of(record: Record) -> float:
    """The mean score in the record of an evaluation."""
    return mean_score({name: score["accuracy"] for name, score in record.metrics.items()})


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


def method_of(record: Record) -> str:
    """By what a model was made: a merge's method, a fine-tuning's strategy, else the kind of step."""
    details, kind = record.content["details"], record.content["kind"]
    if "rule" in details:
        return f"wise_ft, alpha by the {details['rule']} rule"
    return str(details.get("method") or details.get("strategy") or kind)


def how_made(record: Record) -> str:
    """How a model was made, in a line: the method with its weights, or the data, the parts and the seed."""
    details, kind = record.content["details"], record.content["kind"]
    if "sources" in details:
        roles = ", ".join(f"{name} {role}" for name, role in details["sources"].items())
        return f"merged by {method_of(record)}: {roles}"
    if "task" in details and "trained_on" in details:
        length = f"{details['max_steps']} steps" if details.get("max_steps") else f"{details.get('epochs', 1):g} epochs"
        told = [" + ".join(details["trained_on"]), length, f"rate {details['learning_rate']:g}", f"seed {details.get('seed', '?')}"]
        strategy = details.get("strategy", "fine_tuning")
        return f"learned {details['task']}: {', '.join([*told, *([strategy] if strategy != 'fine_tuning' else [])])}"
    if "sets" in details and "objectives" in details:
        return f"learned {', '.join(details['objectives'])} on {', '.join(details['sets'])}, seed {details.get('seed', '?')}"
    if kind == "pretrain":
        steps = sum(details.get(phase, {}).get("steps", 0) for phase in ("tower", "language"))
        return f"made here: {f'{steps} steps, ' if steps else ''}seed {details.get('seed', '?')}"
    if kind == "pretrained":
        return f"was there before: {details.get('place', '')}" + (f" at {details['commit'][:SHOWN]}" if details.get("commit") else "")
    if kind == "chosen":
        return f"chosen among {len(details['values'])} by {details['by']}: {details['picked']}"
    rest = ", ".join(f"{name} {value}" for name, value in details.items() if isinstance(value, str | int | float) and value != "")
    return f"{kind}: {rest}" if rest else kind
