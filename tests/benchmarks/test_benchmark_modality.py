"""The modality part: both sides step on as many tokens, what is measured is measured, and the table from kept results."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import document, modality_alone
from benchmarks.modality import SHAPES, modality_table
from benchmarks.modality_alone import beit, gram, ours, step

SMALL = replace(modality_alone.SHAPES["tiny"], hidden=24, layers=2, images_of_step=2, images_of_gram=2)


def times(median: float) -> dict[str, float]:
    """As it is kept."""
    return {"median": median, "least": median - 0.5, "most": median + 0.5}


DATA = {
    "step": {shape: {"ours": times(2.2), "beit": times(2.0)} for shape in SHAPES},
    "gram": {shape: {"0": times(3.0), "1": times(5.0), "2": times(4.0)} for shape in SHAPES},
}


def test_ratios(tmp_path: Path) -> None:
    lines = "\n".join(modality_table(DATA))
    assert "| tiny | 2.20 (1.70–2.70) | 2.00 (1.50–2.50) | **1.10×** |" in lines
    assert "| base | 3.00 (2.50–3.50) | 5.00 (4.50–5.50) | **0.60×** | 4.00 (3.50–4.50) | **0.75×** |" in lines
    document.keep(tmp_path, "50m", "modality", DATA)
    assert document.sections(document.load(tmp_path, "50m"), "50m")["bench modality-experts"][0] == "### Modality experts"


@pytest.mark.parametrize("who", ["ours", "beit"])
def test_both_sides_step(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step changes the encoder's weights, and leaves no gradient behind."""
    made: list[torch.nn.Module] = []
    build = {"ours": ours, "beit": beit}[who]
    monkeypatch.setattr(modality_alone, who, lambda *arguments: made.append(build(*arguments)) or made[0])
    once = step(who, SMALL)
    before = [weight.clone() for weight in made[0].parameters()]
    once()
    changed = sum(not torch.equal(old, new) for old, new in zip(before, made[0].parameters(), strict=True))
    assert changed > 20
    assert all(weight.grad is None for weight in made[0].parameters())


def test_the_encoders_are_of_one_size() -> None:
    """As many weights in the layers; the table of relative positions is one for all layers here, one for each there."""
    mine = sum(weight.numel() for weight in ours(SMALL, "shared").encoder.parameters())
    theirs = sum(weight.numel() for name, weight in beit(SMALL).named_parameters() if "layers." in name and "relative" not in name)
    assert mine == theirs


@pytest.mark.parametrize("every", [0, 1, 2])
def test_grams_are_gathered_in_the_pass(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 images of 197 tokens: none, all, every second."""
    collectors: list[modality_alone.Collector] = []
    build = modality_alone.Collector
    monkeypatch.setattr(modality_alone, "Collector", lambda *arguments: collectors.append(build(*arguments)) or collectors[0])
    gram(every, SMALL)()
    tokens = [set(collector.total().counts.values()) for collector in collectors]
    assert tokens == ([] if not every else [{2 * 197 // every}])
