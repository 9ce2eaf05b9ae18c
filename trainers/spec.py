"""How one stage learns: a frozen value that is checked before anything runs.

Fields marked as execution say how the stage runs; all others decide the bytes it writes: sharding too, because it rounds elsewhere than DDP
does. The number of workers is not here: it is how the stage is started. It changes no rule (the global batch stays `batch_size`), but sums
run in another order, so bits hold for one number of workers. Light to import: no torch.
"""

import math
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from foundation.errors import ConfigError
from foundation.hints import unknown


class Precision(StrEnum):
    """The arithmetic of forward and backward. Trained weights and optimizer state are float32 in all; files keep the start's dtype."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Schedule(StrEnum):
    """How the learning rate goes after the warm-up: down a half cosine to zero, down a line to zero, or not at all."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Sharding(StrEnum):
    """What the workers share out among themselves: nothing (DDP), gradients and optimizer state, or the weights too."""

    NONE = "none"
    GRADIENTS = "gradients"
    FULL = "full"


class Grouping(StrEnum):
    """Which examples share a batch: any, those of like length, or those of like length and with or without images."""

    NONE = "none"
    LENGTH = "length"
    MODALITY_LENGTH = "modality_length"


LANGUAGE_MODEL_PARTS = (
    "language_model",
    "language_model.mlp",
    "language_model.mlp_gate_up",
    "language_model.mlp_down",
    "language_model.attention",
    "language_model.attention_qkv",
    "language_model.attention_vo",
)

DEFAULT_LEARNING_RATES: dict[frozenset[str], float] = {
    frozenset({"projector", "language_model"}): 2e-5,
    frozenset({"projector"}): 5e-6,
    **{frozenset({part}): 5e-6 for part in LANGUAGE_MODEL_PARTS},
    frozenset({"language_model.attention", "language_model.mlp_gate_up"}): 5e-6,
}
"""AdamW's learning rate by trained parts, as published for sequential WiSE-FT of a 7B model. Far too low for the tiny digits model."""


def execution(default: Any) -> Any:
    """A field that says how the stage runs; another value gives the same bytes."""
    return field(default=default, metadata={"execution": True})


KINDS: dict[str, type[StrEnum]] = {"schedule": Schedule, "precision": Precision, "grouping": Grouping, "sharding": Sharding}
"""The fields whose value is one of a few words."""


