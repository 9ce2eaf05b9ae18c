"""Models to start a stage from: drawn from a seed, or an earlier directory in the shape that a stage wants.

`from_beit` and `from_vlmo` start from other families' checkpoints; all fill a model through `filling.adopt`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError
from models.modality_experts.beit import from_beit
from models.modality_experts.config import ModalityExpertsConfig, Sharing
from models.modality_experts.filling import adopt, head_of, new
from models.modality_experts.layers import OWN
from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.saving import load
from models.modality_experts.vlmo import from_vlmo

__all__ = ["from_beit", "from_vlmo", "new", "reshaped"]


def reshaped(
    directory: str | Path,
    *,
    sharing: str | None = None,
    fusion_layer: int | None = None,
    heads: Sequence[str] | None = None,
    image_size: int | None = None,
    max_text_length: int | None = None,
    answers: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    token_types: int | None = None,
    seed: int = 0,
) -> ModalityExpertsModel:
    """The model in `directory` in the shape that a stage wants, float32, in evaluation mode; what is None stays as it is.

    Parts that become a modality's own start as copies of the shared part; vision-language experts that a lower fusion layer adds, as copies
    of the vision experts. Heads not in `heads` are dropped; heads that are new, or choose among other answers or classes, are drawn from
    `seed`. The table's patch offsets are interpolated to the image size. Type rows are added as copies of the image's; the head "nlvr2"
    wants three, and gets them. ConfigError for own parts that should become shared: that is a merge.
    """
    source = load(directory)
    wanted: dict[str, Any] = {
        "sharing": sharing,
        "fusion_layer": fusion_layer,
        "heads": None if heads is None else list(heads),
        "image_size": image_size,
        "max_text_length": max_text_length,
        "answers": None if answers is None else list(answers),
        "classes": None if classes is None else list(classes),
        "token_types": token_types,
    }
    config = _changed(source.config, {name: value for name, value in wanted.items() if value is not None})
    _refuse_merge(Sharing(source.config.sharing), Sharing(config.sharing), directory)
    renewed = {head for head, field in (("vqa", "answers"), ("classification", "classes")) if _differ(source.config, config, field)}
    tensors = {name: tensor for name, tensor in source.state_dict().items() if head_of(name) not in renewed}
    return adopt(tensors, config, seed, str(directory))


def _changed(config: ModalityExpertsConfig, changes: dict[str, Any]) -> ModalityExpertsConfig:
    """`config` with `changes`; with three token types at least where two images are compared."""
    values = {**config.to_dict(), **changes}
    if "nlvr2" in values["heads"] and "token_types" not in changes:
        values["token_types"] = max(3, config.token_types)
    return ModalityExpertsConfig(**values)


def _differ(one: ModalityExpertsConfig, other: ModalityExpertsConfig, field: str) -> bool:
    return getattr(one, field) != getattr(other, field)


def _refuse_merge(old: Sharing, new_sharing: Sharing, directory: str | Path) -> None:
    if any(was and not is_now for was, is_now in zip(OWN[old], OWN[new_sharing], strict=True)):
        raise ConfigError(
            f"{directory} has sharing {old.value!r}, and {new_sharing.value!r} shares parts that each modality has of its own there; "
            "that is a merge: merge the experts first, then start from the merged checkpoint"
        )
