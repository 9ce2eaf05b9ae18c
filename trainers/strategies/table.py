"""The table of strategies by the name an experiment calls them. A new one is one more row."""

from trainers.strategies.ewc import ElasticWeightConsolidation
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.l2 import L2ToStart
from trainers.strategies.lora import LoRA
from trainers.strategies.lwf import LearningWithoutForgetting
from trainers.strategies.replay import Replay
from trainers.strategies.routing import Routing
from trainers.strategies.sfa import SequentialAveraging
from trainers.strategy import Strategy

STRATEGIES: dict[str, type[Strategy]] = {
    "fine_tuning": FineTuning,
    "lora": LoRA,
    "lwf": LearningWithoutForgetting,
    "replay": Replay,
    "sfa": SequentialAveraging,
    "ewc": ElasticWeightConsolidation,
    "l2": L2ToStart,
    "routing": Routing,
}


def strategy_name(strategy: Strategy) -> str:
    """The name in the table of a strategy's class."""
    return next(name for name, kind in STRATEGIES.items() if type(strategy) is kind)
