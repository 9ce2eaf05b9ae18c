"""A step: one piece of work as a value. Making a step runs nothing; its fingerprint says which work it is.

Fields that hold steps are its inputs; fields marked `execution(...)` say how it runs (workers, GPUs, retries); all other fields
are its identity. Two steps with one fingerprint give the same bytes, so a step that is stored never runs again.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from foundation.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.objects.attempt import Held


def execution(default: Any) -> Any:
    """A dataclass field that says how a step runs, not what it makes: it is left out of the fingerprint."""
    return field(default=default, metadata={"execution": True}, kw_only=True)


@dataclass(frozen=True)
class Resources:
    """What one step asks of Ray: for itself (`cpus`, `gpus`) or for each of its `workers`."""

    cpus: float = 1
    gpus: float = 0
    workers: int = 1
    max_failures: int = 3


@dataclass(frozen=True)
class Outcome:
    """What a step made. `checkpoint` lies inside the step's directory, or elsewhere for weights that were there before.

    `files` are the checkpoint's files with their SHA-256, where the step knows them already. `there`: what workers on other nodes have put
    into the object store themselves, by its name in the step's directory.
    """

    checkpoint: Path | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] | None = None
    there: Mapping[str, "Held"] = field(default_factory=dict)


class Work(Protocol):
    """What a running step is given: its places on disk, the records of its inputs, and somewhere to say how far it is."""

    directory: Path  # the step's own directory; outputs are written here
    scratch: Path  # kept when the step is interrupted, removed when it is done

    def checkpoint_of(self, step: "Step") -> Path:
        """The checkpoint directory that an input step made."""

    def directory_of(self, step: "Step") -> Path:
        """The directory in which an input step wrote."""

    def digest_of(self, step: "Step") -> str:
        """SHA-256 over that checkpoint's files."""

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far the step is, for the display only."""

    def log_function(self) -> Any:
        """A picklable `(step, values) -> None` that takes training metrics from any worker."""


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """Base of all steps. `version` is bumped when the same fields would give other bytes.

    Steps are compared and shown by what they are: subclasses are `@dataclass(frozen=True, eq=False, repr=False)`, because a generated
    `__repr__` would print a step once for every path that leads to it.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    loads: ClassVar[tuple[str, ...]] = ()
    """Modules whose import takes its worker seconds; an idle one may import them beforehand (`graph/warm.py`)."""

    def run(self, work: Work) -> Outcome:
        """Do the work; called once per fingerprint, on a Ray worker, with all inputs stored."""
        raise TypeError(f"{type(self).__name__} does not say how it runs")

    @property
    def title(self) -> str:
        """What it does in a few words, for a step that has no place of its own in the experiment; empty: its key says it."""
        return ""

    @property
    def ray_options(self) -> dict[str, Any]:
        """Options of the step's Ray task."""
        return {"num_cpus": 1}

    @property
    def reads_this_machine(self) -> bool:
        """Whether it reads files that the user named by a place on this machine; other nodes need not have them."""
        return False

    @property
    def demand(self) -> dict[str, float]:
        """What must be free at one time, on all nodes together, for the step to run at all: {"CPU": 2, "GPU": 1}."""
        return {"CPU": self.ray_options.get("num_cpus", 1), "GPU": self.ray_options.get("num_gpus", 0)}

    @cached_property
    def inputs(self) -> tuple["Step", ...]:
        """The steps this one needs, in field order, each once."""
        return tuple(dict.fromkeys(found for item in dataclasses.fields(self) for found in _steps_in(getattr(self, item.name))))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the fingerprint is taken of."""
        return {"kind": self.kind, "version": self.version, "fields": _identity_fields(self, f"{type(self).__name__}")}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of the identity; inputs enter by their own fingerprints."""
        for below in _inputs_first([self])[:-1]:
            _ = below.fingerprint  # from the ground up, so that a long chain needs no deep recursion
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def key(self) -> str:
        """The name of its directory in the store."""
        return f"{self.kind}-{self.fingerprint[:24]}"

    def __repr__(self) -> str:
        return self.key

    def detached(self) -> "Step":
        """The same step with its inputs named instead of held: small to send, however long the chain behind it is."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: _named(value) for name, value in fields.items() if any(_steps_in(value))})


@dataclass(frozen=True, eq=False, repr=False)
class Measurement(Step):
    """A step that looks at a model and makes none: scores, statistics, distances."""


@dataclass(frozen=True, eq=False, repr=False)
class Named(Step):
    """Stands for an input of a detached step: its key and fingerprint, nothing else."""

    kind: ClassVar[str] = "named"
    known_key: str
    known_fingerprint: str

    @property
    def fingerprint(self) -> str:
        return self.known_fingerprint

    @property
    def key(self) -> str:
        return self.known_key


def topological(targets: Iterable[Step]) -> list[Step]:
    """All steps that `targets` rest on and the targets themselves, inputs first, one per fingerprint, in order of first mention."""
    first: dict[str, Step] = {}
    for step in _inputs_first(targets):
        first.setdefault(step.fingerprint, step)
    return list(first.values())


def _inputs_first(targets: Iterable[Step]) -> list[Step]:
    """Every step object below `targets` and the targets, inputs before what needs them, without recursion."""
    ordered: dict[int, Step] = {}
    waiting = [(target, False) for target in reversed(list(targets))]
    while waiting:
        step, inputs_done = waiting.pop()
        if id(step) in ordered:
            continue
        if inputs_done:
            ordered[id(step)] = step
        else:
            waiting.append((step, True))
            waiting.extend((needed, False) for needed in reversed(step.inputs))
    return list(ordered.values())


def _named(value: Any) -> Any:
    """`value` with every step in it replaced by its name."""
    if isinstance(value, Step):
        return Named(value.key, value.fingerprint)
    if isinstance(value, Mapping):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_named(item) for item in value)
    return value


def _steps_in(value: Any) -> Iterator[Step]:
    if isinstance(value, Step):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _steps_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _steps_in(item)


def canonical(value: Any, where: str) -> Any:
    """`value` in a JSON form that is the same on every machine; ConfigError for what has none (a lambda, an open file, a path)."""
    if isinstance(value, Step):
        return {"step": value.fingerprint}
    if isinstance(value, Enum):
        return canonical(value.value, where)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise ConfigError(f"{where} is {value}: a step is known by its values, and that one equals nothing; give a finite number")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        version = {"version": value.version} if hasattr(value, "version") else {}
        return {"class": type(value).__name__, **version, **_identity_fields(value, where)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return [[key, canonical(item, f"{where}[{key!r}]")] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ConfigError(
        f"{where} holds a {type(value).__name__}, which has no stable JSON form, so the step could not be recognised later; "
        "give a number, text, list, mapping or dataclass, or mark the field execution(...)"
    )


def _identity_fields(value: Any, where: str) -> dict[str, Any]:
    fields = [item for item in dataclasses.fields(value) if not item.metadata.get("execution")]
    return {item.name: canonical(getattr(value, item.name), f"{where}.{item.name}") for item in fields}
