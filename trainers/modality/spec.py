"""How a modality-expert transformer learns in one stage: the objectives and their weights, and what is done to texts and images.

How long, how fast, on how many workers is a `TrainSpec`, as of any stage (`parts` are selections by glob or regex, `glob:*` for all; a rate
for heads is `learning_rates: (("glob:heads.*", 3e-4),)`). Light to import: no torch.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.pairs.records import Kind, PairSet
from trainers.spec import TrainSpec


class Objective(StrEnum):
    """What is learned; each is a file in `objectives/`, which gives formula and source."""

    MLM = "mlm"  # masked words, seen with their image
    TEXT_MLM = "text_mlm"  # masked words alone
    ITC = "itc"  # image-text contrastive, in the pure and the VL path
    ITM = "itm"  # image-text matching with hard negatives; needs itc beside it
    MIM = "mim"  # masked image patches
    RETRIEVAL = "retrieval"  # contrastive in the pure path alone, as retrieval is fine-tuned
    VQA = "vqa"  # soft targets over the answer vocabulary
    NLVR2 = "nlvr2"  # is the sentence true of the two images
    CLASSIFICATION = "classification"


NEEDS: dict[Objective, Kind] = {
    Objective.VQA: Kind.QUESTIONS,
    Objective.NLVR2: Kind.COMPARISONS,
    Objective.CLASSIFICATION: Kind.LABELS,
}
"""The kind of record an objective learns from; all others from captions."""

HEADS_OF: dict[Objective, tuple[str, ...]] = {
    Objective.MLM: ("mlm",),
    Objective.TEXT_MLM: ("mlm",),
    Objective.ITC: ("itc", "itc_vl"),
    Objective.ITM: ("itm",),
    Objective.MIM: ("mim",),
    Objective.RETRIEVAL: ("itc",),
    Objective.VQA: ("vqa",),
    Objective.NLVR2: ("nlvr2",),
    Objective.CLASSIFICATION: ("classification",),
}
"""The heads of the model that an objective needs."""


class Augmentation(StrEnum):
    """What is done to a training image before it is scaled: nothing, or a random crop and flip and RandAugment."""

    NONE = "none"
    RANDOM = "random"


@dataclass(frozen=True)
class Masking:
    """Which words and patches are hidden. Probabilities are of a word (with `whole_words`) or of a token.

    `patches` is the share of an image's patches, hidden in rectangles (with `blocks`) or each by itself.
    """

    text: float = 0.15
    with_image: float = 0.25
    whole_words: bool = True
    patches: float = 0.4
    blocks: bool = True


@dataclass(frozen=True)
class ModalitySpec:
    """`objectives` are (objective, weight) pairs; the loss is their weighted sum. Raises ConfigError for what no stage could honour.

    `flip` mirrors every other training image (with a random augmentation). It makes a text that says left or right untrue of its image, so
    it is off unless asked for.
    """

    train: TrainSpec
    objectives: tuple[tuple[Objective, float], ...]
    masking: Masking = Masking()
    augmentation: Augmentation = Augmentation.NONE
    flip: bool = False

    def __post_init__(self) -> None:
        found = []
        for name, weight in self.objectives:
            if name not in list(Objective):
                raise ConfigError(f"objectives: {unknown('objective', str(name), [each.value for each in Objective])}")
            if not (math.isfinite(weight) and weight > 0):
                raise ConfigError(f"objectives: the weight of {name} is {weight}; give a positive number, or leave it out")
            found.append((Objective(name), float(weight)))
        if not found:
            raise ConfigError("objectives is empty; name at least one, e.g. objectives: {itc: 1}")
        object.__setattr__(self, "objectives", tuple(found))
        names = [name for name, _ in found]
        if Objective.ITM in names and Objective.ITC not in names:
            raise ConfigError("objectives: itm takes its hard negatives from the similarities of itc; add itc")
        kinds = {NEEDS.get(name, Kind.CAPTIONS) for name in names}
        if len(kinds) > 1:
            raise ConfigError(f"objectives {', '.join(names)} learn from {' and '.join(sorted(kinds))}; put them into stages of their own")
        if self.flip and self.augmentation is Augmentation.NONE:
            raise ConfigError("flip is part of a random augmentation, but augmentation is none; set it to random, or leave flip out")
        for field, value in (("text", self.masking.text), ("with_image", self.masking.with_image), ("patches", self.masking.patches)):
            if not 0 < value < 1:
                raise ConfigError(f"masking.{field} is {value}; it is a probability between 0 and 1")

    @property
    def kind(self) -> Kind:
        """The kind of record the stage learns from."""
        return NEEDS.get(self.objectives[0][0], Kind.CAPTIONS)

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that the model must have."""
        return tuple(dict.fromkeys(head for name, _ in self.objectives for head in HEADS_OF[name]))


@dataclass(frozen=True)
class ModalityLearning:
    """What one stage is to learn and how: everything but where the weights come from and go to.

    `sets` are taken together; all are of `spec.kind`. `texts` and `images` are sets for the objectives of one modality (text_mlm, mim),
    which take the texts and images of `sets` where there are none.
    """

    sets: tuple[PairSet, ...]
    modality: ModalitySpec
    texts: tuple[PairSet, ...] = ()
    images: tuple[PairSet, ...] = ()

    @property
    def spec(self) -> TrainSpec:
        """How long, how fast, on how many workers."""
        return self.modality.train
