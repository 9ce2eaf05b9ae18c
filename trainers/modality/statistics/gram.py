"""Grams of a modality-expert model's linear layers: the mean of x x^T over the real tokens that enter each, on training records.

For RegMean (Jin et al. 2023, arXiv 2212.09849): G [in, in] of the inputs of qkv, proj, fc1 and fc2, for each expert by itself, under the
name of the weight. Padding is no token. A mean per token, so that an image's many tokens count no more than a text's few. What is shared
sees all tokens that pass it. In which passages tokens run is `GramSpec`'s; a pair's lower layers are the same two streams that a text or an
image alone runs through, and are not counted again where those passages are measured too.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from models.modality_experts import load, load_processor
from models.modality_experts.config import Streams
from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.processor import PairProcessor
from tasks.pairs.records import PairSet
from trainers.modality.statistics.accumulate import Collector, grams
from trainers.modality.statistics.spec import GramSpec, Passage, Products
from trainers.modality.statistics.sums import Sums
from trainers.modality.statistics.units import Records, Unit, units_of
from trainers.workers import reproducible

TOKENS = 8192
"""About how many tokens run at a time: enough that adding to the float64 sums costs little beside the products. Part of the algorithm."""


@dataclass(frozen=True)
class GramMeasurement:
    """The Grams of the checkpoint on the training records of `sets`. A value that can be sent to any worker; making it reads nothing."""

    checkpoint: Path
    sets: tuple[PairSet, ...]
    spec: GramSpec = field(default_factory=GramSpec)
    statistic: ClassVar[str] = "gram"

    def __post_init__(self) -> None:
        self.spec.passages_for(self.sets)

    @property
    def parts(self) -> int:
        """Into how many parts the work is cut."""
        return self.spec.parts

    def measure(self, part: int) -> Sums:
        """The sums of one part: a pure function of the measurement and the part's number.

        Runs in float32 and evaluation mode on one thread, on a GPU where there is one. Raises InputError for a checkpoint or records that
        cannot be read.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        records = list(Records.of(self.sets, self.spec.samples).part(part, self.parts))
        if not records:
            return Sums()
        with reproducible(threads=1), torch.no_grad():
            model = load(self.checkpoint).to(device).eval()
            collector = Collector(model, device, self.dtype)
            passing = Passing(model, load_processor(self.checkpoint), collector, self.spec, device)
            for passage in self.passages:
                units = sorted(
                    (unit for place, record in records for unit in units_of(place, record, passage)), key=lambda unit: unit.image_type
                )
                passing.run(passage, units, self.passages)
            collector.close()
            sums = collector.total()
        sums.samples = len(records)
        return sums

    @property
    def dtype(self) -> torch.dtype:
        """Of the products of a batch, and of the file."""
        return {Products.FLOAT32: torch.float32, Products.FLOAT64: torch.float64}[self.spec.products]

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """Those that are run."""
        return self.spec.passages_for(self.sets)

    def finish(self, sums: Sums) -> dict[str, Tensor]:
        """From the total of all parts to the Grams by weight, in the dtype of the products. Uses `sums` up."""
        return grams(sums, self.dtype)

    def described(self) -> dict[str, Any]:
        """How it is measured, for the file."""
        found = {"passages": [each.value for each in self.passages], "products": self.spec.products.value}
        return found | {"every": self.spec.every, "parts": self.parts}


