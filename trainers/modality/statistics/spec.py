"""What is measured, on how much of the data and in how many parts: frozen values, checked before anything runs. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.pairs.records import Kind, PairSet
from trainers.fisher.spec import Labels
from trainers.modality.spec import Objective


class Passage(StrEnum):
    """How tokens run through the model: a text alone (L experts to the top), an image alone (V experts), or both (VL experts above)."""

    TEXT = "text"
    IMAGE = "image"
    PAIR = "pair"


class Products(StrEnum):
    """The arithmetic of a batch's products x x^T, and of the file; sums of batches are float64 either way.

    FLOAT32 leaves rounding of up to 3e-6 of the mean diagonal in the smallest eigenvalues. That is nothing to a RegMean with `off_diagonal`
    0.9, but directions in which no input varies can come out below zero: with `off_diagonal` 1, take a `ridge` of 1e-4 or FLOAT64, which
    costs twice the time.
    """

    FLOAT32 = "float32"
    FLOAT64 = "float64"


PASSAGES_OF: dict[Kind, tuple[Passage, ...]] = {
    Kind.CAPTIONS: (Passage.TEXT, Passage.IMAGE),
    Kind.QUESTIONS: (Passage.PAIR,),
    Kind.COMPARISONS: (Passage.PAIR,),
    Kind.LABELS: (Passage.IMAGE,),
}
"""What the task of each kind of record uses, where nothing else is said: retrieval runs texts and images by themselves."""


@dataclass(frozen=True)
class GramSpec:
    """`samples` are the first training records of each set (None: all). Everything here can change bits; the number of workers cannot.

    `passages` None: those of the sets' kind (PASSAGES_OF). `parts` is how many pieces the records are cut into. `every` k > 1 takes every
    k-th token, another residue for each record, so that every position is taken equally often: the mean is the same but for sampling,
    and the products, which cost about as much as the forward pass itself, are a k-th. ConfigError for values that cannot be honoured.
    """

    passages: tuple[Passage, ...] | None = None
    samples: int | None = None
    parts: int = 16
    every: int = 1
    products: Products = Products.FLOAT32

    def __post_init__(self) -> None:
        check_cut("gram", self.samples, self.parts)
        if self.every < 1:
            raise ConfigError(f"gram: every is {self.every}; give 1 for all tokens, or k for every k-th")
        if self.products not in list(Products):
            raise ConfigError(f"gram: {unknown('products', str(self.products), list(Products))}")
        object.__setattr__(self, "products", Products(self.products))
        if self.passages is not None:
            strange = [name for name in self.passages if name not in list(Passage)]
            if strange:
                raise ConfigError(f"gram: {unknown('passage', str(strange[0]), list(Passage))}")
            if not self.passages:
                raise ConfigError(f"gram: passages is empty; name at least one of {', '.join(Passage)}, or leave it out")
            object.__setattr__(self, "passages", tuple(each for each in Passage if each in self.passages))

    def passages_for(self, sets: Sequence[PairSet]) -> tuple[Passage, ...]:
        """The passages to run on these sets, in the order of Passage; ConfigError where their records lack a text or fit no passage."""
        kind = kind_of(sets)
        passages = self.passages or PASSAGES_OF[kind]
        if kind is Kind.LABELS and passages != (Passage.IMAGE,):
            raise ConfigError("gram: labelled images have no texts; the only passage they can run is image")
        return passages


@dataclass(frozen=True)
class FisherSpec:
    """The diagonal Fisher of one objective: RETRIEVAL or MLM. `samples` are the first examples of each set's training split (None: all).

    `weights` are shell patterns of parameter names. `among` is how many pairs an example of retrieval is told apart from, itself included.
    `labels` are drawn from the model, or the data's; `masked` is the share of a text's tokens that MLM hides. ConfigError as above.
    """

    objective: Objective = Objective.RETRIEVAL
    weights: tuple[str, ...] = ("encoder.*",)
    samples: int | None = None
    parts: int = 16
    among: int = 8
    labels: Labels = Labels.MODEL
    masked: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        check_cut("fisher", self.samples, self.parts)
        if self.objective not in (Objective.RETRIEVAL, Objective.MLM):
            raise ConfigError(f"fisher: {unknown('objective', str(self.objective), [Objective.RETRIEVAL, Objective.MLM])}")
        if self.labels not in list(Labels):
            raise ConfigError(f"fisher: {unknown('labels', str(self.labels), [each.value for each in Labels])}")
        object.__setattr__(self, "objective", Objective(self.objective))
        object.__setattr__(self, "labels", Labels(self.labels))
        if not self.weights:
            raise ConfigError("fisher: weights is empty; name at least one pattern, e.g. encoder.*")
        if self.among < 2:
            raise ConfigError(f"fisher: among is {self.among}; an example is told apart from at least one other: give 2 or more")
        if not 0 < self.masked < 1:
            raise ConfigError(f"fisher: masked is {self.masked}; it is a share between 0 and 1")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"fisher: seed is {self.seed}; give 0 to {2**32 - 1}")


def check_cut(what: str, samples: int | None, parts: int) -> None:
    """Refuse numbers of records or parts below one."""
    if samples is not None and samples < 1:
        raise ConfigError(f"{what}: samples is {samples}; give 1 or more, or leave it out for all")
    if parts < 1:
        raise ConfigError(f"{what}: parts is {parts}; give 1 or more")


def kind_of(sets: Sequence[PairSet]) -> Kind:
    """The one kind of record that all sets hold; ConfigError for none, or several."""
    kinds = {each.kind for each in sets}
    if len(kinds) != 1:
        raise ConfigError(
            f"sets to measure on hold {' and '.join(sorted(kinds))}; measure on one kind at a time"
            if kinds
            else "there are no sets to measure on"
        )
    return next(iter(kinds))
