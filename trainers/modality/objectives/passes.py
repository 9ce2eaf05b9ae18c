"""One micro batch and the model's passes over it, each run at most once, whichever objectives want it.

A text alone, an image alone and the two as a pair are the same below the fusion layer where their streams are separate. So the lower layers
run once for the contrastive objective's two paths, for matching (whose negatives are other combinations of the same texts and images), and
for the images of masked language modelling.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from models.modality_experts.config import Expert, Streams
from trainers.modality.spec import Objective

Result = TypeVar("Result")


@dataclass
class Passes:
    """The micro batch `batch` (see `trainers/modality/data`), with the numbers of its showings [B] under "showings".

    `shares` is what one target of an objective that counts its targets weighs: workers x micro batches / all targets of the step, so that
    the mean over workers and micro batches is the mean over the targets. `seed` is the stage's.
    """

    model: Any
    batch: Mapping[str, Tensor]
    shares: Mapping[Objective, float] = field(default_factory=dict)
    seed: int = 0
    kept: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Result]) -> Result:
        """What `make` gave when it was first asked for by this name."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    @cached_property
    def text_below(self) -> Tensor:
        """The texts alone up to the fusion layer [B, T, H]."""
        return self.model.text_below(self.batch["input_ids"], self.batch["attention_mask"])

    @cached_property
    def image_below(self) -> Tensor:
        """The images alone up to the fusion layer [B, 1+P, H]."""
        return self.model.image_below(self.batch["pixel_values"])

    def text(self, through: Expert) -> Tensor:
        """The texts' states [B, T, H], with these experts on top."""
        return self.model.text_above(self.text_below, self.batch["attention_mask"], through)

    def image(self, through: Expert) -> Tensor:
        """The images' states [B, 1+P, H], with these experts on top."""
        return self.model.image_above(self.image_below, through)

    @property
    def joint(self) -> bool:
        """Whether a pair runs as one stream from the first layer on, so that nothing below can be shared."""
        return self.model.config.streams == Streams.JOINT

    @cached_property
    def pair(self) -> Tensor:
        """The states of texts with their images [B, T+1+P, H], text first."""
        if self.joint:
            return self.model.pair(self.batch["input_ids"], self.batch["attention_mask"], self.batch["pixel_values"])
        return self.model.fuse(self.text_below, self.batch["attention_mask"], self.image_below)

    def with_images(self, input_ids: Tensor) -> Tensor:
        """The states of other texts of the same lengths with the same images."""
        mask = self.batch["attention_mask"]
        if self.joint:
            return self.model.pair(input_ids, mask, self.batch["pixel_values"])
        return self.model.fuse(self.model.text_below(input_ids, mask), mask, self.image_below)

    def with_texts(self, pixel_values: Tensor, image_type: int) -> Tensor:
        """The states of the same texts with other images, which are told apart by their type."""
        mask = self.batch["attention_mask"]
        if self.joint:
            return self.model.pair(self.batch["input_ids"], mask, pixel_values, image_type=image_type)
        return self.model.fuse(self.text_below, mask, self.model.image_below(pixel_values, image_type=image_type))
