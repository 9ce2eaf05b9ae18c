"""Our own merge file: a method, its sources, its hyperparameters, and how the result is to be written.

    method: ties_per_tensor
    base: path/or/hub-id@revision
    sources:                                      # in this order; paths count from the current directory
      math: {checkpoint: runs/math, weight: 1.0}
      code: {checkpoint: org/model@rev, weight: [0, 0.5, 1]}
    density: 0.2                                  # the method's own, here or under `parameters:`
    scale: {"*.mlp.*": 0.3, "*": [0.5, 1.0]}      # per tensor: glob -> number, or a gradient over depth; the first that matches counts

Which keys there are beside `MergeOptions` follows from the method's class (`merge_values.py`): a number may differ per tensor, and what has
one value per source (`weights`) is given at each source by its singular (`weight`), or as one list.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, create_model, model_validator
from pydantic_core import PydanticCustomError

from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers.engine.layout import MAX_SHARD_SIZE
from mergers.merger import Merger
from mergers.sources.view_spec import parse_view
from mergers.sources.views import Identity
from mergers.table import ROWS
from pipeline.config.complaints import is_what
from pipeline.config.kinds import Count, Flag, Settings, validated
from pipeline.config.merge_request import DTYPES, MergeRequest, SourceRequest
from pipeline.config.merge_values import Knob, Varies, build, knobs_of, level_of
from pipeline.config.yaml_file import Place, YamlFile

SIZE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) ?(?P<unit>B|kB|KB|MB|GB|TB)?")
SIZES = "give bytes, e.g. 5GB, 500MB or 5000000000"
UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def bytes_of(text: str) -> int | None:
    """Bytes from a text such as 5GB; None if it is not of that form."""
    found = SIZE.fullmatch(text.strip())
    return int(float(found["number"]) * UNITS[found["unit"] or ""]) if found else None


def size_of(value: Any) -> Any:
    """Bytes from a number or a text, the error in pydantic's form."""
    count = bytes_of(value) if isinstance(value, str) else value
    if isinstance(count, bool) or not isinstance(count, int):
        raise PydanticCustomError("size", SIZES)
    return count


