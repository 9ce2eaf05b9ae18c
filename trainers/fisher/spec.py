"""What is measured when a model's Fisher information is measured: a frozen value that is checked before anything runs. No torch."""

from dataclasses import dataclass
from enum import StrEnum

from foundation.errors import ConfigError
from foundation.hints import unknown


class Labels(StrEnum):
    """Whose answers are scored: drawn from the model's own distribution (the Fisher), or the data's (the "empirical Fisher")."""

    MODEL = "model"
    DATA = "data"


@dataclass(frozen=True)
class FisherSpec:
    """`samples` are the first training examples of the task (None: as many as it has); `seed` draws the answers where the model gives them.

    ConfigError for a value that cannot be honoured.
    """

    parts: tuple[str, ...]
    samples: int | None = None
    labels: Labels = Labels.MODEL
    seed: int = 0

    def __post_init__(self) -> None:
        if self.labels not in list(Labels):
            raise ConfigError(f"fisher: {unknown('labels', str(self.labels), [each.value for each in Labels])}")
        object.__setattr__(self, "labels", Labels(self.labels))
        if not self.parts:
            raise ConfigError("fisher: parts is empty; name at least one part of the model to measure")
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"fisher: samples is {self.samples}; give 1 or more, or leave it out for all")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"fisher: seed is {self.seed}; give 0 to {2**32 - 1}")
