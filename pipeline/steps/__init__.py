"""The kinds of steps: where weights come from, how they learn, how they are merged, how they are asked.

Each is a value (see `pipeline/step.py`) whose `run` calls one of the libraries. Heavy imports stand inside `run`: planning needs none.
"""

from pipeline.steps.asking import Evaluate, EvaluatePairs, Evaluation
from pipeline.steps.learning import FineTune, Fisher, Within
from pipeline.steps.merging import Merge
from pipeline.steps.modality import ExpertDistances, Gram, LearnPairs, MergeExperts, PairFisher, Reshaped, StartExperts
from pipeline.steps.weights import DIGESTS_FILE, Pretrain, Pretrained, pretrained

__all__ = [
    "DIGESTS_FILE",
    "Evaluate",
    "EvaluatePairs",
    "Evaluation",
    "ExpertDistances",
    "FineTune",
    "Fisher",
    "Gram",
    "LearnPairs",
    "Merge",
    "MergeExperts",
    "PairFisher",
    "Pretrain",
    "Pretrained",
    "Reshaped",
    "StartExperts",
    "Within",
    "pretrained",
]
