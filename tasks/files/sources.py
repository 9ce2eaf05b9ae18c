"""Which files a split is read from, and how they are named: a file, a brace list `{a,b}.json`, a YAML mixture, or a list of these.

A mixture is the seed's: `datasets:` with `json_path` and `sampling_strategy` for each. A `Source` is a value: it is known by the digests
of its files and how they are sampled, never by where they lie.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from tasks.files.cache import file_digest
from tasks.files.readers import Records, open_records
from tasks.files.sampling import Sampling, parse_sampling

ENTRY_KEYS = ("json_path", "path", "sampling_strategy")
BRACES = re.compile(r"^(.*?)\{([^{}]*)\}(.*)$", re.DOTALL)

Given = str | Path | Mapping[str, Any] | Sequence[Any]
"""What a user writes for a split: a path, {json_path, sampling_strategy}, or a list of these."""


def place(default: str | int = "") -> Any:
    """A field that says where something lies: not part of what a task is."""
    return field(default=default, compare=False, repr=False, metadata={"execution": True})


@dataclass(frozen=True)
class RecordFile:
    """One file of records and which of them are taken. `name` stands in the keys of its examples and differs within a source."""

    name: str
    digest: str
    sampling: str = "all"
    path: str = place()


@dataclass(frozen=True)
class Source:
    """The files of one split, in order. `pictures` is the digest of the names and sizes of the images that the records show, which
    are looked for in `folder`.
    """

    files: tuple[RecordFile, ...]
    pictures: str = ""
    folder: str = place()


def read_source(given: Given, base: Path, cache: str, where: str) -> Source:
    """The files that `given` names, with the digest of each. Raises ConfigError or InputError, naming `where`."""
    entries = list(_entries(given, base, where))
    if not entries:
        raise ConfigError(f"{where}: names no files; name at least one, or leave the key out")
    names, files = Counter[str](), []
    for path, sampling in entries:
        name = os.path.basename(path)
        names[name] += 1
        label = name if names[name] == 1 else f"{name}~{names[name]}"
        files.append(RecordFile(label, file_digest(path, cache), str(sampling), path))
    return Source(tuple(files))


def chosen(source: Source, seed: int) -> list[tuple[RecordFile, Records, Sequence[int]]]:
    """Each file of a source with its records and the numbers of those taken. A random order belongs to (seed, content, occurrence)."""
    seen, found = Counter[str](), []
    for file in source.files:
        records = open_records(file.path)
        address = f"files/{seed}/{file.digest}/{seen[file.digest]}"
        seen[file.digest] += 1
        numbers = parse_sampling(file.sampling, file.path).choose(len(records), address, file.path)
        found.append((file, records, numbers))
    return found


def _entries(given: Given, base: Path, where: str) -> Iterator[tuple[str, Sampling]]:
    """Every file with its sampling."""
    if isinstance(given, Mapping):
        yield from _entry(given, base, where)
    elif isinstance(given, str | Path):
        for path in _paths(str(given), base, where):
            if Path(path).suffix in {".yaml", ".yml"}:
                yield from _mixture(Path(path), base)
            else:
                yield path, Sampling()
    elif isinstance(given, Sequence):
        for number, each in enumerate(given, start=1):
            yield from _entries(each, base, f"{where}, entry {number}")
    else:
        raise ConfigError(f"{where}: {given!r} names no file; write a path, {{json_path, sampling_strategy}}, or a list of these")


def _entry(given: Mapping[str, Any], base: Path, where: str) -> Iterator[tuple[str, Sampling]]:
    """One entry of a mixture; its sampling holds for each file of a brace list."""
    for key in given:
        if key not in ENTRY_KEYS:
            raise ConfigError(f"{where}: {unknown('key', str(key), ENTRY_KEYS)}")
    paths = [given[key] for key in ("json_path", "path") if key in given]
    if len(paths) != 1 or not isinstance(paths[0], str) or not paths[0]:
        raise ConfigError(f"{where}: give the path of one file of records as json_path")
    sampling = parse_sampling(given.get("sampling_strategy", "all"), where)
    for path in _paths(paths[0], base, where):
        if Path(path).suffix in {".yaml", ".yml"}:
            raise ConfigError(f"{where}: {path} is a mixture, and a mixture in a mixture is not read; name its files here")
        yield path, sampling


def _mixture(path: Path, base: Path) -> Iterator[tuple[str, Sampling]]:
    """The entries of a YAML mixture; their paths are relative to the YAML file, or else to the base."""
    try:
        held = yaml.load(path.read_text(encoding="utf-8"), Loader=_OneKeyOnce)
    except OSError as error:
        raise InputError(f"{path}: the mixture cannot be opened ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no YAML: {error}") from error
    listed = held.get("datasets") if isinstance(held, Mapping) else None
    if not isinstance(held, Mapping) or set(held) != {"datasets"} or not isinstance(listed, list) or not listed:
        keys = f"; it has {', '.join(map(str, held))}" if isinstance(held, Mapping) else ""
        raise ConfigError(f"{path}: a mixture has one key, datasets, with a list of json_path and sampling_strategy{keys}")
    for number, each in enumerate(listed, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(each, Mapping):
            raise ConfigError(f"{where}: {each!r} is no entry; write json_path: and sampling_strategy:")
        yield from _entry(each, path.parent if _lies(each, path.parent) else base, where)


def _lies(entry: Mapping[str, Any], folder: Path) -> bool:
    """Whether an entry's files lie in `folder`."""
    named = str(entry.get("json_path", entry.get("path", "")))
    return all((folder / each).exists() for each in expand_braces(named))


def _paths(text: str, base: Path, where: str) -> list[str]:
    """The files that a path or a brace list names, all of them there."""
    paths = [os.path.abspath(base / os.path.expanduser(each)) for each in expand_braces(text)]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{where}: there is no file {missing[0]}{more}; check the path (relative ones start at {base.absolute()})")
    return paths


def expand_braces(text: str) -> list[str]:
    """`a/{x,y}.json` as `a/x.json` and `a/y.json`; several lists in one path give every combination."""
    found = BRACES.match(text)
    if found is None:
        return [text]
    head, listed, tail = found.groups()
    return [path for word in listed.split(",") for path in expand_braces(head + word.strip() + tail)]


class _OneKeyOnce(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)
