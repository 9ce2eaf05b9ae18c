"""All objectives: what each computes on a micro batch, and how many targets it has there, where its mean is over targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from trainers.modality.objectives.classification import classification
from trainers.modality.objectives.contrastive import itc, retrieval
from trainers.modality.objectives.masked_image import mim, mim_targets
from trainers.modality.objectives.matching import itm
from trainers.modality.objectives.mlm import mlm, mlm_targets, text_mlm, text_mlm_targets
from trainers.modality.objectives.nlvr2 import nlvr2
from trainers.modality.objectives.passes import Passes
from trainers.modality.objectives.vqa import vqa
from trainers.modality.spec import Objective


@dataclass(frozen=True)
class Row:
    """`loss` gives a scalar float32 whose mean over micro batches and workers is the step's; `targets` counts what the mean is over.

    Without `targets` it is over the samples, of which every micro batch has as many.
    """

    loss: Callable[[Passes], Tensor]
    targets: Callable[[Mapping[str, Tensor]], int] | None = None


OBJECTIVES: dict[Objective, Row] = {
    Objective.MLM: Row(mlm, mlm_targets),
    Objective.TEXT_MLM: Row(text_mlm, text_mlm_targets),
    Objective.ITC: Row(itc),
    Objective.ITM: Row(itm),
    Objective.MIM: Row(mim, mim_targets),
    Objective.RETRIEVAL: Row(retrieval),
    Objective.VQA: Row(vqa),
    Objective.NLVR2: Row(nlvr2),
    Objective.CLASSIFICATION: Row(classification),
}

COMPARES = frozenset({Objective.ITC, Objective.ITM, Objective.RETRIEVAL})
"""Those that compare the pairs of a micro batch with one another, and so need more than one."""
