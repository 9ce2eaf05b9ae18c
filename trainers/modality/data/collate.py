"""From the numbers of showings to a batch: exactly what the objectives of a stage learn from.

What a row holds follows from (seed, epoch, example) alone: not from the rows beside it, nor from what was made before. So a stage that is
resumed, or run on another number of workers, sees the same masks and crops.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foundation.errors import ConfigError, InputError
from tasks.pairs.records import Compared, Kind, Labelled, Questioned, Record
from trainers.modality.data.addresses import Showing, beside
from trainers.modality.data.augment import augment
from trainers.modality.data.examples import PairExamples, pictures_of, text_of
from trainers.modality.data.masking import mask_patches, mask_words, vocabulary_of
from trainers.modality.spec import Augmentation, ModalitySpec, Objective

if TYPE_CHECKING:
    from models.modality_experts.processor import PairProcessor

PAIRED = ("input_ids", "attention_mask", "pixel_values")

KEYS: dict[Objective, tuple[str, ...]] = {
    Objective.MLM: ("attention_mask", "pixel_values", "masked_ids", "masked_labels"),
    Objective.TEXT_MLM: ("text_ids", "text_mask", "text_labels"),
    Objective.ITC: PAIRED,
    Objective.ITM: PAIRED,
    Objective.MIM: ("image_pixels", "masked_patches"),
    Objective.RETRIEVAL: PAIRED,
    Objective.VQA: (*PAIRED, "targets"),
    Objective.NLVR2: (*PAIRED, "other_pixels", "labels"),
    Objective.CLASSIFICATION: ("pixel_values", "labels"),
}
"""What each objective finds in a batch, beside the numbers of its showings."""

ROOM = 256 * 2**20
"""Bytes of scaled images that are kept, where they are not augmented."""


class PairCollator:
    """Makes a batch of the showings of given numbers; see `trainers.modality.data.addresses`.

    A batch holds those numbers as `showings` [B] int64, and of these what `KEYS` has for the objectives:
    input_ids, attention_mask [B, T] int64; pixel_values [B, 3, H, W] float32; masked_ids, masked_labels [B, T] int64 (labels -100 where
    nothing is asked); text_ids, text_mask, text_labels [B, T] int64, of the text-only stream; image_pixels [B, 3, H, W] float32 and
    masked_patches [B, P] bool, of the image-only stream, as many True in each row; other_pixels [B, 3, H, W], a comparison's second image;
    targets [B, A] float32, answers in the order of `choices`; labels [B] int64, 1 for a true sentence, or the place of the class in
    `choices`.

    The streams of one modality are those of `texts` and `images`, beside the pairs, or else the pairs' own texts and images. `choices` are
    as the model's head numbers them, by default all choices of the sets, sorted. A right answer that is not among them counts nothing, so a
    question may have no right answer at all. `patch_size` is needed to mask patches. Raises ConfigError for examples that the objectives
    cannot learn from, InputError for a class that is not among the choices, or an image that cannot be decoded.
    """

    def __init__(
        self,
        examples: PairExamples,
        processor: "PairProcessor",
        spec: ModalitySpec,
        seed: int,
        *,
        patch_size: int | None = None,
        choices: Sequence[str] | None = None,
        texts: PairExamples | None = None,
        images: PairExamples | None = None,
        room: int = ROOM,
    ) -> None:
        self.examples = examples
        self.processor = processor
        self.spec = spec
        self.seed = seed
        self.patch_size = patch_size
        self.choices = tuple(examples.choices() if choices is None else choices)
        self.numbers = {choice: place for place, choice in enumerate(self.choices)}
        self.texts = texts
        self.images = images
        self.room = room
        self.keys = tuple(dict.fromkeys(key for objective, _ in spec.objectives for key in KEYS[objective]))
        self.scaled: dict[tuple[str, int, int], Tensor] = {}
        self._check()
        self.vocabulary = vocabulary_of(processor.tokenizer) if {"masked_ids", "text_ids"} & set(self.keys) else None

    def __call__(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """The batch of the showings `numbers`, in their order."""
        showings = [Showing.of(number, len(self.examples)) for number in numbers]
        examples = [self.examples[showing.index] for showing in showings]
        batch: dict[str, Tensor] = {}
        if {"attention_mask", "masked_ids"} & set(self.keys):
            batch |= self._words(examples)
        if "masked_ids" in self.keys:
            batch["masked_ids"], batch["masked_labels"] = self._masked(batch["input_ids"], showings, "mlm", self.spec.masking.with_image)
        if "pixel_values" in self.keys:
            batch["pixel_values"] = self._pixels("pairs", examples, showings)
        if "other_pixels" in self.keys:
            batch["other_pixels"] = self._pixels("pairs", examples, showings, place=1)
        if "text_ids" in self.keys:
            batch |= self._text_stream(numbers, examples, showings, batch)
        if "image_pixels" in self.keys:
            batch |= self._image_stream(numbers, examples, showings, batch.get("pixel_values"))
        if "targets" in self.keys:
            batch["targets"] = torch.stack([self._target(example) for example in examples])
        if "labels" in self.keys:
            batch["labels"] = torch.tensor([self._label(example) for example in examples])
        return {"showings": torch.tensor(numbers), **{key: batch[key] for key in self.keys}}

    def _check(self) -> None:
        """Refuse what cannot be collated."""
        if self.examples.kind is not self.spec.kind:
            held = f"{self.examples.sets[0].name!r} holds {self.examples.kind.value}"
            names = ", ".join(name.value for name, _ in self.spec.objectives)
            raise ConfigError(f"objectives {names} learn from {self.spec.kind.value}, but set {held}; give a set of {self.spec.kind.value}")
        if "masked_patches" in self.keys and self.patch_size is None:
            raise ConfigError("mim masks patches, but the size of a patch is not given; give the model's patch_size")
        if {"targets", "labels"} & set(self.keys) and self.spec.kind is not Kind.COMPARISONS and not self.choices:
            raise ConfigError(f"set {self.examples.sets[0].name!r} has nothing to choose among; give choices, as the model's head has them")
        silent = [each.name for each in (self.texts.sets if self.texts else ()) if each.kind is Kind.LABELS]
        if silent:
            raise ConfigError(f"set {silent[0]!r} holds labels, which are no texts to learn from; leave it out of the texts")

    def _words(self, examples: Sequence[Record]) -> dict[str, Tensor]:
        """The texts of examples as tokens."""
        encoded = self.processor.texts([text_of(example) for example in examples])
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def _masked(self, ids: Tensor, showings: Sequence[Showing], use: str, probability: float) -> tuple[Tensor, Tensor]:
        """Texts with words hidden, and the labels."""
        assert self.vocabulary is not None
        whole = self.spec.masking.whole_words
        draws = (showing.draws(self.seed, use) for showing in showings)
        rows = [mask_words(row, self.vocabulary, probability, whole, rng) for row, rng in zip(ids.numpy(), draws, strict=True)]
        masked, labels = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
        return masked, labels

    def _text_stream(
        self, numbers: Sequence[int], examples: Sequence[Record], showings: Sequence[Showing], words: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Masked words of texts alone. `words`: the pairs' texts, where they are tokens already."""
        if self.texts is not None:
            showings = [beside(number, len(self.texts), self.seed) for number in numbers]
            words = self._words([self.texts[showing.index] for showing in showings])
        elif "input_ids" not in words:
            words = self._words(examples)
        ids, labels = self._masked(words["input_ids"], showings, "text_mlm", self.spec.masking.text)
        return {"text_ids": ids, "text_mask": words["attention_mask"], "text_labels": labels}

    def _image_stream(
        self, numbers: Sequence[int], examples: Sequence[Record], showings: Sequence[Showing], pixels: Tensor | None
    ) -> dict[str, Tensor]:
        """Images alone, and which of their patches are hidden. `pixels`: the pairs' images, where they are made already."""
        if self.images is not None:
            showings = [beside(number, len(self.images), self.seed) for number in numbers]
            pixels = self._pixels("images", [self.images[showing.index] for showing in showings], showings)
        elif pixels is None:
            pixels = self._pixels("pairs", examples, showings)
        assert self.patch_size is not None
        masking, side = self.spec.masking, pixels.shape[-1] // self.patch_size
        draws = (showing.draws(self.seed, "mim") for showing in showings)
        rows = [mask_patches(side, masking.patches, masking.blocks, rng) for rng in draws]
        return {"image_pixels": pixels, "masked_patches": torch.from_numpy(np.stack(rows))}

    def _pixels(self, stream: str, examples: Sequence[Record], showings: Sequence[Showing], place: int = 0) -> Tensor:
        """Image `place` of each example, augmented if the stage does, scaled as the model reads it."""
        if self.spec.augmentation is Augmentation.RANDOM:
            size = self.processor.image_size
            draws = (showing.draws(self.seed, f"{stream}/{place}") for showing in showings)
            pictures = (pictures_of(example)[place]() for example in examples)
            return self.processor.images([augment(image, size, self.spec.flip, rng) for image, rng in zip(pictures, draws, strict=True)])
        addresses = [(stream, showing.index, place) for showing in showings]
        missing = {address: example for address, example in zip(addresses, examples, strict=True) if address not in self.scaled}
        fresh: dict[tuple[str, int, int], Tensor] = {}
        if missing:
            rows = self.processor.images([pictures_of(example)[place]() for example in missing.values()])
            fresh = dict(zip(missing, rows, strict=True))
        found = torch.stack([fresh[address] if address in fresh else self.scaled[address] for address in addresses])
        self._keep(fresh)
        return found

    def _keep(self, fresh: Mapping[tuple[str, int, int], Tensor]) -> None:
        """Keep scaled images while there is room; what a batch holds never depends on what was kept."""
        for address, row in fresh.items():
            if row.nbytes <= self.room:
                self.room -= row.nbytes
                self.scaled[address] = row.clone()

    def _target(self, example: Record) -> Tensor:
        """The score of every choice: [A] float32."""
        assert isinstance(example, Questioned)
        scores = torch.zeros(len(self.choices))
        for answer, score in example.answers.items():
            if answer in self.numbers:
                scores[self.numbers[answer]] = score
        return scores

    def _label(self, example: Record) -> int:
        """Whether the sentence is true, or the number of the class."""
        if isinstance(example, Compared):
            return int(example.label)
        assert isinstance(example, Labelled)
        if example.label not in self.numbers:
            raise InputError(f"image {example.key!r} has class {example.label!r}, which is none of the {len(self.choices)} to choose among")
        return self.numbers[example.label]
