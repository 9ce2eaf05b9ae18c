"""Start from a PyTorch Lightning `.ckpt` in the layout of VLMo's family, shared or with experts: names by a table, weights only."""

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundation.errors import ConfigError, InputError
from models.modality_experts.config import ModalityExpertsConfig
from models.modality_experts.filling import PART, adopt
from models.modality_experts.model import ModalityExpertsModel

WORDS, BERT_TYPES = "embeddings.word.weight", "text_embeddings.token_type_embeddings.weight"

NAMES: tuple[tuple[str, str], ...] = (
    (r"text_embeddings\.word_embeddings\.weight", WORDS),
    (r"text_embeddings\.LayerNorm\.(weight|bias)", r"embeddings.text_norm.\1"),
    (r"token_type_embeddings\.weight", "embeddings.token_type.weight"),
    (r"transformer\.patch_embed\.proj\.(weight|bias)", r"embeddings.patch.\1"),
    (r"transformer\.cls_token", "embeddings.cls"),
    (r"relative_position_bias_table", "relative_positions.table"),
    (
        r"transformer\.blocks\.(\d+)\.attn\.((?:v\.|l\.|vl\.)?(?:qkv\.weight|proj\.weight|proj\.bias|q_bias|v_bias))",
        r"encoder.layers.\1.attention.\2",
    ),
    (r"transformer\.blocks\.(\d+)\.(mlp\.(?:v\.|l\.|vl\.)?fc[12]\.(?:weight|bias))", r"encoder.layers.\1.\2"),
    (r"transformer\.blocks\.(\d+)\.(norm[12]\.(?:v\.|l\.|vl\.)?(?:weight|bias))", r"encoder.layers.\1.\2"),
    (r"transformer\.blocks\.(\d+)\.gamma_([12])", r"encoder.layers.\1.gamma\2"),
    (r"transformer\.norm\.(weight|bias)", r"norm.\1"),
    (r"pooler\.dense\.(weight|bias)", r"pooler.dense.\1"),
    (r"mlm_score\.transform\.dense\.(weight|bias)", r"heads.mlm.dense.\1"),
    (r"mlm_score\.transform\.LayerNorm\.(weight|bias)", r"heads.mlm.norm.\1"),
    (r"mlm_score\.decoder\.weight", "heads.mlm.decoder.weight"),
    (r"mlm_score\.bias", "heads.mlm.decoder.bias"),
    (r"itm_score\.fc\.(weight|bias)", r"heads.itm.out.\1"),
    (r"ifm_(text|image)_proj\.fc\.weight", r"heads.itc.\1_projection.weight"),
    (r"ifm_vl_(text|image)_proj\.fc\.weight", r"heads.itc_vl.\1_projection.weight"),
    (r"logit_scale", "heads.itc.logit_scale"),
    (r"logit_vl_scale", "heads.itc_vl.logit_scale"),
    (r"(vqa|nlvr2)_classifier\.0\.(weight|bias)", r"heads.\1.dense.\2"),
    (r"(vqa|nlvr2)_classifier\.1\.(weight|bias)", r"heads.\1.norm.\2"),
    (r"(vqa|nlvr2)_classifier\.3\.(weight|bias)", r"heads.\1.out.\2"),
    (r"img_cls_classifier\.(weight|bias)", r"heads.classification.out.\1"),
)
"""Their name, ours."""

LEFT_OUT = (
    r".*relative_position_index",  # computed here
    r"temporal_relative_position_bias_table|mask_for_combining_temporal",  # for video; never used in the model's own tasks
    r"text_embeddings\.(position_ids|position_embeddings\.weight)",  # absolute positions, which a model with relative ones does not read
    r"text_embeddings\.token_type_embeddings\.weight",  # added into the words, see `_words`
    r"mim_score\..*|transformer\.mask_token|d_vae\..*",  # masked images as codes of a dVAE; here they are pixels
)
"""Tensors that have no part in the model."""


def from_vlmo(ckpt: str | Path, config: ModalityExpertsConfig, seed: int = 0) -> ModalityExpertsModel:
    """A model of `config` with the weights of a Lightning checkpoint, float32, in evaluation mode.

    Heads that the config names and the file lacks are drawn from `seed`, heads that it does not name are left out; shared parts are copied
    where the config gives each modality its own. The position table is interpolated to the config's image size. InputError for a file that
    holds more than weights and plain values, for a name that is not in the table, and where the sizes differ; ConfigError for another
    fusion layer.
    """
    state = read_lightning(ckpt)
    tensors: dict[str, Tensor] = {}
    for name in sorted(state):
        if not any(re.fullmatch(pattern, name) for pattern in LEFT_OUT):
            tensors[ours(name, ckpt)] = state[name].float()
    if BERT_TYPES in state and WORDS in tensors:
        tensors[WORDS] = _words(tensors[WORDS], state[BERT_TYPES].float())
    fused = [int(found["layer"]) for name in tensors if (found := PART.match(name)) and found["expert"] == "vl"]
    if fused and min(fused) != config.fusion_layer:
        raise ConfigError(
            f"{ckpt}: has vision-language experts from layer {min(fused)} on, the config from {config.fusion_layer} on; "
            f"set fusion_layer: {min(fused)}, and reshape the model afterwards where you want another"
        )
    return adopt(tensors, config, seed, str(ckpt))


def ours(name: str, ckpt: str | Path) -> str:
    """Our name for one of theirs; InputError where the table has none."""
    for pattern, replacement in NAMES:
        if found := re.fullmatch(pattern, name):
            return found.expand(replacement)
    raise InputError(f"{ckpt}: no rule for the tensor {name!r}; name a checkpoint of VLMo's family, or leave this tensor out of the file")


def read_lightning(ckpt: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.ckpt`, on the CPU: its `state_dict`, or the file itself where it is one. Nothing in it is run."""
    try:
        held: Any = torch.load(ckpt, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, struct.error) as error:
        raise InputError(
            f"{ckpt}: cannot be read as weights and plain values alone ({type(error).__name__}); "
            "code in a pickle is never run here, so save its state_dict by itself where you trust it"
        ) from error
    state = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{ckpt}: holds no state_dict of tensors; name a checkpoint that Lightning wrote")
    return state


def _words(words: Tensor, types: Tensor) -> Tensor:
    """The word table with BERT's own first type row added: a text's tokens are all of that type, and nothing lies between the two."""
    return words + types[0]
