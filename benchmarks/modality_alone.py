"""One measurement of a modality-expert model in a process of its own, on one thread, in float32.

    python -m benchmarks.modality_alone step ours|beit SHAPE       forward, backward and AdamW on one batch of images
    python -m benchmarks.modality_alone gram 0|1|2 SHAPE           forward alone (0), with the Grams of every token (1), every second (2)

Printed as JSON in the last line: seconds of one pass, the median of several after a first. `beit` is transformers' BEiT encoder of the same
sizes, with relative positions and LayerScale, on the same pixels.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import BeitConfig, BeitModel, set_seed

from models.modality_experts import ModalityExpertsConfig, ModalityExpertsModel
from trainers.modality.statistics.accumulate import Collector


@dataclass(frozen=True)
class Shape:
    """The sizes of an encoder for 224 pixels in patches of 16, and how many images a step, a measurement, and a repetition take."""

    hidden: int
    heads: int
    images_of_step: int
    images_of_gram: int
    passes: int
    layers: int = 12


SHAPES = {"tiny": Shape(192, 3, 16, 41, 5), "base": Shape(768, 12, 4, 16, 2)}
TOKENS = 197
"""Of one image, with its CLS token."""


def ours(shape: Shape, sharing: str) -> ModalityExpertsModel:
    """This project's model, without stochastic depth."""
    config = ModalityExpertsConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        drop_path=0.0,
        fusion_layer=shape.layers - 2,
        sharing=sharing,
    )
    return ModalityExpertsModel(config)


def beit(shape: Shape) -> BeitModel:
    """The encoder of transformers, without stochastic depth."""
    config = BeitConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        drop_path_rate=0.0,
        use_relative_position_bias=True,
        use_mean_pooling=False,
        layer_scale_init_value=0.1,
    )
    return BeitModel(config, add_pooling_layer=False)


def step(who: str, shape: Shape) -> Callable[[], None]:
    """A training step of one of the two; the loss is the mean square of the last states."""
    model: Any = ours(shape, "shared") if who == "ours" else beit(shape)
    model.train()
    run: Callable[[Tensor], Tensor] = model.image if who == "ours" else lambda pixels: model(pixels).last_hidden_state
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    pixels = torch.randn(shape.images_of_step, 3, 224, 224)

    def once() -> None:
        states = run(pixels)
        if states.shape != (shape.images_of_step, TOKENS, shape.hidden):
            raise RuntimeError(f"{who} gave states of shape {list(states.shape)}")
        states.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return once


def gram(every: int, shape: Shape) -> Callable[[], None]:
    """A batch of images through the V experts, as it is measured for Grams."""
    model = ours(shape, "all").eval()
    pixels = torch.randn(shape.images_of_gram, 3, 224, 224)
    if not every:
        return forward_alone(model, pixels)
    collector = Collector(model, torch.device("cpu"))
    taken = None
    if every > 1:
        taken = (torch.arange(len(pixels))[:, None] + torch.arange(TOKENS)) % every == 0

    def once() -> None:
        with torch.no_grad(), collector.counting(taken, taken, taken):
            model.image(pixels)

    return once


def forward_alone(model: ModalityExpertsModel, pixels: Tensor) -> Callable[[], None]:
    """The same batch, nothing measured."""

    def once() -> None:
        with torch.no_grad():
            model.image(pixels)

    return once


def seconds(once: Callable[[], None], passes: int) -> float:
    """The median of so many passes, after one that is not timed."""
    once()
    found = []
    for _ in range(passes):
        began = time.perf_counter()
        once()
        found.append(time.perf_counter() - began)
    return median(found)


def main() -> None:
    """Print the seconds of what the arguments ask for."""
    torch.set_num_threads(1)
    set_seed(0)
    what, who, shape = sys.argv[1], sys.argv[2], SHAPES[sys.argv[3]]
    once = step(who, shape) if what == "step" else gram(int(who), shape)
    print(json.dumps({"seconds": seconds(once, shape.passes)}))


if __name__ == "__main__":
    main()
