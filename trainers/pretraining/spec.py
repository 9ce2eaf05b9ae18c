"""The recipe by which the demo's base model is made: every number that shapes its weights. Light to import.

`trainers/pretraining/digits.py` follows it. It is the identity of the pipeline's step, together with the seed and the number of threads.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from foundation.errors import ConfigError
from tasks.digits import DigitsTask


@dataclass(frozen=True)
class Phase:
    """One run of AdamW with a linear warm-up and a cosine down to zero."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float

    def __post_init__(self) -> None:
        counts = self.steps >= 1 and self.batch_size >= 1 and 0 <= self.warmup_steps <= self.steps
        if not counts or self.learning_rate <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"{self}: steps and batch_size must be at least 1, learning_rate above 0, "
                "weight_decay at least 0, and warmup_steps between 0 and steps"
            )


@dataclass(frozen=True)
class DigitsPretraining:
    """Stage 0 of the digits demo: first the vision tower alone, then projector and language model with the tower frozen."""

    version: ClassVar[int] = 1

    tower: Phase = field(default_factory=lambda: Phase(steps=800, batch_size=64, learning_rate=3e-3, warmup_steps=50, weight_decay=0.05))
    """The tower learns to tell each cell's digit and color on the layer LLaVA reads. Without the color target it would not tell colors."""

    language: Phase = field(default_factory=lambda: Phase(steps=300, batch_size=64, learning_rate=2e-3, warmup_steps=40, weight_decay=0.01))
    """Projector and language model learn to answer the mixture."""

    samples: tuple[tuple[str, int], ...] = (
        ("name", 2000),
        ("where", 2000),
        ("color", 2000),
        ("cell", 2000),
        ("describe", 4000),
        ("parity", 150),
        ("count", 150),
        ("read", 150),
        ("larger", 150),
        ("next", 150),
    )
    """Training examples of each task. A few of the later tasks keep their answer words alive, without which merging loses them."""

    beta2: float = 0.98
    """AdamW's second decay; the first is 0.9."""

    gradient_clip: float = 1.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        names = [DigitsTask(name).name for name, _ in self.samples]
        if not names or len(set(names)) < len(names) or any(count < 1 for _, count in self.samples):
            raise ConfigError(f"samples {self.samples}: name each task once, with at least 1 example")
        if not 0 <= self.beta2 < 1 or self.gradient_clip <= 0:
            raise ConfigError(f"beta2 {self.beta2} must be from 0 to below 1, and gradient_clip {self.gradient_clip} above 0")
