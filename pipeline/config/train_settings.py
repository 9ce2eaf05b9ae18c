"""The keys of one stage of fine-tuning: which parts learn, for how long, in what arithmetic, on how many workers."""

from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from foundation.errors import ConfigError
from models.parts import SeedFlags, check_rated, parse_parts, parse_selection
from pipeline.config.complaints import is_what
from pipeline.config.kinds import Count, Flag, Fraction, NotNegative, Positive, Settings, WholeNumber
from pipeline.step import Resources
from trainers.spec import TrainSpec, check_workers, default_learning_rate

SEED_RATES = {"mm_projector_lr": "projector", "mm_vision_tower_lr": "vision_tower"}
"""The first seed system's words for separate learning rates -> the part each is for."""


def _check_parts(value: Any) -> Any:
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(part, str) for part in value)):
        raise ValueError(f"mm_tunable_parts {is_what(value)}; name parts, e.g. mm_mlp_adapter,mm_language_model")
    return value


class TunableParts(Settings):
    """Which weights learn, in the first seed system's words."""

    mm_tunable_parts: Annotated[str | list[str], BeforeValidator(_check_parts)] = "mm_mlp_adapter,mm_language_model"
    mm_language_model_train_mlp_only: Flag = False
    mm_language_model_train_mlp_gate_up_only: Flag = False
    mm_language_model_train_mlp_down_only: Flag = False
    mm_language_model_train_attn_proj_only: Flag = False
    mm_language_model_train_attn_qkv_only: Flag = False
    mm_language_model_train_attn_vo_only: Flag = False
    mm_language_model_train_last_n_layers: Count | None = None
    mm_language_model_freeze_last_n_layers: Count | None = None
    mm_vision_tower_train_sa_proj_only: Flag = False
    mm_vision_tower_train_sa_qkv_only: Flag = False
    mm_vision_tower_train_mlp_up_only: Flag = False

    def parts(self) -> tuple[str, ...]:
        """The selections that learn; ConfigError for words that contradict each other."""
        flags = SeedFlags(**{item.name: getattr(self, item.name) for item in fields(SeedFlags)})
        return parse_parts(self.mm_tunable_parts, flags)


class StageKeys(Settings):
    """One stage of learning, whatever learns: how long, in what arithmetic, on how many workers."""

    learning_rate: Positive | None = None
    learning_rates: dict[str, Positive] = {}  # noqa: RUF012
    max_steps: Count | None = None
    epochs: Positive = 1.0
    samples: Count | None = None
    batch_size: Count = 32
    micro_batch_size: Count | None = None
    weight_decay: NotNegative = 0.0
    warmup_ratio: Fraction = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: Positive = 1.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    milestones: list[Count] = []  # noqa: RUF012
    gradient_checkpointing: Flag = False
    threads: Count = 1
    loaders: WholeNumber = 0
    save_steps: Count = 50
    log_steps: Count = 10
    workers: Count = 1
    gpus: NotNegative = 0
    max_failures: WholeNumber = 3

    @model_validator(mode="after")
    def _computable(self) -> Self:
        if self.precision == "float16" and not self.gpus:
            raise ValueError("precision float16 needs GPUs, and gpus is 0; set gpus, or take bfloat16")
        return self

    def resources(self) -> Resources:
        """What each training worker gets."""
        return Resources(cpus=self.threads, gpus=self.gpus, workers=self.workers, max_failures=self.max_failures)

    def stage(self, seed: int, parts: tuple[str, ...], learning_rate: float, rates: tuple[tuple[str, float], ...]) -> TrainSpec:
        """The stage as the trainers take it; ConfigError for what no stage could honour."""
        own = {"learning_rate", "learning_rates", "milestones"}
        shared = {item.name for item in fields(TrainSpec)} & set(type(self).model_fields) - own - {"parts"}
        return TrainSpec(
            parts=parts,
            learning_rate=learning_rate,
            learning_rates=rates,
            milestones=tuple(sorted(self.milestones)),
            seed=seed,
            **{name: getattr(self, name) for name in sorted(shared)},
        )


class Train(StageKeys, TunableParts):
    """One stage of fine-tuning. `learning_rate` left out is the seed system's for the chosen parts (2e-5 full, 5e-6 MLP only)."""

    mm_projector_lr: Positive | None = None
    mm_vision_tower_lr: Positive | None = None
    grouping: Literal["none", "length", "modality_length"] = "none"
    packing: Flag = False
    max_length: Count | None = None
    compile: Flag = False
    sharding: Literal["none", "gradients", "full"] = "none"
    cpu_offload: Flag = False

    @model_validator(mode="after")
    def _consistent(self) -> "Train":
        try:
            check_workers(self.spec(seed=0), self.workers)
            check_rated(self.parts(), [part for part, _ in self._rates()])
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def spec(self, seed: int) -> TrainSpec:
        """The stage as the trainers take it; ConfigError for what no stage could honour."""
        parts = self.parts()
        rate = self.learning_rate if self.learning_rate is not None else default_learning_rate(parts)
        return self.stage(seed, parts, rate, self._rates())

    def _rates(self) -> tuple[tuple[str, float], ...]:
        """The separate learning rates, the seed's words among them, by part."""
        rates = {parse_selection(part, "learning rates").text: rate for part, rate in self.learning_rates.items()}
        if len(rates) < len(self.learning_rates):
            raise ConfigError(f"learning_rates names a part twice, in other words: {', '.join(self.learning_rates)}; name each once")
        for word, part in SEED_RATES.items():
            rate = getattr(self, word)
            if rate is not None and part in rates:
                raise ConfigError(f"{word} and learning_rates[{part}] both set the learning rate of the {part}; keep one of them")
            if rate is not None:
                rates[part] = rate
        return tuple(sorted(rates.items()))
