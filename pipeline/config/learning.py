"""What the keys of `train`, `strategy` and `base` must agree on: refused from the file, before a first stage is trained in vain."""

from foundation.errors import ConfigError
from pipeline.config.base_settings import Base
from pipeline.config.strategy_settings import StrategySettings
from pipeline.config.train_settings import Train
from trainers.spec import plan_batches

MLP = "language_model.mlp"


def check_learning(base: Base, train: Train, strategy: StrategySettings) -> None:
    """ConfigError for settings that no stage could honour together."""
    if strategy.name == "routing" and MLP not in train.parts():
        raise ConfigError(
            f"strategy routing makes experts of {MLP}, but mm_tunable_parts selects {', '.join(train.parts())}; "
            "write mm_tunable_parts: mm_language_model with mm_language_model_train_mlp_only: true"
        )
    if strategy.name == "replay" and train.grouping != "none":
        raise ConfigError(f"strategy replay mixes its batches itself; leave out grouping: {train.grouping}, or take another strategy")
    if train.sharding != "none" and train.precision == "float16":
        raise ConfigError("sharding does not go with precision: float16, which scales the loss by all gradients; set bfloat16")
    if train.packing and base.pretrain is not None:
        raise ConfigError(
            f"packing puts several examples in a row, which {base.pretrain} cannot, because it sees images; leave packing out"
        )
    if train.milestones and train.max_steps is None and train.samples is not None:
        steps = plan_batches(train.spec(seed=0), train.workers, train.samples).steps
        if max(train.milestones) > steps:
            raise ConfigError(f"milestones name step {max(train.milestones)}, but a stage has {steps} steps; leave it out")
