"""Sequential Fine-tuning with Averaging: its identities with plain fine-tuning and with a WiSE-FT merge, and when it averages."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penalised import SHORT, changed, is_trained, resumed_is_undisturbed, tensors

from foundation.errors import ConfigError
from foundation.files import directory_manifest
from mergers import Source, WiseFT, execute, plan_merge, read_checkpoint
from mergers.methods.linear import average
from models.load import load_model
from trainers.anchor import copies
from trainers.strategies.averaging import Averaging, interpolate
from trainers.strategies.sfa import SequentialAveraging
from trainers.strategy import Context
from trainers.train import StageResult

Stage = Callable[..., StageResult]


def test_with_plain_fine_tuning_and_wise_ft(base: Path, stage: Stage, tmp_path: Path) -> None:
    """Averaging once, at the end, is plain fine-tuning and a WiSE-FT merge; averaging with weight 0 is plain fine-tuning."""
    stage("plain", **SHORT)
    stage("zero", strategy=SequentialAveraging(share=0.3, earlier_weight=0.0), **SHORT)
    assert directory_manifest(tmp_path / "plain") == directory_manifest(tmp_path / "zero")
    for weight in (0.3, 0.8):
        stage(f"averaged-{weight}", strategy=SequentialAveraging(share=1.0, earlier_weight=weight), **SHORT)
        sources = [Source("previous", read_checkpoint(base)), Source("tuned", read_checkpoint(tmp_path / "plain"))]
        execute(plan_merge(WiseFT(alpha=weight), sources, tmp_path / f"merged-{weight}"))
        assert changed(tmp_path / f"merged-{weight}", tmp_path / f"averaged-{weight}") == set()
        assert changed(base, tmp_path / f"averaged-{weight}") == {name for name in tensors(base) if is_trained(name)}


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 3.3, 1e30]), min_size=8, max_size=8), st.floats(0, 1))
def test_the_average_has_a_merge_s_bits(values: list[float], weight: float) -> None:
    start, tuned = torch.tensor(values[:4]), torch.tensor(values[4:])
    ours, theirs = interpolate(start, tuned, weight), average([start, tuned], [weight, 1.0 - weight])
    assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, [1, 2, 3, 4, 5, 6, 7]), (0.3, [2, 4, 6, 7]), (0.45, [3, 6, 7]), (0.5, [4, 7]), (1.0, [7])]
)
def test_when_it_averages(share: float, expected: list[int]) -> None:
    """After those of 7 steps, and once each: the optimizer is taken to add 1 at every step."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    averaging = Averaging(copies(model), SequentialAveraging(share).every(7), 0.5, True)
    seen = []
    for step in range(7):
        with torch.no_grad():
            before = float(model.weight.add_(1.0))
        averaging.on_optimizer_step(None, SimpleNamespace(global_step=step, max_steps=7), None, model=model)  # type: ignore[arg-type]
        assert float(model.weight.detach()) in (before, before / 2)
        seen += [step + 1] if float(model.weight.detach()) != before else []
    assert seen == expected


def test_resumed_is_undisturbed(stage: Stage, tmp_path: Path) -> None:
    """It averages at steps 2, 4, 6 and 7, and checkpoints are taken at 2, 4 and 6. With the optimizer's state kept: see the test of EWC."""
    resumed_is_undisturbed(stage, tmp_path, SequentialAveraging(share=0.3, keep_optimizer_state=False), at=7, resumed_from=6)


@pytest.mark.parametrize("keep", [True, False])
def test_moments_may_begin_anew(keep: bool) -> None:
    """After an average that resets them, AdamW takes, bit for bit, the step that a new AdamW takes; else another."""
    used, fresh = torch.nn.Linear(5, 2), torch.nn.Linear(5, 2)
    optimizer = torch.optim.AdamW(used.parameters(), lr=0.1)
    for _ in range(3):
        used(torch.ones(5)).square().sum().backward()
        optimizer.step()
    state: Any = SimpleNamespace(global_step=2, max_steps=9)
    Averaging(copies(used), 3, 0.5, keep).on_optimizer_step(None, state, None, model=used, optimizer=optimizer)  # type: ignore[arg-type]
    fresh.load_state_dict(used.state_dict())
    for model, each in ((used, optimizer), (fresh, torch.optim.AdamW(fresh.parameters(), lr=0.1))):
        model.zero_grad()
        model(torch.ones(5)).square().sum().backward()
        each.step()
    assert torch.equal(used.weight, fresh.weight) != keep


def test_memory_and_what_it_starts_with(base: Path, spec: Any) -> None:
    adaptation = SequentialAveraging().start(load_model(base), Context(base, spec, 100))
    (averaging,) = adaptation.callbacks
    assert isinstance(averaging, Averaging)
    assert averaging.every == 25
    held = sum(tensor.nbytes for tensor in averaging.start.values())
    assert held == SequentialAveraging().memory(10**9, sum(adaptation.trained.values()))


def test_half_precision_files_are_rounded_once(base: Path, stage: Stage, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    for path in base.iterdir():
        (start / path.name).write_bytes(path.read_bytes())
    load_model(base, torch.bfloat16).save_pretrained(start)
    stage("averaged", start=start, strategy=SequentialAveraging(share=1.0), **SHORT)
    before, after = tensors(start), tensors(tmp_path / "averaged")
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert all(torch.equal(before[name], after[name]) for name in before if not is_trained(name))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"share": 0.0}, r"strategy sfa: share is 0.0; give a share of the stage's steps above 0, up to 1"),
        ({"share": 1.5}, "share is 1.5"),
        ({"earlier_weight": -0.1}, r"earlier_weight is -0.1; give a number from 0 to 1"),
        ({"earlier_weight": float("nan")}, "earlier_weight is nan"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SequentialAveraging(**values)
