"""The small files that make weights a model: config, tokenizer, processor, chat template. Which are taken, and from which source.

They come from one source. A whole group that it lacks (say, the processor, because a training run saved only the model) comes from the
first source that has it; groups are never mixed file by file. Code (*.py), pickles and the leftovers of a training run are not taken.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from mergers.checkpoints.checkpoint import inside
from mergers.sources.source import Source

TAKEN = ("*.json", "*.jinja", "*.model", "*.txt", "additional_chat_templates/*.jinja")
LEFT_OUT = ("*.index.json", "trainer_state.json", "*_results.json", "adapter_config.json", "record.json", ".*")
GROUPS = {
    "config": ("config.json",),
    "generation config": ("generation_config.json",),
    "chat template": ("chat_template.json", "*.jinja"),
    "processor": ("*processor_config.json",),
    "tokenizer": ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model"),
}
"""Group -> what belongs to it, the first match wins. A file of no group comes from the main source or not at all."""


DTYPE_KEYS = ("dtype", "torch_dtype")
LONGEST = 60
"""Characters of a value in a message."""


@dataclass(frozen=True)
class Companion:
    """A small file of the output: its name there, the file it is, the source that gave it, and a dtype and values to enter in it
    (config.json only)."""

    name: str
    path: Path
    source: str
    dtype: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> bytes:
        """The bytes to write: the file's own, but for the dtype and the values."""
        data = self.path.read_bytes()
        if self.dtype is None and not self.values:
            return data
        config = {**json.loads(data), **self.values}
        return (json.dumps(config if self.dtype is None else with_dtype(config, self.dtype), indent=2, ensure_ascii=False) + "\n").encode()


def choose_companions(sources: Sequence[Source], main: str, dtype: str | None) -> tuple[Companion, ...]:
    """The small files of the output, sorted by name; `dtype` is entered in config.json if given. InputError if no source has a
    config.json."""
    ordered = sorted(sources, key=lambda source: source.name != main)
    found: dict[str, Companion] = {}
    groups_had: set[str] = set()
    for source in ordered:
        files = small_files(source.checkpoint.path)
        groups_here = {group_of(name) for name in files}
        for name in files:
            group = group_of(name)
            if source.name == main or (group and group not in groups_had):
                found[name] = Companion(name, inside(source.checkpoint.path, name), source.name, dtype if name == "config.json" else None)
        groups_had |= groups_here
    if "config.json" not in found:
        raise InputError(
            f"none of the sources ({', '.join(source.name for source in sources)}) has a config.json, so the output could not be loaded; "
            "add one"
        )
    return tuple(found[name] for name in sorted(found))


def enter_values(companions: Sequence[Companion], values: Mapping[str, Any]) -> tuple[tuple[Companion, ...], dict[str, Any], list[str]]:
    """The small files with `values` in config.json, the config that comes of it, and a sentence on what it changes.

    ConfigError for a key that config.json has not, for one that it gets from elsewhere, and for a value of another kind than its own.
    """
    old = next(companion for companion in companions if companion.name == "config.json")
    config = json.loads(old.path.read_bytes())
    for key, value in values.items():
        check_value(key, value, config, old.source)
    changed = {key: value for key, value in values.items() if value != config[key]}
    if not changed:
        return tuple(companions), config, []
    told = ", ".join(f"{key} is {told_value(value)} ({told_value(config[key])} in '{old.source}')" for key, value in changed.items())
    entered = replace(old, values={**old.values, **changed})
    return tuple(entered if each is old else each for each in companions), {**config, **changed}, [f"in config.json {told}"]


def check_value(key: str, value: Any, config: Mapping[str, Any], source: str) -> None:
    """Raise ConfigError unless config.json may be told this."""
    if key not in config:
        raise ConfigError(f"config: {unknown('key', key, sorted(config))}; only what config.json of '{source}' holds can be set")
    if key in (*DTYPE_KEYS, "model_type"):
        raise ConfigError(f"config: {key} follows from what is written; " + ("say dtype" if key in DTYPE_KEYS else "leave it out"))
    kinds = [kind_of(one) for one in (value, config[key])]
    if None in kinds or (len({*kinds}) > 1 and "null" not in kinds):
        raise ConfigError(
            f"config: {key} is {told_value(value)}; config.json of '{source}' has {told_value(config[key])}, give a value of that kind"
        )


def kind_of(value: Any) -> str | None:
    """What JSON calls a value; None for what JSON does not know."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return None
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", tuple: "list", dict: "object"}
    return "null" if value is None else kinds[type(value)]


def told_value(value: Any) -> str:
    """A value of a config in a message, long ones cut."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def small_files(directory: Path) -> list[str]:
    """Names of the files in `directory` that belong to the model besides its weights, sorted."""
    names = {
        path.relative_to(directory).as_posix()
        for pattern in TAKEN
        for path in directory.glob(pattern)
        if path.is_file() or path.is_symlink()
    }
    return sorted(name for name in names if not any(fnmatch(name, pattern) for pattern in LEFT_OUT))


def group_of(name: str) -> str:
    """The group a file belongs to, or ""."""
    return next((group for group, patterns in GROUPS.items() if any(fnmatch(name, pattern) for pattern in patterns)), "")


def with_dtype(config: Any, dtype: str) -> Any:
    """`config` with every dtype it names, at any depth, replaced."""
    if not isinstance(config, dict):
        return config
    return {key: dtype if key in DTYPE_KEYS and isinstance(value, str) else with_dtype(value, dtype) for key, value in config.items()}
