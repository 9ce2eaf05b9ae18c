"""The kinds of steps: where weights come from, how they learn, how they are merged, how they are asked.

Each is a value (see `pipeline/step.py`) whose `run` calls one of the libraries. Heavy imports stand inside `run`: planning needs none.
"""

from pipeline.steps.asking import Evaluate, EvaluatePairs, Evaluation
from pipeline.steps.learning import FineTune, Fisher, Within
from pipeline.steps.merging import Merge, Merging
from pipeline.steps.modality import ExpertDistances, Gram, LearnPairs, MergeExperts, PairFisher, Reshaped, StartExperts
from pipeline.steps.searching import Chosen, MergeAdaptive, MergePicked, Search
from pipeline.steps.weights import DIGESTS_FILE, Pretrain, Pretrained, pretrained

__all__ = [
    "DIGESTS_FILE",
    "Chosen",
    "Evaluate",
    "EvaluatePairs",
    "Evaluation",
    "ExpertDistances",
    "FineTune",
    "Fisher",
    "Gram",
    "LearnPairs",
    "Merge",
    "MergeAdaptive",
    "MergeExperts",
    "MergePicked",
    "Merging",
    "PairFisher",
    "Pretrain",
    "Pretrained",
    "Reshaped",
    "Search",
    "StartExperts",
    "Within",
    "pretrained",
]
