"""A step's loss and gradient are a mean over the answer tokens of the global batch, in every family, however the batch is cut."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import TINY
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, TrainerControl, TrainerState

from foundation.errors import InputError
from trainers.callbacks import Progress
from trainers.data.collate import IGNORED
from trainers.data.order import StageOrder
from trainers.loop import StageTrainer, training_arguments
from trainers.spec import TrainSpec, plan_batches
from trainers.strategy import Adaptation

SPEC = TrainSpec(parts=("language_model",), learning_rate=1e-3, max_steps=1, batch_size=8)


def one_step(model: PreTrainedModel, micro: int, work: Path) -> dict[str, float]:
    """What is logged of one step over eight texts with answers of 1, 2, 3 ... tokens, in micro batches of `micro`."""
    spec = SPEC if micro == 8 else TrainSpec(**{**SPEC.identity, "micro_batch_size": micro})
    batches = plan_batches(spec, 1, 8)
    tokens = torch.randint(10, 60, (8, 12), generator=torch.Generator().manual_seed(0))

    def collate(indices: Any) -> dict[str, torch.Tensor]:
        labels = tokens.masked_fill(torch.arange(12) < 11 - torch.arange(8)[:, None], IGNORED)
        places = list(indices)
        plain = {"input_ids": tokens[places], "attention_mask": torch.ones(len(places), 12).long(), "labels": labels[places]}
        return plain | ({"token_type_ids": torch.zeros(len(places), 12).long()} if model.config.model_type == "paligemma" else {})

    logged: dict[str, float] = {}
    args = training_arguments(spec, batches, work)
    progress = Progress(1, lambda step, values: logged.update(values))
    StageTrainer(model, args, StageOrder(8, 8, batches, 0), collate, Adaptation(trained={}), [progress]).train()
    return logged


@pytest.mark.parametrize("family", sorted(TINY))
def test_no_micro_batch_changes_a_step(family: str, tmp_path: Path) -> None:
    """To float32's rounding. A mean of the micro batches' means is off by 2e-3 in the loss and 2e-2 in the norm (measured)."""
    steps = []
    for micro in (8, 2):
        torch.manual_seed(0)
        steps.append(one_step(TINY[family](), micro, tmp_path))
    assert steps[0]["train/loss"] > 1
    for name in ("train/loss", "train/grad_norm"):
        assert steps[1][name] == pytest.approx(steps[0][name], rel=1e-5)


class Deaf(LlamaForCausalLM):
    """Takes the count of answer tokens, and leaves it."""

    def forward(self, *args: Any, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class Closed(LlamaForCausalLM):
    """Takes what it names and nothing else."""

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> Any:
        return super().forward(input_ids, attention_mask, labels=labels)


@pytest.mark.parametrize("kind", [Deaf, Closed])
def test_a_model_that_counts_by_itself_is_refused(kind: type[PreTrainedModel], tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    with pytest.raises(InputError, match=f"{kind.__name__} takes the mean of its loss over each micro batch by itself"):
        one_step(kind(LlamaConfig(**sizes)), 8, tmp_path)


def logged(progress: Progress, step: int, loss: float, norm: float, fp16: bool = True) -> None:
    """Let `progress` hear of one step of a stage of 30."""
    state = TrainerState(global_step=step, max_steps=30, log_history=[{"loss": loss, "step": step}])
    args = SimpleNamespace(fp16=fp16, learning_rate=1e-3)
    progress.on_log(args, state, TrainerControl(), {"loss": loss, "grad_norm": norm, "learning_rate": 1e-3})


def test_float16_may_skip_steps_but_not_for_ever() -> None:
    """Its scale of the loss is too large at first; the step is skipped, and the scale halved."""
    told: list[dict[str, float]] = []
    progress = Progress(1, lambda step, values: told.append(values))
    for step in range(1, 20):
        logged(progress, step, 2.0, math.inf)
    logged(progress, 20, 2.0, 1.0)
    assert "train/grad_norm" not in told[0]  # there is none
    assert told[19]["train/grad_norm"] == 1.0
    for step in range(1, 20):
        logged(progress, step, 2.0, math.nan)
    with pytest.raises(InputError, match=r"step 20 of 30: grad_norm is nan.*or set precision: bfloat16"):
        logged(progress, 20, 2.0, math.nan)


@pytest.mark.parametrize(("loss", "norm", "fp16"), [(math.nan, 1.0, True), (math.inf, math.inf, True), (2.0, math.inf, False)])
def test_any_other_number_that_is_none_stops_the_stage(loss: float, norm: float, fp16: bool) -> None:
    with pytest.raises(InputError, match="training broke at step 1"):
        logged(Progress(1, None), 1, loss, norm, fp16)
