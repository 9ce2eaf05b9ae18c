"""Learning without Forgetting: the formula, its identities, and that nothing of the teacher stays behind."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from penalised import (
    CALM,
    SHORT,
    batch_of,
    changed,
    is_trained,
    largest_difference,
    moved_model,
    tensors,
)

import trainers.strategies.distillation
from foundation.errors import ConfigError
from foundation.files import directory_manifest
from models.load import load_model
from trainers.checkpoints.resume import trained_state
from trainers.spec import Precision
from trainers.strategies.distillation import Distillation, divergence, predicts_answer
from trainers.strategies.lwf import LearningWithoutForgetting
from trainers.strategy import Context
from trainers.train import StageResult

Stage = Callable[..., StageResult]


def naive(teacher: torch.Tensor, student: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL summed over the answer tokens, token by token in float64, from whole logits [B, T, V]."""
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(labels)):
        for place in range(labels.shape[1] - 1):
            if labels[row, place + 1] != -100:
                told = torch.softmax(teacher[row, place].double() / temperature, dim=0)
                said = torch.softmax(student[row, place].double() / temperature, dim=0)
                total = total + temperature**2 * (told * (told / said).log()).sum()
    return total


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_loss_is_the_formula(base: Path, temperature: float) -> None:
    """Value and gradient, to float32's rounding of logits of size 1 to 10."""
    model, teacher = moved_model(base), load_model(base, torch.float32)
    batch = batch_of(base, 5, "read")
    tokens = (batch["labels"][:, 1:] != -100).sum()
    outputs = model(**batch, num_items_in_batch=tokens)
    loss = Distillation(teacher, 0.7, temperature, Precision.FLOAT32)(model, batch, outputs, tokens)
    apart = naive(teacher(**batch).logits, outputs.logits, batch["labels"], temperature)
    torch.testing.assert_close(loss.double(), outputs.loss.double() + 0.7 * apart / tokens, rtol=1e-5, atol=1e-6)
    assert float(apart.detach() / tokens) > 1e-3  # the two really say different things
    ours = torch.autograd.grad(loss - outputs.loss, model.lm_head.weight, retain_graph=True)[0]
    theirs = torch.autograd.grad(0.7 * apart / tokens, model.lm_head.weight)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_only_what_predicts_an_answer_counts() -> None:
    labels = torch.tensor([[-100, -100, 5, 6], [7, -100, -100, -100]])
    assert predicts_answer(labels).tolist() == [[False, True, True, False], [False] * 4]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_keep_value_and_gradient(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(10, 50, generator=generator) * 3 for _ in range(2))
    student.requires_grad_()
    monkeypatch.setattr(trainers.strategies.distillation, "CHUNK", chunk)
    value = divergence(teacher, student, 2.0)
    exact = naive(teacher[None], student[None], torch.zeros(1, 11), 2.0) / 4
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)
    expected = (torch.softmax(student.detach() / 2, -1) - torch.softmax(teacher / 2, -1)) / 2
    torch.testing.assert_close(torch.autograd.grad(value, student)[0], expected, rtol=1e-5, atol=1e-7)


def test_no_answer_token_is_no_divergence() -> None:
    student = torch.zeros(0, 50, requires_grad=True)
    assert float(divergence(torch.zeros(0, 50), student, 2.0)) == 0


