"""The strict YAML reader: what it takes as numbers and text, what it refuses, and that it knows every value's line."""

from pathlib import Path

import pytest

from foundation.errors import ConfigError
from pipeline.config.yaml_file import apply_override, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("3.0e4", 3e4),
        (".5", 0.5),
        ("12", 12),
        ("-3", -3),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("'1e-5'", "1e-5"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}", "f").data == {"key": value}


def test_lines_are_known_for_keys_and_list_items() -> None:
    file = parse_yaml("a: 1\n\nb:\n  c:\n    - x\n    - y\n", "f.yaml")
    assert file.at(("a",)) == "f.yaml:1"
    assert file.at(("b", "c")) == "f.yaml:4"
    assert file.at(("b", "c", 1)) == "f.yaml:6"
    assert file.at(("b", "missing", "deeper")) == "f.yaml:3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3: key 'a' stands here and on line 1"),
        ("a: {b: 1, b: 2}", "f:1: key 'b'"),
        ("a: [1", "f:1: this is not valid YAML"),
        ("- 1", "is a list"),
        ("a: !!python/object/apply:os.system ['true']", "f:1: this is not valid YAML"),
        ("[" * 3000, "nested deeper"),
        ("base: &b {x: 1}\nc: {<<: *b}", "write the keys out"),
    ],
)
def test_what_is_refused_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        parse_yaml(text, "f")


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 8)]
    with pytest.raises(ConfigError, match="counting each use of an alias"):
        parse_yaml("\n".join(lines), "f")


def test_a_file_that_is_missing_or_too_large_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "large.yaml").write_bytes(b"a: " + b"x" * (1 << 20))
    with pytest.raises(ConfigError, match="at most"):
        read_yaml(tmp_path / "large.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(tmp_path / "binary.yaml")


def test_overrides_are_laid_over_and_say_that_they_come_from_the_command_line() -> None:
    file = parse_yaml("alpha: 0.5\ntrain:\n  steps: 1\n", "f")
    apply_override(file, "train.learning_rate=3e-4")
    apply_override(file, "alpha=0.3")
    assert file.data == {"alpha": 0.3, "train": {"steps": 1, "learning_rate": 3e-4}}
    assert file.at(("alpha",)) == "command line"
    assert file.at(("train", "steps")) == "f:3"


@pytest.mark.parametrize("text", ["alpha", "=1", "a..b=1"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        apply_override(parse_yaml("a: 1", "f"), text)


def test_an_override_into_a_plain_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no keys inside"):
        apply_override(parse_yaml("a: 1", "f"), "a.b=2")
