"""What is applied to a model from outside, in one process: refusals, recomputing, compiling, the optimizer's groups, DDP's search."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, Trainer

from foundation.errors import ConfigError, InputError, MergelineError, ResourceError
from foundation.files import directory_manifest
from models.digits_llava import digits_llava
from models.parts import set_trainable
from trainers.loop import training_arguments
from trainers.parallelize import (
    blocks_of,
    check_parallel,
    check_sharded,
    decoder_layers,
    load_whole_optimizer_state,
    looks_for_unused,
    parallelize,
    whole_optimizer_state,
)
from trainers.parameter_groups import parameter_groups
from trainers.spec import TrainSpec, plan_batches

CPU = torch.device("cpu")


@pytest.fixture
def model() -> PreTrainedModel:
    return digits_llava(seed=0)


@pytest.mark.parametrize(
    ("changes", "gpu", "kind", "words"),
    [
        ({"precision": "float16"}, False, ResourceError, "float16 needs a GPU, and this worker has none; set bfloat16 or float32"),
        ({"precision": "float16", "sharding": "full"}, True, ConfigError, "set bfloat16"),
    ],
)
def test_refused_before_any_weight_is_read(
    spec: TrainSpec, changes: dict[str, Any], gpu: bool, kind: type[MergelineError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        check_parallel(replace(spec, **changes), gpu)


@pytest.mark.parametrize("changes", [{"sharding": "full"}, {"precision": "bfloat16"}, {"sharding": "gradients", "cpu_offload": True}])
def test_honoured(spec: TrainSpec, changes: dict[str, Any]) -> None:
    check_parallel(replace(spec, **changes), False)


def test_compile_without_a_compiler_is_refused_by_name(spec: TrainSpec) -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(ResourceError, match="compile needs a C\\+\\+ compiler"):
        check_parallel(replace(spec, compile=True), False)
    check_parallel(replace(spec, compile=True), True)


def test_a_model_that_cannot_recompute_is_refused(model: PreTrainedModel, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(InputError, match="cannot recompute its activations"):
        parallelize(model, replace(spec, gradient_checkpointing=True), CPU)


def test_what_is_not_sharded_is_found_out(model: PreTrainedModel) -> None:
    """accelerate makes plain DDP of FSDP on a CPU without a word."""
    with pytest.raises(ResourceError, match="trained parameters are whole"):
        check_sharded(model, model)
    model.requires_grad_(False)
    with pytest.raises(ResourceError, match="the model is inside Sequential"):
        check_sharded(model, torch.nn.Sequential(model))


def test_recomputing_activations_changes_no_bit(stage: Callable[..., Any], tmp_path: Path) -> None:
    """With frozen parts before and between the trained ones; and by the call that the pinned transformers wants."""
    parts = ("language_model.mlp", "vision_tower")
    stage("kept", parts=parts, max_steps=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "`gradient_checkpointing_enable` is deprecated")
        stage("recomputed", parts=parts, max_steps=3, gradient_checkpointing=True)
    assert directory_manifest(tmp_path / "kept") == directory_manifest(tmp_path / "recomputed")


def test_blocks_are_those_of_the_outermost_stacks(model: PreTrainedModel) -> None:
    kinds = [type(block).__name__ for block in blocks_of(model)]
    assert kinds == ["SiglipEncoderLayer"] * 2 + ["Qwen2DecoderLayer"] * 3
    assert decoder_layers(model) == blocks_of(model)[2:]  # the only ones that every batch runs
    nested = torch.nn.ModuleList(torch.nn.ModuleDict({"experts": torch.nn.ModuleList([torch.nn.Linear(2, 2)] * 2)}) for _ in range(3))
    assert blocks_of(torch.nn.Sequential(nested)) == list(nested)
    assert blocks_of(torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.ReLU()])) == []


def test_ddp_searches_for_unused_weights_only_where_it_must(model: PreTrainedModel) -> None:
    set_trainable(model, ("language_model.mlp",))
    assert not looks_for_unused(model, 2, CPU)
    assert looks_for_unused(model, 3, CPU)  # or a resumed stage would take sums in another order at its first step
    assert not looks_for_unused(model, 8, torch.device("cuda"))
    set_trainable(model, ("language_model.mlp", "projector"))
    assert looks_for_unused(model, 2, CPU)  # a batch without images


def test_the_optimizer_is_the_trainers_own(model: PreTrainedModel, spec: TrainSpec, tmp_path: Path) -> None:
    """For a spec without rates of their own: the same parameters decay, at the same rate, with the same moments."""
    set_trainable(model, ("language_model", "projector"))
    ours = replace(spec, weight_decay=0.1)
    args = training_arguments(ours, plan_batches(ours, 1, 20), tmp_path)
    theirs = Trainer(model, args, train_dataset=[0]).create_optimizer()
    mine = torch.optim.AdamW(parameter_groups(model, ours), lr=ours.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    for name in ("lr", "betas", "eps", "amsgrad"):
        assert {group[name] for group in mine.param_groups} == {group[name] for group in theirs.param_groups}
    decays = [
        {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]} for optimizer in (mine, theirs)
    ]
    assert decays[0] == decays[1]


def test_whole_optimizer_state_goes_back(model: PreTrainedModel) -> None:
    """Without sharding it is the optimizer's own."""
    set_trainable(model, ("projector",))
    trained = [each for each in model.parameters() if each.requires_grad]
    first, second = (torch.optim.AdamW(trained, lr=1e-3) for _ in range(2))
    for each in trained:
        each.grad = torch.ones_like(each)
    first.step()
    load_whole_optimizer_state(second, whole_optimizer_state(first))
    for each in trained:
        assert torch.equal(first.state[each]["exp_avg"], second.state[each]["exp_avg"])
        assert second.state[each]["step"] == 1


@pytest.mark.slow
def test_blocks_are_compiled_and_compute_the_same(spec: TrainSpec) -> None:
    """Two blocks of one kind, because compiling a whole decoder layer takes half a minute; within the order of float32 sums."""
    torch.manual_seed(0)
    plain: Any = torch.nn.Sequential(torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()) for _ in range(2)))
    compiled = copy.deepcopy(plain)
    parallelize(compiled, replace(spec, compile=True), CPU)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert all(block._compiled_call_impl is not None for block in blocks_of(compiled))
    words = torch.randn(4, 8)
    with torch.no_grad():
        assert torch.allclose(compiled[0][0](words), plain[0][0](words), rtol=1e-5, atol=1e-6)
