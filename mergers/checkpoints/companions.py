"""The small files that make weights a model: config, tokenizer, processor, chat template. Which are taken, and from which source.

They come from one source. A whole group that it lacks (say, the processor, because a training run saved only the model) comes from the
first source that has it; groups are never mixed file by file. Code (*.py), pickles and the leftovers of a training run are not taken.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from foundation.errors import InputError
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


@dataclass(frozen=True)
class Companion:
    """A small file of the output: its name there, the file it is, the source that gave it, and a dtype to enter in it (config.json
    only)."""

    name: str
    path: Path
    source: str
    dtype: str | None = None

    def content(self) -> bytes:
        """The bytes to write: the file's own, but for the dtype."""
        data = self.path.read_bytes()
        if self.dtype is None:
            return data
        return (json.dumps(with_dtype(json.loads(data), self.dtype), indent=2, ensure_ascii=False) + "\n").encode()


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
    return {
        key: dtype if key in ("dtype", "torch_dtype") and isinstance(value, str) else with_dtype(value, dtype)
        for key, value in config.items()
    }
