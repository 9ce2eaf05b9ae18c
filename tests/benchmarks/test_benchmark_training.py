"""The training part: the same stage both ways, and the table from kept results."""

from pathlib import Path

import pytest

from benchmarks import document, training_alone
from benchmarks.training import PHASES, make_base, training_table

DATA = {
    "speeds": {
        name: {"median": speed, "least": speed - 1, "most": speed + 1}
        for name, speed in {"plain, 1": 100.0, "stage, 1": 98.0, "plain, 2": 170.0, "stage, 2": 171.5}.items()
    },
    "first": [14.0, 0.5, 0.03, 0.2],
    "later": [8.0, 0.5, 0.02, 0.2],
}


def test_ratios(tmp_path: Path) -> None:
    lines = "\n".join(training_table(DATA))
    assert "| this project's stage | 98 (97–99) | 172 (170–172) | 1.75× |" in lines
    assert "**0.98×** | **1.01×**" in lines
    assert f"| {PHASES[0]} | 14.00 | 8.00 |" in lines
    document.keep(tmp_path, "50m", "training", DATA)
    assert document.sections(document.load(tmp_path, "50m"), "50m")["bench one-stage-of-learning"][0] == "### One stage of learning"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stage", "plain"])
def test_both_sides_train_what_is_asked(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_alone, "SPEC", training_alone.replace(training_alone.SPEC, max_steps=3, samples=16, batch_size=8))
    monkeypatch.setattr(training_alone, "WARM_STEPS", 2)
    {"stage": training_alone.run_stage, "plain": training_alone.run_plain}[kind](make_base(tmp_path), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert training_alone.watch.speed > 0
