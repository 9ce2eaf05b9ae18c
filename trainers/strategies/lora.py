"""LoRA: learn a low-rank addition to the linear layers of the chosen parts, and fold it into their weights at the end.

W + (alpha / rank) B A, A and B learned, W frozen (Hu et al. 2021, "LoRA", section 4.1). PEFT's layers stand in the model while it learns;
what is written is a plain checkpoint under the start's names. With `keep_adapter` the adapter lies beside it too, as PEFT saves it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from foundation.errors import ConfigError, InputError
from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""The directory inside the checkpoint that holds a kept adapter."""
NAME = "default"
"""What PEFT calls the one adapter in memory."""


@dataclass(frozen=True)
class LoRA:
    """Train adapters on every linear layer of the stage's parts; all else, their norms, biases and embeddings too, is frozen.

    `rank` is r. `alpha` is LoRA's scale, not a merge's: the addition counts alpha / rank times. `dropout` falls on the adapters' input.
    """

    rehearses: ClassVar[bool] = False
    reads_fisher: ClassVar[bool] = False
    adds_weights: ClassVar[bool] = True

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.05
    keep_adapter: bool = False

    def __post_init__(self) -> None:
        rules = [
            (self.rank >= 1, f"rank is {self.rank}; give 1 or more"),
            (self.alpha > 0 and math.isfinite(self.alpha), f"alpha is {self.alpha}; give a positive number (16 is usual for rank 64)"),
            (0 <= self.dropout < 1, f"dropout is {self.dropout}; give 0 to below 1"),
        ]
        if problems := [message for honoured, message in rules if not honoured]:
            raise ConfigError("LoRA: " + "; ".join(problems))

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Put adapters into `model`, in place, drawn from the stage's seed; InputError for a part without linear layers."""
        layers = {part: linear_layers(model, part) for part in context.spec.parts}
        names = sorted({name for found in layers.values() for name in found})
        add_adapters(model, self, names, context.spec.seed)
        sizes = {name: sum(weight.numel() for weight in factors(model, name).values()) for name in names}
        folding = Folding(self)
        return Adaptation(
            trained={
                f"{part} (LoRA on {len(found)} linear layers, all else frozen)": sum(sizes[name] for name in found)
                for part, found in layers.items()
            },
            finish=folding.finish,
            extras=folding.write if self.keep_adapter else None,
        )

    def memory(self, weights: int, trained: int) -> int:
        """The adapters' float32 weights, which are the trained ones and no part of the model's."""
        return 4 * trained


class Folding:
    """Folds the adapters into the weights, and remembers them where they are to be kept."""

    def __init__(self, strategy: LoRA) -> None:
        self.strategy = strategy
        self.kept: dict[str, torch.Tensor] = {}
        self.layers: list[str] = []

    def finish(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """`model` with the addition in its float32 weights and its own layers back in place, as it was loaded."""
        from peft.tuners.lora import LoraLayer

        found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        if self.strategy.keep_adapter:
            self.layers = sorted(found)
            self.kept = {
                f"base_model.model.{name}.{factor}.weight": weight.detach().to("cpu", copy=True).contiguous()
                for name in self.layers
                for factor, weight in factors(model, name).items()
            }
        for name, module in found.items():
            module.merge()
            model.set_submodule(name, module.get_base_layer())
        del model.peft_config
        return model

    def write(self, directory: Path) -> None:
        """The adapter in float32, as `PeftModel.from_pretrained(start, directory / "adapter")` reads it."""
        from safetensors.torch import save_file

        target = directory / ADAPTER
        target.mkdir()
        save_file(self.kept, target / "adapter_model.safetensors", {"format": "pt"})
        settings = settled(peft_config(self.strategy, self.layers).to_dict() | {"inference_mode": True})
        (target / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def linear_layers(model: "PreTrainedModel", part: str) -> list[str]:
    """Names of the linear layers of a part, sorted. A head tied to the embedding is the embedding, and no layer of its own."""
    from torch import nn

    from models.parts import parameters_of

    names = parameters_of(model, part)
    weights = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    # Subclasses of Linear are left out: an attention's own output layer, say, is read by its weight and would pass the adapter by.
    found = sorted(name for name, module in model.named_modules() if name in weights and type(module) is nn.Linear)
    if not found:
        raise InputError(
            f"LoRA: part {part!r} of {type(model).__name__} has no linear layer, only parameters such as {names[0]!r}; "
            "leave it out of the parts, or train it with strategy fine_tuning"
        )
    return found


def add_adapters(model: "PreTrainedModel", strategy: LoRA, layers: list[str], seed: int) -> None:
    """Freeze `model` and put an adapter on each of `layers`: A drawn for (seed, layer), B zero. Torch's random state stays as it was."""
    import torch

    try:
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("strategy lora needs PEFT, which is not installed; pip install 'mergeline[lora]'") from error
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        inject_adapter_in_model(peft_config(strategy, layers), model, NAME)
        for name in layers:
            down = factors(model, name)["lora_A"]
            address = sha256(f"lora/{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(address[:8]) >> 1)
            down.copy_(torch.nn.init.kaiming_uniform_(torch.empty(down.shape), a=math.sqrt(5), generator=generator))


def factors(model: "PreTrainedModel", layer: str) -> "Mapping[str, torch.Tensor]":
    """A [rank, in] and B [out, rank] of one layer's adapter."""
    return {factor: model.get_parameter(f"{layer}.{factor}.{NAME}.weight") for factor in ("lora_A", "lora_B")}


def peft_config(strategy: LoRA, layers: list[str]) -> Any:
    """PEFT's settings for an adapter on the linear layers of these names."""
    from peft import LoraConfig

    settings: dict[str, Any] = {"r": strategy.rank, "lora_alpha": strategy.alpha, "lora_dropout": strategy.dropout}
    return LoraConfig(**settings, target_modules=layers)


def settled(value: Any) -> Any:
    """`value` with every set as a sorted list, for JSON that is the same each time."""
    if isinstance(value, Mapping):
        return {key: settled(each) for key, each in value.items()}
    return sorted(value) if isinstance(value, set) else value
