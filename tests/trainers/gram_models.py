"""Small modality-expert models with the sets they are measured on, and the Gram by its formula: every token by itself, in float64."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from models.modality_experts import ModalityExpertsModel, pair_processor, save
from models.modality_experts.tiny import digits_config, word_tokenizer
from tasks.pairs.digits import corpus


def small_model(directory: Path, **changes: object) -> Path:
    """A saved model of two layers, fused from the second on; its norms and biases are drawn too, so that no input is like another."""
    tokenizer = word_tokenizer(corpus())
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 300, "fusion_layer": 1}
    config = digits_config(**{**sizes, "sharing": "all", **changes})
    torch.manual_seed(0)
    model = ModalityExpertsModel(config)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    save(model, pair_processor(tokenizer, config), directory)
    return directory


class Naive:
    """Adds x x^T for each row that a linear layer of the encoder sees, for one text or image at a time, so that there is no padding."""

    def __init__(self, model: ModalityExpertsModel) -> None:
        self.sums: dict[str, Tensor] = {}
        self.tokens: dict[str, int] = {}
        for name, module in model.named_modules():
            if name.startswith("encoder.") and isinstance(module, nn.Linear):
                module.register_forward_pre_hook(self.hook(f"{name}.weight"))

    def hook(self, name: str) -> Callable[..., None]:
        """Adds what enters the layer."""

        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            for row in inputs[0].flatten(0, -2).double():
                self.sums[name] = self.sums.get(name, 0) + torch.outer(row, row)
                self.tokens[name] = self.tokens.get(name, 0) + 1

        return add

    def means(self) -> dict[str, Tensor]:
        """Per token."""
        return {name: value / self.tokens[name] for name, value in self.sums.items()}