@dataclass(frozen=True)
class TrainSpec:
    """What is trained and how. Raises ConfigError for a value that no stage could honour.

    `parts` and the parts in `learning_rates` are selections as `models.parts` reads them; a part in `learning_rates` learns at its own
    rate, all else at `learning_rate`. `max_steps`, where given, takes the place of `epochs`. `batch_size` is global: per device x
    accumulation x workers. `milestones` are optimizer steps after which the model is written as a checkpoint of its own. An example longer
    than `max_length` tokens is refused. `loaders` are processes beside each worker that make its batches; 0: it makes them itself.
    """

    parts: tuple[str, ...]
    learning_rate: float
    max_steps: int | None = None
    epochs: float = 1.0
    samples: int | None = None
    batch_size: int = 32
    micro_batch_size: int | None = None
    weight_decay: float = 0.0
    warmup_ratio: float = 0.03
    schedule: Schedule = Schedule.COSINE
    max_grad_norm: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    seed: int = 0
    precision: Precision = Precision.FLOAT32
    threads: int = 1
    learning_rates: tuple[tuple[str, float], ...] = ()
    milestones: tuple[int, ...] = ()
    grouping: Grouping = Grouping.NONE
    packing: bool = False
    max_length: int | None = None
    compile: bool = False
    sharding: Sharding = Sharding.NONE
    cpu_offload: bool = False
    gradient_checkpointing: bool = execution(False)
    loaders: int = execution(0)
    save_steps: int = execution(500)
    log_steps: int = execution(10)

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            value = getattr(self, name)
            if value not in list(kind):
                raise ConfigError(f"training: {unknown(name, str(value), [each.value for each in kind])}")
            object.__setattr__(self, name, kind(value))
        problems = [message for honoured, message in self._rules() if not honoured]
        if problems:
            raise ConfigError("training: " + "; ".join(problems))

    def _rules(self) -> list[tuple[bool, str]]:
        """Each rule with the sentence for the user who breaks it."""
        whole = ("max_steps", "samples", "micro_batch_size", "batch_size", "threads", "max_length", "save_steps", "log_steps")
        counts = {name: getattr(self, name) for name in whole}
        rates = {"weight_decay": self.weight_decay, "max_grad_norm": self.max_grad_norm}
        return [
            (bool(self.parts), "parts is empty; name at least one part of the model to train"),
            (_within(self.learning_rate, above=0), f"learning_rate is {self.learning_rate}; give a positive number"),
            *(
                (_within(rate, above=0), f"the learning rate of {part} is {rate}; give a positive number")
                for part, rate in self.learning_rates
            ),
            *((step >= 1, f"milestones name step {step}; steps count from 1") for step in self.milestones),
            *(
                (self.max_steps is None or step <= self.max_steps, f"milestones name step {step}, but max_steps is {self.max_steps}")
                for step in self.milestones
            ),
            (len(set(self.milestones)) == len(self.milestones), f"milestones {list(self.milestones)} name a step twice; name each once"),
            (self.sharding is not Sharding.NONE or not self.cpu_offload, "cpu_offload is for sharded weights; set sharding too"),
            *((n is None or n >= 1, f"{name} is {n}; give 1 or more, or leave it out") for name, n in counts.items()),
            (self.loaders >= 0, f"loaders is {self.loaders}; give 0 or more"),
            (_within(self.epochs, above=0), f"epochs is {self.epochs}; give a positive number"),
            (self.samples is None or self.samples >= self.batch_size, f"samples {self.samples} is less than batch_size {self.batch_size}"),
            (0 <= self.warmup_ratio < 1, f"warmup_ratio is {self.warmup_ratio}; give a share of all steps from 0 to below 1"),
            *((value >= 0 and math.isfinite(value), f"{name} is {value}; give 0 or more") for name, value in rates.items()),
            (0 <= self.adam_beta1 < 1, f"adam_beta1 is {self.adam_beta1}; give 0 to below 1"),
            (0 <= self.adam_beta2 < 1, f"adam_beta2 is {self.adam_beta2}; give 0 to below 1"),
            (_within(self.adam_epsilon, above=0), f"adam_epsilon is {self.adam_epsilon}; give a positive number"),
            (0 <= self.seed < 2**32, f"seed is {self.seed}; give 0 to {2**32 - 1}"),
        ]

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that decide the bytes, in order."""
        return {item.name: getattr(self, item.name) for item in fields(self) if not item.metadata.get("execution")}


@dataclass(frozen=True)
class Batches:
    """How the global batch is cut and how many steps there are.

    Every batch is whole: an epoch leaves out `examples % batch_size` examples.
    """

    workers: int
    micro_batch: int
    accumulation: int
    steps_per_epoch: int
    steps: int


def default_learning_rate(parts: tuple[str, ...]) -> float:
    """The learning rate to use for `parts` where none is given; ConfigError where none is known."""
    rate = DEFAULT_LEARNING_RATES.get(frozenset(parts))
    if rate is None:
        known = "; ".join(", ".join(sorted(names)) for names in DEFAULT_LEARNING_RATES)
        raise ConfigError(f"training: no default learning rate for parts {', '.join(parts)}; set learning_rate. Known: {known}")
    return rate


def check_workers(spec: TrainSpec, workers: int) -> tuple[int, int]:
    """The micro batch per worker and the accumulation that make `spec.batch_size`; ConfigError where they cannot."""
    if workers < 1:
        raise ConfigError(f"training: {workers} workers; give 1 or more")
    if workers == 1 and spec.sharding is not Sharding.NONE:
        raise ConfigError(f"training: sharding {spec.sharding.value} needs several workers to share among; raise workers, or leave it out")
    share, left = divmod(spec.batch_size, workers)
    if left or not share:
        raise ConfigError(f"training: batch_size {spec.batch_size} cannot be shared by {workers} workers; give a multiple of {workers}")
    micro = spec.micro_batch_size or share
    if share % micro:
        raise ConfigError(
            f"training: micro_batch_size {micro} does not divide the {share} samples per worker "
            f"(batch_size {spec.batch_size} over {workers} workers); give a divisor of {share}"
        )
    return micro, share // micro


def plan_batches(spec: TrainSpec, workers: int, examples: int) -> Batches:
    """Cut `examples` training examples into whole global batches; ConfigError where there is not even one."""
    micro, accumulation = check_workers(spec, workers)
    per_epoch = examples // spec.batch_size
    if not per_epoch:
        raise ConfigError(f"training: {examples} examples do not fill one batch of {spec.batch_size}; lower batch_size")
    steps = spec.max_steps or math.ceil(spec.epochs * per_epoch)
    return Batches(workers, micro, accumulation, per_epoch, steps)


def _within(value: float, above: float) -> bool:
    return math.isfinite(value) and value > above