def view_of(value: Any) -> Any:
    """The view, its error in pydantic's form."""
    try:
        return parse_view(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


Text = Annotated[str, StringConstraints(min_length=1)]
ShardSize = Annotated[int, BeforeValidator(size_of), Field(ge=1)]


class Checkpoint(Settings):
    """A checkpoint and how it is seen; a text alone is its checkpoint."""

    checkpoint: Text
    view: Annotated[Any, BeforeValidator(view_of)] = Identity()

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise PydanticCustomError("checkpoint", "give a checkpoint (a path or hub id), or keys such as checkpoint and view")
        return {"checkpoint": value} if isinstance(value, str) else value


class MergeOptions(Settings):
    """What every merge may say, whatever its method."""

    method: str
    base: Checkpoint = None  # type: ignore[assignment]  # left out; null is refused
    files_from: Text = None  # type: ignore[assignment]
    dtype: Literal["bfloat16", "float16", "float32", "float64"] = None  # type: ignore[assignment]
    max_shard_size: ShardSize = MAX_SHARD_SIZE
    partial: Flag = False
    allow_pickle: Flag = False
    allow_nonfinite: Flag = False
    tokenizer_source: Text = None  # type: ignore[assignment]
    pad_to_multiple_of: Count = 1
    config: dict[str, Any] = {}  # noqa: RUF012


def read_merge(file: YamlFile) -> MergeRequest:
    """The merge that a file of our own kind asks for; ConfigError with lines and nearest right words. Opens no checkpoint."""
    method = file.data.get("method")
    if not isinstance(method, str) or method not in ROWS:
        told = (
            unknown("merge method", str(method), ROWS) if "method" in file.data else f"no method is named; known: {', '.join(sorted(ROWS))}"
        )
        raise ConfigError(f"{file.at(('method',))}: {told}")
    knobs = knobs_of(method)
    config = validated(form_of(method, knobs), file)
    return MergeRequest(
        merger=merger_of(method, knobs, config, file),
        sources=tuple(request(name, source) for name, source in config.sources.items()),
        base=request("base", config.base) if config.base else None,
        files_from=config.files_from,
        dtype=DTYPES[config.dtype] if config.dtype else None,
        max_shard_size=config.max_shard_size,
        partial=config.partial,
        allow_pickle=config.allow_pickle,
        allow_nonfinite=config.allow_nonfinite,
        tokenizer_source=config.tokenizer_source,
        pad_to_multiple_of=config.pad_to_multiple_of,
        config=config.config,
    )


def form_of(method: str, knobs: Mapping[str, Knob]) -> Any:
    """The pydantic model of a merge file for one method."""
    own: dict[str, Any] = {knob.name: (knob.kind, None) for knob in knobs.values()}
    each: dict[str, Any] = {knob.singular: (Any, None) for knob in knobs.values() if knob.varies is Varies.SOURCES}
    source: Any = create_model("source", __base__=Checkpoint, statistics=(Text, None), **each)
    group: Any = create_model("parameters", __base__=Settings, **own)
    keys: dict[str, Any] = {"sources": (Annotated[dict[str, source], Field(min_length=1)], ...), "parameters": (group, group()), **own}
    return create_model(method, __base__=MergeOptions, **keys)


def request(name: str, source: Any) -> SourceRequest:
    """A checkpoint of the file as a request."""
    return SourceRequest(name, source.checkpoint, source.view, getattr(source, "statistics", None))


def merger_of(method: str, knobs: Mapping[str, Knob], config: Any, file: YamlFile) -> Merger:
    """The method with the hyperparameters that the file gives, scheduled if one of them differs per tensor."""
    values: dict[str, Any] = {}
    wrong: list[tuple[int, str]] = []
    for knob in knobs.values():
        try:
            values[knob.name] = given(knob, config, file)
        except ConfigError as error:
            wrong.append((file.line((knob.name,)), str(error)))
    if wrong:
        raise ConfigError("\n".join(text for _, text in sorted(wrong)))
    return build(method, values)


def given(knob: Knob, config: Any, file: YamlFile) -> Any:
    """A hyperparameter's value: plain, a schedule, or one of them per source; None if the file leaves it to the method."""
    places: list[Place] = [(knob.name,), ("parameters", knob.name)]
    values = [
        (place, value) for place, value in zip(places, (getattr(config, knob.name), getattr(config.parameters, knob.name)), strict=True)
    ]
    found = [(place, value) for place, value in values if file.holds(place)]
    if len(found) > 1:
        raise ConfigError(f"{file.at(places[1])}: {knob.name} stands here and at {file.at(places[0])}; keep one of them")
    place, value = found[0] if found else (places[0], None)
    own = {name: getattr(source, knob.singular) for name, source in config.sources.items() if file.holds(("sources", name, knob.singular))}
    if knob.varies is Varies.SOURCES and (own or (found and not knob.both)):
        return per_source(knob, own, place if found else None, value, list(config.sources), file)
    if not found:
        if knob.required:
            raise ConfigError(f"{file.at(('method',))}: {config.method} needs {knob.name}; add it, e.g. {knob.name}: 0.5")
        return None
    return value if knob.varies is Varies.NOTHING else level_of(file, place, value)


def per_source(knob: Knob, own: Mapping[str, Any], place: Place | None, value: Any, names: list[str], file: YamlFile) -> tuple[Any, ...]:
    """One value per source: from the sources' own keys, or from one list; what the sources have beside a value for all counts for them."""
    if place is not None and knob.both:
        shared = level_of(file, place, value)
        return tuple(level_of(file, ("sources", name, knob.name), own[name]) if name in own else shared for name in names)
    if place is not None and own:
        first = next(iter(own))
        raise ConfigError(f"{file.at(place)}: {knob.name} stand here and as {knob.singular} at source {first!r}; give them in one place")
    if place is not None:
        if not isinstance(value, list):
            raise file.error(place, f"{knob.name} {is_what(value)}; give a list, one for each of {', '.join(names)}")
        if len(value) != len(names):
            raise file.error(place, f"{len(value)} {knob.name} for {len(names)} checkpoints ({', '.join(names)}); give one for each")
        return tuple(level_of(file, (*place, index), each) for index, each in enumerate(value))
    lacking = [name for name in names if name not in own]
    if lacking:
        raise ConfigError(
            f"{file.at(('sources', lacking[0]))}: source {lacking[0]!r} has no {knob.singular}, but {next(iter(own))!r} has; give each "
            f"source one, e.g. {lacking[0]}: {{checkpoint: ..., {knob.singular}: 1.0}}"
        )
    return tuple(level_of(file, ("sources", name, knob.singular), own[name]) for name in names)
