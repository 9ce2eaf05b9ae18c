"""A model that is ready to be asked about images with text, and what asking a set gives: what all kinds of sets share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from evaluators.pairs.suite import Asked
from evaluators.scores import Sample, TaskScore
from foundation.errors import InputError
from tasks.pairs.records import Picture

Report = Callable[[int, int], None]
"""Hears (done, total) after every batch."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Answered:
    """What asking one set gave: its scores by name, a row per question, and the rows of the submission file for secret answers."""

    scores: dict[str, TaskScore]
    samples: list[Sample]
    submission: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Asker:
    """The model of `checkpoint` on `device` in float32, its processor, and how many texts, images or pairs it takes at a time."""

    checkpoint: Path
    model: Any
    processor: Any
    device: torch.device
    batch_size: int

    def texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The model's arguments for `texts`: input_ids and attention_mask, [B, max_text_length]."""
        return {name: value.to(self.device) for name, value in self.processor.texts(list(texts)).items()}

    def images(self, pictures: Sequence[Picture]) -> Tensor:
        """The pixels of `pictures`, [B, 3, H, W]; they are decoded here."""
        return self.processor.images([picture() for picture in pictures]).to(self.device)

    def batches(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        """The items in their order, `batch_size` at a time; read as they are needed."""
        source = iter(items)
        while batch := list(islice(source, self.batch_size)):
            yield batch

    def checked(self, values: Tensor, asked: Asked) -> Tensor:
        """`values` on the CPU in float32; InputError where one is not finite, for then no order and no answer means anything."""
        if not bool(torch.isfinite(values).all()):
            raise InputError(
                f"{self.checkpoint}: the model gives values that are not finite on set {asked.name!r}; its learning or its merge went "
                "astray, so look at the stage that made it"
            )
        return values.float().cpu()


def load_asker(checkpoint: Path, batch_size: int, device: torch.device | None = None) -> Asker:
    """The model and processor in `checkpoint`, in evaluation mode, on `device` (None: the GPU if there is one).

    InputError for a batch size below one, and where the checkpoint does not load whole.
    """
    from models.modality_experts import load, load_processor

    if batch_size < 1:
        raise InputError(f"batch size {batch_size} asks nothing; use at least 1")
    chosen = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Asker(checkpoint, load(checkpoint).to(chosen).eval(), load_processor(checkpoint), chosen, batch_size)
