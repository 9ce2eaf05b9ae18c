"""Start from a Hugging Face BEiT checkpoint: its vision weights for the vision experts, and by option for all others."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundation.errors import InputError
from models.load import describe_fault, first_line, refuse_own_code
from models.modality_experts.config import ModalityExpertsConfig
from models.modality_experts.embeddings import IMAGE_TYPE
from models.modality_experts.filling import MASK_PATCH, PART, TABLE, TYPES, fill, new, source_of
from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.positions import CLS_ROWS, resized_image_rows

BODY = {
    "embeddings.cls": "embeddings.cls_token",
    MASK_PATCH: "embeddings.mask_token",
    "embeddings.patch.weight": "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch.bias": "embeddings.patch_embeddings.projection.bias",
}
LAYER = {
    "norm1.weight": "layernorm_before.weight",
    "norm1.bias": "layernorm_before.bias",
    "attention.q_bias": "attention.q_proj.bias",
    "attention.v_bias": "attention.v_proj.bias",
    "attention.proj.weight": "attention.o_proj.weight",
    "attention.proj.bias": "attention.o_proj.bias",
    "norm2.weight": "layernorm_after.weight",
    "norm2.bias": "layernorm_after.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
}
SCALES = {"gamma1": "lambda_1", "gamma2": "lambda_2"}
"""LayerScale; a checkpoint without it scales by one."""
MASKED = "BeitForMaskedImageModeling"
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")


def from_beit(directory: str | Path, config: ModalityExpertsConfig, copy: bool = True, seed: int = 0) -> ModalityExpertsModel:
    """A model of `config` that sees images as the BEiT model in `directory` does, float32, in evaluation mode.

    With `copy` the language and vision-language experts start as copies of the vision experts, else they are drawn from `seed`, as are the
    text embeddings, pooler and heads. Image rows of the type table are zero, so that an image's states are BEiT's (up to the epsilon of its
    norms). The position table's patch offsets are interpolated to the image size, its text rows are zero. InputError where the checkpoint
    is not a BEiT of the config's sizes, or has absolute positions.
    """
    tensors, table = read_beit(directory, config)
    model = new(config, seed)
    targets = model.state_dict()
    taken: dict[str, Tensor] = {}
    for name in targets:
        part = PART.match(name)
        if copy or part is None or part["expert"] in (None, "v"):
            found = source_of(name, tensors, str(directory))
            taken.update({name: tensors[found]} if found else {})
    fill(taken, targets, str(directory))
    targets[TYPES][IMAGE_TYPE:] = 0
    if table is not None:
        rows = torch.cat((resized_image_rows(table[:-CLS_ROWS], config.window), table[-CLS_ROWS:]))
        targets[TABLE][: len(rows)] = rows
    return model


def read_beit(directory: str | Path, config: ModalityExpertsConfig) -> tuple[dict[str, Tensor], Tensor | None]:
    """The weights of a BEiT checkpoint under our names, and its table of image biases [rows, layers * heads], None where it has none."""
    state = load_beit(directory, config)
    names = {ours: theirs for ours, theirs in BODY.items() if theirs in state}
    norm = "layernorm" if "layernorm.weight" in state else "pooler.layernorm"
    names.update({f"norm.{kind}": f"{norm}.{kind}" for kind in ("weight", "bias")})
    tensors = {ours: state[theirs] for ours, theirs in names.items()}
    tables = []
    for number in range(config.num_hidden_layers):
        theirs = f"layers.{number}"
        ours = f"encoder.layers.{number}"
        tensors.update({f"{ours}.{name}": state[f"{theirs}.{source}"] for name, source in LAYER.items()})
        one = torch.ones(config.hidden_size)
        tensors.update({f"{ours}.{name}": state.get(f"{theirs}.{source}", one) for name, source in SCALES.items()})
        tensors[f"{ours}.attention.qkv.weight"] = torch.cat([state[f"{theirs}.attention.{kind}_proj.weight"] for kind in "qkv"])
        tables += [state[name] for name in _table_names(number) if name in state]
    return tensors, torch.cat(tables, dim=1) if tables else None


def _table_names(number: int) -> tuple[str, str]:
    """Where the biases of a layer are: one table for all layers (then repeated), or the layer's own."""
    return "shared_position_bias.relative_position_bias_table", f"layers.{number}.relative_position_bias.relative_position_bias_table"


def load_beit(directory: str | Path, config: ModalityExpertsConfig) -> dict[str, Tensor]:
    """The state of the BEiT encoder in `directory`, float32, as it is named in memory; InputError where it does not fit `config`."""
    from transformers import AutoConfig, BeitForMaskedImageModeling, BeitModel

    refuse_own_code(directory)
    try:
        theirs = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        _refuse_sizes(theirs, config, directory)
        kind = BeitForMaskedImageModeling if MASKED in (theirs.architectures or []) else BeitModel
        model, report = kind.from_pretrained(directory, output_loading_info=True, dtype=torch.float32, ignore_mismatched_sizes=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{directory}: no BEiT checkpoint that transformers can read: {first_line(error)}") from error
    faults = [describe_fault(fault, report[f"{fault}_keys"]) for fault in ("missing", "mismatched") if report[f"{fault}_keys"]]
    if faults:
        raise InputError(f"{directory}: the tensors do not fit its config: {'; '.join(faults)}; copy the checkpoint again")
    return {name.removeprefix("beit."): tensor for name, tensor in model.state_dict().items()}


def _refuse_sizes(theirs: Any, config: ModalityExpertsConfig, directory: str | Path) -> None:
    if theirs.model_type != "beit":
        raise InputError(f"{directory}: holds a model of type {theirs.model_type!r}, not BEiT; name a BEiT checkpoint")
    sizes = [(size, getattr(theirs, size), getattr(config, size)) for size in SIZES]
    faults = [f"{size} is {held}, the config says {wanted}" for size, held, wanted in sizes if held != wanted]
    if theirs.use_absolute_position_embeddings:
        faults.append("it has absolute position embeddings, this model has relative ones alone")
    if MASKED in (theirs.architectures or []) and not theirs.use_mean_pooling:
        faults.append("it has two final norms, one after the other (masked image modelling without mean pooling), this model has one")
    if faults:
        raise InputError(f"{directory}: does not fit: {'; '.join(faults)}; name a BEiT checkpoint of the config's sizes")