def test_a_teacher_that_gives_all_logits_says_the_same(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, batch = load_model(base, torch.float32), batch_of(base, 4, "read")
    answers = predicts_answer(batch["labels"])
    hook = Distillation(teacher, 1.0, 1.0, Precision.FLOAT32)
    few = hook.told(batch, answers)
    assert "logits_to_keep" in inspect.signature(teacher.forward).parameters
    forward = teacher.forward

    def without(input_ids: Any, pixel_values: Any, attention_mask: Any, use_cache: bool) -> Any:
        return forward(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask, use_cache=use_cache)

    monkeypatch.setattr(teacher, "forward", without)
    torch.testing.assert_close(few, hook.told(batch, answers), rtol=1e-5, atol=1e-6)  # another matrix shape sums in another order
    assert few.shape == (int(answers.sum()), 424)


def test_weight_zero_is_plain_and_a_large_one_follows_the_teacher(base: Path, spec: Any, stage: Stage, tmp_path: Path) -> None:
    """Also: frozen weights keep their bits, and the KL that is left after learning falls with the weight."""
    none = LearningWithoutForgetting(weight=0.0)
    stage("plain", **SHORT)
    for weight in (0.0, 100.0):
        stage(f"weight-{weight}", strategy=LearningWithoutForgetting(weight=weight), **SHORT)
    plain, zero, taught = tmp_path / "plain", tmp_path / "weight-0.0", tmp_path / "weight-100.0"
    assert directory_manifest(plain) == directory_manifest(zero)
    assert {name for name in tensors(base) if is_trained(name)} == changed(base, taught) == changed(base, plain)
    adaptation = none.start(load_model(base), Context(base, spec, 7))
    assert (adaptation.loss, none.memory(100, 10)) == (None, 0)
    assert LearningWithoutForgetting(weight=0.1).memory(100, 10) == 400
    batch = batch_of(base, 8)
    answers = predicts_answer(batch["labels"])
    with torch.no_grad():
        told, *said = (load_model(where)(**batch).logits[answers] for where in (base, plain, taught))
    far, near = (float(divergence(told, each, 1.0)) for each in said)
    assert far > 2 * near > 0


def test_micro_batches_add_up(stage: Stage, tmp_path: Path) -> None:
    """As for the plain loss: close, since sums run in another order."""
    strategy = LearningWithoutForgetting(weight=2.0)
    stage("whole", strategy=strategy, **SHORT, **CALM)
    stage("pieces", strategy=strategy, micro_batch_size=2, **SHORT, **CALM)
    assert largest_difference(tmp_path / "whole", tmp_path / "pieces") < 1e-5


def test_nothing_of_the_teacher_is_part_of_the_model(base: Path, spec: Any) -> None:
    """So neither checkpoints nor the output can hold any of it."""
    model, plain = load_model(base, torch.float32), load_model(base, torch.float32)
    LearningWithoutForgetting(weight=0.0).start(plain, Context(base, spec, 7))
    adaptation = LearningWithoutForgetting().start(model, Context(base, spec, 7))
    assert (model.state_dict().keys(), trained_state(model).keys()) == (plain.state_dict().keys(), trained_state(plain).keys())
    assert adaptation.model is None
    assert isinstance(adaptation.loss, Distillation)
    assert not any(weight.requires_grad for weight in adaptation.loss.teacher.parameters())
    assert not {weight.data_ptr() for weight in adaptation.loss.teacher.parameters()} & {each.data_ptr() for each in model.parameters()}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_teacher_computes_as_the_student_does(base: Path, precision: str) -> None:
    """At the start both are one model, so in one arithmetic they say the same; the rest is the order of sums over fewer columns."""
    model, teacher, batch = load_model(base, torch.float32), load_model(base, torch.float32), batch_of(base, 4)
    answers = predicts_answer(batch["labels"])
    with torch.no_grad(), torch.autocast("cpu", getattr(torch, precision)):
        said = model(**batch).logits[answers].float()
    alike, apart = (
        float((Distillation(teacher, 1.0, 1.0, each).told(batch, answers).float() - said).abs().max())
        for each in (Precision(precision), Precision.FLOAT32)
    )
    assert alike < 0.1 * apart


def test_out_of_memory_is_an_error(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(trainers.strategies.distillation, "summed_kl", full)
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        stage("never", strategy=LearningWithoutForgetting())
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weight": -1.0}, r"strategy lwf: weight is -1.0; give a number of 0 or more"),
        ({"weight": math.inf}, "weight is inf"),
        ({"temperature": 0.0}, r"temperature is 0.0; give a number above 0"),
        ({"temperature": math.nan}, "temperature is nan"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LearningWithoutForgetting(**values)
