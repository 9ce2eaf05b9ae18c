"""The names of a model's parameters as selections see them: those of the plain model in memory, whatever is wrapped around it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from models.parts.layouts import LAYOUTS, TEXT_ONLY, Layout, part_of, place_in_layer

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

WRAPPING = re.compile(r"^(?:module\.|base_model\.model\.)+|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
ADAPTED = re.compile(r"\.base_layer(?=\.)|\.original_module(?=\.)|\.modules_to_save\.\w+(?=\.)")
ADAPTER = re.compile(r"\.lora_\w+(\.\w+)?(\.weight)?$")


def plain_name(name: str) -> str:
    """The name a parameter has, or has the place of, in the plain model: without the prefixes of DDP, FSDP, compile and PEFT.

    An adapter's weight goes by the weight that it adapts: `base_model.model.lm_head.lora_A.default.weight` -> `lm_head.weight`.
    """
    return ADAPTER.sub(".weight", ADAPTED.sub("", WRAPPING.sub("", name)))


@dataclass(frozen=True)
class Names:
    """The names of a model's parameters, and what is needed to tell its parts apart."""

    title: str
    layout: Layout
    plain: tuple[str, ...]
    tied: Mapping[str, str]
    """Names that stand for another parameter's weights, such as a tied `lm_head.weight`, and that parameter's name."""

    def layers(self, part: str) -> dict[str, tuple[int, str]]:
        """(layer, rest of the name) by name, for the weights of `part` in its numbered layers."""
        places = {name: place_in_layer(name, part, self.layout) for name in self.plain}
        return {name: place for name, place in places.items() if place}

    @cached_property
    def parts(self) -> dict[str, str | None]:
        """Which whole part each name belongs to."""
        return {name: part_of(name, self.layout) for name in self.plain}


def names_of(model: "nn.Module") -> Names:
    """The names of `model`, which may be wrapped (DDP, FSDP, compile, PEFT)."""
    kind: Any = model
    while inner := next((getattr(kind, name) for name in ("module", "_orig_mod") if hasattr(kind, name)), None):
        kind = inner
    kind = kind.get_base_model() if hasattr(kind, "get_base_model") else kind
    plain = tuple(dict.fromkeys(plain_name(name) for name, _ in model.named_parameters()))
    tied = getattr(kind, "all_tied_weights_keys", None) or {}
    return Names(f"{type(kind).__name__} ({kind.config.model_type})", layout_for(kind.config), plain, dict(tied))


def layout_for(config: "PretrainedConfig") -> Layout:
    """Where a model with this config keeps its parts; InputError for one with images whose family the table does not have."""
    if config.model_type in LAYOUTS:
        return LAYOUTS[config.model_type]
    if getattr(config, "vision_config", None) is None:
        return TEXT_ONLY
    raise InputError(
        f"the parts of model type {config.model_type!r} are not known; use one of {', '.join(sorted(LAYOUTS))}, "
        "a text-only model, or add a row to LAYOUTS in models/parts/layouts.py"
    )


def layout_of(model: "nn.Module") -> Layout:
    """Where `model` keeps its parts; InputError as `layout_for`."""
    return layout_for(model.config)
