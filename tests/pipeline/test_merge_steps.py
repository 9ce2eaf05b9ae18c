"""The steps that merge named sources: one body for all of them, each with its own choice of method and its own details."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_merges import load, save_random

from mergers.methods.linear import WiseFT
from mergers.methods.task_arithmetic import TaskArithmetic
from pipeline.step import Step
from pipeline.steps import Merge, MergeAdaptive, Pretrained


@dataclass
class Place:
    """A step's place on disk; what a named step made lies under its source's name."""

    root: Path
    moved: float = 0.0

    @property
    def directory(self) -> Path:
        return self.root / "made"

    def checkpoint_of(self, step: Any) -> Path:
        return self.root / step.source

    def digest_of(self, step: Any) -> str:
        return f"digest of {step.source}"

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.moved = done / total


@pytest.fixture
def work(tmp_path: Path) -> Place:
    for seed, name in enumerate(("base", "previous", "tuned")):
        save_random(tmp_path / name, seed)
    (tmp_path / "made").mkdir()
    return Place(tmp_path)


STEPS: dict[str, Step] = {name: Pretrained(source=name) for name in ("previous", "tuned")}
BASE = Pretrained(source="base")


def test_a_merge_tells_its_method_its_sources_and_its_base(work: Place) -> None:
    merge = Merge(TaskArithmetic((0.5, 0.25)), STEPS, BASE, actors=0)
    outcome = merge.run(work)  # type: ignore[arg-type]
    assert work.moved == 1
    roles = {"previous": "task vector times 0.5", "tuned": "task vector times 0.25"}
    expected = {"method": "task_arithmetic", "sources": roles, "base": BASE.key, "weights": (0.5, 0.25), "scale": 1.0, "normalize": False}
    assert outcome.details == expected
    card = (work.directory / "checkpoint" / "README.md").read_text()
    assert f"({BASE.key}, sha256:digest of base)" in card
    assert f"{STEPS['tuned'].key}, sha256:digest of tuned" in card


def test_an_adaptive_merge_is_wise_ft_with_the_alpha_that_it_tells(work: Place) -> None:
    outcome = MergeAdaptive(STEPS, BASE, "isotropic", 2, actors=0).run(work)  # type: ignore[arg-type]
    alpha = outcome.details["alpha"]
    assert 0 < alpha < 1
    assert outcome.details["sources"] == dict(zip(STEPS, WiseFT(alpha).roles(tuple(STEPS)), strict=True))
    assert {name: outcome.details[name] for name in ("rule", "past")} == {"rule": "isotropic", "past": 2}
    made, previous, tuned = (load(path) for path in (work.directory / "checkpoint", work.root / "previous", work.root / "tuned"))
    for name, tensor in made.items():
        # Sources of N(0, 1): a few float32 roundings of values below 5.
        torch.testing.assert_close(tensor, alpha * previous[name] + (1 - alpha) * tuned[name], rtol=0, atol=5e-6)
