"""How much memory a stage takes before the first activation, for `plan` to say. Light to import: no torch."""

from trainers.spec import Sharding, TrainSpec
from trainers.strategy import Strategy

FLOAT32 = 4
MOMENTS = 2
"""AdamW keeps two numbers per trained weight."""


def stage_memory(weights: int, trained: int, spec: TrainSpec, strategy: Strategy, workers: int) -> int:
    """Bytes each of `workers` holds for a model of `weights`, `trained` of them trained, on its device (with `cpu_offload` beside it).

    Float32 weights, gradients and AdamW's moments, which sharding divides, and what the strategy holds besides (a teacher, adapters), which
    it does not. Not counted: activations, their low-precision copies of weights, and the workers' buffers for exchange; they depend on
    batch, lengths and `gradient_checkpointing`.
    """
    shares = {
        Sharding.NONE: (1, 1),
        Sharding.GRADIENTS: (1, workers),
        Sharding.FULL: (workers, workers),
    }
    for_weights, for_training = shares[spec.sharding]
    learning = (1 + MOMENTS) * FLOAT32 * trained
    return -(-FLOAT32 * weights // for_weights) + -(-learning // for_training) + strategy.memory(weights, trained)
