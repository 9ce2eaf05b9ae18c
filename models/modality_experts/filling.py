"""Fill a model from another one's tensors: copied where names agree, spread over experts, resized; what is new is drawn from a seed."""

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from foundation.errors import ConfigError, InputError
from models.modality_experts.config import ModalityExpertsConfig
from models.modality_experts.embeddings import IMAGE_TYPE
from models.modality_experts.initial import draw_weights
from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.positions import resized, window_of

TABLE = "relative_positions.table"
TYPES = "embeddings.token_type.weight"
MASK_PATCH = "embeddings.mask_patch"
HINT = "give a config of the checkpoint's sizes"
PART = re.compile(r"^(?P<part>encoder\.layers\.(?P<layer>\d+)\.(?:attention|mlp|norm1|norm2))\.(?:(?P<expert>v|l|vl)\.)?(?P<rest>.+)$")
"""A tensor of a part that may be a modality's own, with the expert's component or without."""


def new(config: ModalityExpertsConfig, seed: int) -> ModalityExpertsModel:
    """A model with weights drawn from `seed`, float32, in evaluation mode. The caller's random state is left as it was.

    A head's weights depend on the seed, its name and its sizes alone, so models that differ elsewhere start with equal heads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ModalityExpertsModel(config).float().eval()
        for name in config.heads:
            draw_head(model, name, seed)
    return model


def draw_head(model: ModalityExpertsModel, name: str, seed: int) -> None:
    """Draw a head (with "mim" also the vector of masked patches) from `seed` and its name."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7]))
    spread = model.config.initializer_range
    model.heads[name].apply(lambda module: draw_weights(module, spread))
    if name == "mim" and model.embeddings.mask_patch is not None:
        nn.init.trunc_normal_(model.embeddings.mask_patch, std=spread)


def adopt(tensors: Mapping[str, Tensor], config: ModalityExpertsConfig, seed: int, origin: str) -> ModalityExpertsModel:
    """A model of `config` with `tensors` (our names), float32, in evaluation mode; its new heads are drawn from `seed`.

    A modality's own part is taken from its own tensors, else from the shared part, else (VL) from the vision expert's. The table's patch
    offsets are interpolated to the image size. Added rows of the type table are copies of the image's. Heads that the config does not name
    are left out. InputError (which names `origin`) where anything else is missing, left over, or of another shape; ConfigError where
    experts would have to become one.
    """
    model = new(config, seed)
    targets = model.state_dict()
    held = {head_of(name) for name in tensors}
    used = {name: found for name in targets if (found := source_of(name, tensors, origin)) is not None}
    missing = [name for name in targets if name not in used and (head_of(name) is None or head_of(name) in held)]
    taken = set(used.values())
    spare = [name for name in tensors if name not in taken and head_of(name) is None and not _above(name, config.fusion_layer)]
    for words, names in (("finds nothing for", missing), ("has no place for", spare)):
        if names:
            raise InputError(f"{origin}: the model {words} {len(names)} tensors, e.g. {names[0]!r}; {HINT}")
    fill({name: _fitted(name, tensors[found], targets[name]) for name, found in used.items()}, targets, origin)
    return model


def head_of(name: str) -> str | None:
    """The head that a tensor belongs to, None for one of the body."""
    return "mim" if name == MASK_PATCH else name.split(".")[1] if name.startswith("heads.") else None


def _above(name: str, fusion_layer: int) -> bool:
    """Whether a tensor is of a vision-language expert below the fusion layer, where the model has none any more."""
    own = PART.match(name)
    return own is not None and own["expert"] == "vl" and int(own["layer"]) < fusion_layer


def source_of(name: str, tensors: Mapping[str, Tensor], origin: str) -> str | None:
    """The name in `tensors` that fills `name`."""
    part = PART.match(name)
    if name in tensors or part is None:
        return name if name in tensors else None
    if part["expert"]:
        candidates = [f"{part['part']}.{part['rest']}", *([f"{part['part']}.v.{part['rest']}"] if part["expert"] == "vl" else [])]
        return next((candidate for candidate in candidates if candidate in tensors), None)
    apart = f"{part['part']}.v.{part['rest']}"
    if apart in tensors:
        raise ConfigError(
            f"{origin}: {apart!r} is the vision expert's own and would have to become the shared {name!r}; "
            "that is a merge: merge the experts first, then start from the merged checkpoint"
        )
    return None


def _fitted(name: str, tensor: Tensor, target: Tensor) -> Tensor:
    """`tensor` in the rows of `target`, for the two tensors that may grow: the position table and the type table."""
    if name == TABLE:
        return resized(tensor, window_of(target))
    if name == TYPES and len(tensor) < len(target):
        return torch.cat((tensor, tensor[IMAGE_TYPE].expand(len(target) - len(tensor), -1)))
    return tensor[: len(target)] if name == TYPES else tensor


def fill(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor], origin: str) -> None:
    """Write `tensors` into `targets`; InputError where a shape differs."""
    for name, tensor in tensors.items():
        if tensor.shape != targets[name].shape:
            shapes = f"{list(tensor.shape)}, the model has {list(targets[name].shape)}"
            raise InputError(f"{origin}: {name!r} has shape {shapes}; {HINT}")
        targets[name].copy_(tensor)
