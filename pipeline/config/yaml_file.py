"""Read an experiment's or a merge's YAML strictly: no repeated keys, no surprises of YAML 1.1, bounded size, every value's line kept.

`1e-5` is a number, `no` and `12:30` are text, a key given twice is an error. Nothing but plain data can be made (safe loader).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from foundation.errors import ConfigError

MAX_BYTES, MAX_NODES, MAX_DEPTH = 1 << 20, 10_000, 64
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "bool", "int", "float", "null")}
TOO_MUCH = f"over {MAX_NODES} values, counting each use of an alias, or nested deeper than {MAX_DEPTH} levels; write less, or flatter"
Place = tuple[str | int, ...]


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars: true/false, null, decimal integers and floats; all else is text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    composed = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As ever, but a file that is too deep or too long is given up where it gets so, not after it was read to its end."""
        self.composed += 1
        self.depth += 1
        if self.composed > 2 * MAX_NODES or self.depth > 2 * MAX_DEPTH:
            raise _TooMuch(self.peek_event().start_mark.line + 1)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _TooMuch(Exception):
    """A file has too many values or levels; the line where that shows. Keys are nodes too, so it allows twice of what a file may have."""


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$", "-+.0123456789"),
    ("merge", r"^<<$", "<"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(frozen=True)
class Kind:
    """What a file is meant to be, for messages: "an experiment", a file that there is, a line of it."""

    article: str
    name: str
    example: str
    line: str

    def __str__(self) -> str:
        return f"{self.article} {self.name}"


EXPERIMENT = Kind("an", "experiment", "experiments/digits_wise_ft.yaml", "recipe: wise_ft")
MERGE = Kind("a", "merge", "merge.yaml", "method: ties")


@dataclass
class YamlFile:
    """Plain data and where each value stands: `lines[("train", "parts")]` is the line of that key."""

    name: str
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)

    def at(self, place: Place) -> str:
        """`file:line` of the value at `place`, or of the nearest thing around it; overrides stand on the command line."""
        line = self.line(place)
        return self.name if line < 0 else f"{self.name}:{line}" if line else "command line"

    def line(self, place: Place) -> int:
        """The line of the value at `place`, or of the nearest thing around it; 0 for the command line, -1 if there is none."""
        return next((self.lines[place[:length]] for length in range(len(place), -1, -1) if place[:length] in self.lines), -1)

    def value(self, place: Place) -> Any:
        """What stands at `place`; None if nothing does."""
        found: Any = self.data
        for part in place:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def holds(self, place: Place) -> bool:
        """Whether something stands at `place`, be it null."""
        around = self.value(place[:-1])
        return isinstance(around, Mapping) and place[-1] in around

    def error(self, place: Place, message: str) -> ConfigError:
        """The error to raise for what stands at `place`."""
        return ConfigError(f"{self.at(place)}: {message}")


def read_yaml(path: Path, kind: Kind = EXPERIMENT) -> YamlFile:
    """The file's content, checked as this module says; ConfigError otherwise. `kind` says in messages what the file is meant to be."""
    try:
        with path.open("rb") as source:
            data = source.read(MAX_BYTES + 1)  # no more, of a file that may have no end
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}; name {kind} file, e.g. {kind.example}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a directory; name the {kind.name} file in it, e.g. {path / f'{kind.name}.yaml'}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES} bytes, which {kind} file has at most; is it the right file?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error}); is this {kind} file?") from error
    return parse_yaml(text, str(path), kind)


def parse_yaml(text: str, name: str, kind: Kind = EXPERIMENT) -> YamlFile:
    """Like `read_yaml`, from text; `name` stands in messages."""
    file = YamlFile(name, {})
    try:
        value = _plain_data(text, file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{name}:{line}: this is not valid YAML: {error.problem}; mend that line") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: this is not valid YAML: a control character stands in it; remove it") from error
    except _TooMuch as error:
        raise ConfigError(f"{name}:{error.args[0]}: {TOO_MUCH}") from error
    if value is None:
        raise ConfigError(f"{name} is empty; {kind} begins with a line such as `{kind.line}`")
    if not isinstance(value, dict):
        held = "a list" if isinstance(value, list) else f"the single value {value!r:.60}"
        raise ConfigError(f"{name}:1: {kind} consists of `key: value` lines such as `{kind.line}`, but what this file holds is {held}")
    file.data = value
    return file


def _plain_data(text: str, file: YamlFile) -> Any:
    loader = _StrictLoader(text)
    try:
        root = loader.get_single_node()
        return None if root is None else _Reader(loader, file).value(root, ())
    finally:
        loader.dispose()


class _Reader:
    """Turns a tree of YAML nodes into plain data, counting nodes (an alias counts each time it is used)."""

    def __init__(self, loader: _StrictLoader, file: YamlFile) -> None:
        self.loader, self.file, self.nodes = loader, file, 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MAX_NODES or len(place) > MAX_DEPTH:
            raise ConfigError(f"{self.file.name}:{line}: {TOO_MUCH}")
        self.file.lines.setdefault(place, line)
        if node.tag not in PLAIN_TAGS:
            raise ConfigError(f"{self.file.name}:{line}: this is not valid YAML here: tag {node.tag!r}; write plain data")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        if "\0" in str(node.value):
            raise ConfigError(f"{self.file.name}:{line}: a NUL character (\\0) stands in {str(node.value)[:40]!r}; no name or path has one")
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError, TypeError) as error:
            kind = str(node.tag).rpartition(":")[2]
            raise ConfigError(f"{self.file.name}:{line}: {str(node.value)[:40]!r} cannot be read as {kind}; write a plain value") from error

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(f"{self.file.name}:{line}: a key must be plain text; write the keys out instead of merging mappings")
            key = str(key_node.value)
            if key in result:
                first = self.file.lines[(*place, key)]
                raise ConfigError(f"{self.file.name}:{line}: key {key!r} stands here and on line {first}; keep one of them")
            self.file.lines[(*place, key)] = line
            result[key] = self.value(value_node, (*place, key))
        return result


def apply_override(file: YamlFile, text: str) -> None:
    """Set one value from the command line, `train.learning_rate=1e-4`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    parts: list[str] = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {text!r} is not of the form key=value, e.g. alpha=0.3 or train.learning_rate=1e-4")
    parsed = _override_value(text, value)
    target: Any = file.data
    for depth, part in enumerate(parts[:-1]):
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            whole = ".".join(parts[: depth + 1])
            advice = f"give the whole list, e.g. {whole}=[a,b]" if isinstance(target, list) else f"give {whole}=..."
            raise ConfigError(f"override {text!r}: {whole} is {target!r}, which has no keys inside; {advice}")
    target[parts[-1]] = parsed
    stale = [place for place in file.lines if place[: len(parts)] == tuple(parts)]
    for place in stale:
        del file.lines[place]
    file.lines[tuple(parts)] = 0


def _override_value(text: str, value: str) -> Any:
    try:
        return parse_yaml(f"value: {value}", "override").data["value"]
    except ConfigError as error:
        reason = str(error).removeprefix("override:1: ").removesuffix("; mend that line")
        raise ConfigError(f"override {text!r}: {reason}; quote it for the shell if it holds spaces or brackets") from error
