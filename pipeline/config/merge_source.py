"""Where a merge request comes from: a file, told apart by its keys (ours has `method`, mergekit's `merge_method`), or the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError
from foundation.hints import nearest, unknown
from mergers.table import ROWS, merger_class
from pipeline.config.merge_file import SIZES, bytes_of, read_merge
from pipeline.config.merge_request import DTYPES, MergeRequest
from pipeline.config.merge_values import knobs_of
from pipeline.config.mergekit_file import read_mergekit
from pipeline.config.yaml_file import MERGE, YamlFile, apply_override, read_yaml

READERS = {"method": read_merge, "merge_method": read_mergekit}
"""The key that tells a kind of file -> what reads it."""


def is_merge(path: Path) -> bool:
    """Whether a file asks for a merge rather than an experiment; ConfigError if it cannot be read."""
    keys = read_yaml(path).data
    return "recipe" not in keys and any(key in keys for key in READERS)


def request_from_file(path: Path, overrides: Sequence[str] = ()) -> MergeRequest:
    """The merge that a file asks for, with `key=value` pairs laid over it."""
    file = read_yaml(path, MERGE)
    for override in overrides:
        apply_override(file, override)
    kinds = [key for key in READERS if key in file.data]
    if len(kinds) != 1:
        raise no_merge(file, kinds)
    return READERS[kinds[0]](file)


def no_merge(file: YamlFile, kinds: Sequence[str]) -> ConfigError:
    """Why a file is no merge file."""
    if "recipe" in file.data:
        return file.error(("recipe",), f"this is an experiment, not a merge; python -m pipeline run {file.name}")
    if kinds:
        return file.error((kinds[1],), f"the file names {kinds[0]} (a merge file of ours) and {kinds[1]} (mergekit's); keep one of them")
    close = next((key for key in file.data if nearest(key, READERS)), None)
    hint = f"did you mean {nearest(close, READERS)!r} by {close!r}? " if close else ""
    return file.error((close,) if close else (), f"no method is named; {hint}Add a line such as method: ties")


def request_from_options(
    method: str, texts: Sequence[str], base: str | None, weights: Sequence[float] | None, overrides: Sequence[str]
) -> MergeRequest:
    """The merge of the checkpoints that options name. They are called `checkpoint 1`, `checkpoint 2`, ..., or as the method asks."""
    if method not in ROWS:
        raise ConfigError(f"--method: {unknown('merge method', method, ROWS)}")
    asked: Sequence[str] = getattr(merger_class(method), "SOURCES", ())
    names = asked if len(asked) == len(texts) else [f"checkpoint {number}" for number in range(1, len(texts) + 1)]
    data: dict[str, Any] = {"method": method, "sources": dict(zip(names, texts, strict=True))}
    if base is not None:
        data["base"] = base
    if weights is not None:
        if "weights" not in knobs_of(method):
            own = ", ".join(f"--set {name}=..." for name in knobs_of(method)) or "none"
            raise ConfigError(f"--alphas gives weights, and {method} takes none; what it takes: {own}")
        data["weights"] = list(weights)
    file = YamlFile("command line", data)
    for override in overrides:
        apply_override(file, override)
    return read_merge(file)


def changes_of(dtype: str | None, max_shard_size: str | None, flags: Mapping[str, bool]) -> dict[str, Any]:
    """Fields of a request that options change, whatever it came from; ConfigError for a dtype or size that is none."""
    changes: dict[str, Any] = {name: True for name, value in flags.items() if value}
    if dtype is not None:
        if dtype not in DTYPES:
            raise ConfigError(f"--dtype: {unknown('dtype', dtype, DTYPES)}")
        changes["dtype"] = DTYPES[dtype]
    if max_shard_size is not None:
        count = bytes_of(max_shard_size)
        if not count:
            raise ConfigError(f"--max-shard-size is {max_shard_size!r}; {SIZES}")
        changes["max_shard_size"] = count
    return changes