@dataclass(frozen=True)
class Passing:
    """Sends texts, images and pairs through a model, telling the collector which tokens count."""

    model: ModalityExpertsModel
    processor: PairProcessor
    collector: Collector
    spec: GramSpec
    device: torch.device

    def run(self, passage: Passage, units: Sequence[Unit], passages: Sequence[Passage]) -> None:
        """All units of one passage in batches; `passages` are all that this measurement runs."""
        for batch in self.batches(passage, units):
            if passage is Passage.TEXT:
                self.run_texts(batch)
            elif passage is Passage.IMAGE:
                self.run_images(batch)
            else:
                self.run_pairs(batch, passages)

    def run_texts(self, batch: Sequence[Unit]) -> None:
        """A batch of texts alone."""
        texts = self.texts(batch)
        real = self.taken(batch, texts["attention_mask"])
        with self.collector.counting(real, real, real):
            self.model.text(texts["input_ids"], texts["attention_mask"])

    def run_images(self, batch: Sequence[Unit]) -> None:
        """A batch of images alone."""
        seen = self.taken(batch, None)
        with self.collector.counting(seen, seen, seen):
            self.model.image(self.pixels(batch), image_type=self.image_type(batch))

    def run_pairs(self, batch: Sequence[Unit], passages: Sequence[Passage]) -> None:
        """A batch of pairs. A stream below the fusion layer is not counted where a passage of its own counts it."""
        texts, pixels, kind = self.texts(batch), self.pixels(batch), self.image_type(batch)
        mask, collector = texts["attention_mask"], self.collector
        real, seen = self.taken(batch, mask), self.taken(batch, None)
        both = self.taken(batch, torch.cat((mask, mask.new_ones(len(batch), self.image_tokens)), dim=1))
        if self.model.config.streams == Streams.JOINT:
            with collector.counting(both, real, seen):
                self.model.pair(**texts, pixel_values=pixels, image_type=kind)
            return
        with nullcontext() if Passage.TEXT in passages else collector.counting(real, real, real):
            text = self.model.text_below(**texts)
        with nullcontext() if Passage.IMAGE in passages else collector.counting(seen, seen, seen):
            image = self.model.image_below(pixels, image_type=kind)
        with collector.counting(both, both, both):
            self.model.fuse(text, mask, image)

    def batches(self, passage: Passage, units: Sequence[Unit]) -> Iterator[list[Unit]]:
        """Runs of units of about TOKENS tokens, a batch's images all of one type."""
        tokens = self.image_tokens * (passage is not Passage.TEXT) + self.model.config.max_text_length * (passage is not Passage.IMAGE)
        size = max(1, TOKENS // tokens)
        for _, group in groupby(units, key=lambda unit: unit.image_type):
            alike = list(group)
            yield from (alike[at : at + size] for at in range(0, len(alike), size))

    def texts(self, batch: Sequence[Unit]) -> dict[str, Tensor]:
        """The batch's texts as the model takes them, without the columns that are padding in all of them."""
        made = self.processor.texts([unit.text for unit in batch])
        longest = int(made["attention_mask"].sum(1).max())
        return {name: made[name][:, :longest].to(self.device) for name in ("input_ids", "attention_mask")}

    def pixels(self, batch: Sequence[Unit]) -> Tensor:
        """The batch's images as the model takes them."""
        return self.processor.images([unit.image() for unit in batch if unit.image is not None]).to(self.device)

    def image_type(self, batch: Sequence[Unit]) -> int:
        """The row of the type table for the batch's images. A model without a row for second images takes the last, which that one would
        start from."""
        return min(batch[0].image_type, self.model.config.token_types - 1)

    def taken(self, batch: Sequence[Unit], mask: Tensor | None) -> Tensor | None:
        """Which tokens count, [B, N] bool: of those that `mask` says are real (None: an image's, all real), every k-th of the batch's rows,
        row r beginning with the token whose place is -r modulo k. None for all."""
        every = self.spec.every
        if every == 1:
            return None if mask is None else mask.bool()
        shape = (len(batch), self.image_tokens) if mask is None else tuple(mask.shape)
        records = torch.tensor([unit.record for unit in batch], device=self.device)
        turn = (records[:, None] + torch.arange(shape[1], device=self.device)) % every == 0
        return turn if mask is None else turn & mask.bool()

    @property
    def image_tokens(self) -> int:
        """Tokens of an image, its CLS token included."""
        return self.model.config.patches + 1
