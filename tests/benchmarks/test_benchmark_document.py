"""The page: marks, tables from results, and only the parts that were measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import document
from benchmarks.machine import describe


def run(wall: float, anonymous: int = 10**9) -> dict[str, Any]:
    """A summary as it is kept."""
    return {
        "wall": wall,
        "wall_least": wall,
        "wall_most": wall,
        "cpu": wall,
        "anonymous": anonymous,
        "file": 0,
        "shared": 0,
        "runs": 5,
    }


START = {"mergeline: imports": run(2), "mergekit: imports": run(7)}
LINEAR = {
    "runs": {"mergeline": run(3), "mergekit": run(22), "mergeline, one file": run(4), "read and write, 1 thread": run(2)},
    "options": "--async-write",
    "tried": {"--async-write": 22},
    "agreement": {"equal": 0.999},
    "bytes": {"read": 4},
}


def test_ratios_of_the_methods_table(tmp_path: Path) -> None:
    document.keep(tmp_path, "1.1b", "start", START)
    document.keep(tmp_path, "1.1b", "methods", {"linear": LINEAR})
    found = document.sections(document.load(tmp_path, "1.1b"), "1.1b")
    assert list(found) == ["bench whole-merges-of-bf16-checkpoints", "bench against-plain-reads-and-writes", "bench starting"]
    text = "\n".join(line for lines in found.values() for line in lines)
    assert "### Whole merges of 1.1b bf16 checkpoints" in text
    assert "**7.3×** | **15.0×** | 4.00 (4.00–4.00)" in text  # 22 / 3, and (22 - 7) / (3 - 2)
    assert "| mergeline, one file |" not in text  # it is no floor
    assert "1.50× | 0.50×" in text  # 3 / 2, and (3 - 2) / 2
    assert "Under a memory limit" not in text


def test_what_imports_leave_too_little_of_is_not_compared() -> None:
    assert document.tables.without_imports(run(2.1), run(30), START) == "–"


def test_a_part_measured_again_replaces_only_itself(tmp_path: Path) -> None:
    document.keep(tmp_path, "50m", "start", {"old": run(1)})
    document.keep(tmp_path, "50m", "gate", {"linear": {}})
    document.keep(tmp_path, "50m", "start", START)
    kept = json.loads((tmp_path / "results-50m.json").read_text())
    assert kept["start"]["data"].keys() == START.keys()
    assert "gate" in kept


def test_the_other_tables() -> None:
    workers = {f"{count} {kind}": {"items": 8 / count, "least": 1, "execute": 8} for count in (1, 2, 4) for kind in ("processes", "actors")}
    scaling = {
        "alone": {"linear": workers},
        "whole": {f"{count} actors": run(9) for count in (0, 1, 2, 4)},
        "copies": {f"read and write, {count}": run(1) for count in (1, 2, 4)},
    }
    gate = {"linear": {"with": {"items": 2, "cpu": 2.0}, "without": {"items": 1.9, "cpu": 1.9}}}
    limits = {
        "too much": {"sources": 0, "code": 1, "said": "MemoryError", "wall": 1, "anonymous": 1},
        "linear": {"sources": 66 * 10**8, "code": 0, "said": "fine", "wall": 1, "anonymous": 1},
    }
    plan = {"seconds": 1, "process": 2, "anonymous": 1, "bytes": 1, "items": 3, "largest": 1.0, "workers": {"4": 1, "16": 1, "64": 1}}
    assert any("| 8.00 | 4.00 | 2.00 | 4.0× |" in line for line in document.tables.scaling_table(scaling))
    assert "5.0%" in document.tables.gate_table(gate)[-1]
    assert "| refused: `MemoryError` |" in document.tables.limits_table(limits)[-2]
    assert "| 6.60 GB | merged |" in document.tables.limits_table(limits)[-1]
    assert "1.0000, 1.0000, 1.0000" in document.tables.planning_table({"70b": plan})[-1]


def test_only_the_marked_part_of_the_page_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nwords\n")
    document.write_section("bench", ["one"], page)
    page.write_text(page.read_text() + "\nmore words\n")
    document.write_section("bench", ["two", "three"], page)
    text = page.read_text()
    assert text.startswith("# Title\n\nwords\n\n<!--")
    assert text.endswith("-->\n\nmore words\n")
    assert "two\nthree" in text
    assert "one" not in text


def test_the_machine_is_told_without_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGELINE_MERGEKIT", str(tmp_path))  # there is no mergekit there: its versions are left out
    machine = describe(tmp_path)
    assert machine.cores >= 1
    assert machine.memory > 10**8
    assert set(machine.versions) == {"torch", "ray", "numpy"}
    assert str(tmp_path) not in str(machine)
