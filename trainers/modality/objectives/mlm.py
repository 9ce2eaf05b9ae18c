"""Masked language modelling: the words that were hidden, from the other words, with the image beside them or without.

    L = - 1/|M| * sum_{i in M} log softmax(head(h_i))[word_i]        M: the masked tokens of the step's whole batch
BERT (arXiv 1810.04805, section 3.1); with an image as in VLMo (arXiv 2111.02358, section 3.3). Which tokens are hidden is the data's
business. The mean is over all workers' and micro batches' masked tokens, so it does not depend on how the batch is cut.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from models.modality_experts.config import Expert
from trainers.data.encoding import IGNORED
from trainers.modality.objectives.passes import Passes
from trainers.modality.spec import Objective


def masked_words(logits: Tensor, labels: Tensor, share: float) -> Tensor:
    """The cross entropy of `logits` [M, vocabulary] at `labels` [M], summed in float32, times `share` (1 / M for the mean of these)."""
    return functional.cross_entropy(logits.float(), labels, reduction="sum") * share


def mlm(passes: Passes) -> Tensor:
    """Masked words with their image."""
    labels = passes.batch["masked_labels"]
    hidden = passes.with_images(passes.batch["masked_ids"])[:, : labels.shape[1]]
    chosen = labels != IGNORED
    return masked_words(passes.model.heads["mlm"](hidden[chosen]), labels[chosen], passes.shares[Objective.MLM])


def text_mlm(passes: Passes) -> Tensor:
    """Masked words alone, through the language experts."""
    labels = passes.batch["text_labels"]
    hidden = passes.model.text(passes.batch["text_ids"], passes.batch["text_mask"], through=Expert.LANGUAGE)
    chosen = labels != IGNORED
    return masked_words(passes.model.heads["mlm"](hidden[chosen]), labels[chosen], passes.shares[Objective.TEXT_MLM])


def mlm_targets(batch: Mapping[str, Tensor]) -> int:
    """How many words a micro batch hides beside images."""
    return int((batch["masked_labels"] != IGNORED).sum())


def text_mlm_targets(batch: Mapping[str, Tensor]) -> int:
    """How many words a micro batch hides in texts alone."""
    return int((batch["text_labels"] != IGNORED).sum())
