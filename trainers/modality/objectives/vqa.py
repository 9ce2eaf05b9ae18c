"""Visual question answering as a choice among answers, each with a score of its own (soft targets).

    L = - 1/B * sum_i sum_a [ y_ia log sigmoid(z_ia) + (1 - y_ia) log(1 - sigmoid(z_ia)) ]
that is, binary cross entropy as a mean, times the number of answers (Teney et al. 2018, arXiv 1708.02711, section 3.2; VLMo, arXiv
2111.02358, section 4.2).
"""

from torch import Tensor
from torch.nn import functional

from trainers.modality.objectives.passes import Passes


def soft_answers(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of logits [B, A] against scores [B, A] from 0 to 1; float32."""
    return functional.binary_cross_entropy_with_logits(logits.float(), targets.float()) * logits.shape[1]


def vqa(passes: Passes) -> Tensor:
    """The question's answer, from the pooled pair."""
    return soft_answers(passes.model.heads["vqa"](passes.model.pool(passes.pair)), passes.batch["targets"])
