"""Natural language for visual reasoning (NLVR2): is the sentence true of the two images?

    L = - 1/B * sum_i log softmax( head([pool(text_i, first_i); pool(text_i, second_i)]) )[label_i]
Two passes, one per image, their pooled states end to end, as in VLMo (arXiv 2111.02358, section 4.2) and UNITER's "pair" setting (arXiv
1909.11740, section 4.1). The second image has a type of its own, row 2 of the type table.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.modality_experts.embeddings import SECOND_IMAGE_TYPE
from trainers.modality.objectives.passes import Passes


def nlvr2(passes: Passes) -> Tensor:
    """True (1) or false (0)."""
    model = passes.model
    first = model.pool(passes.pair)
    second = model.pool(passes.with_texts(passes.batch["other_pixels"], SECOND_IMAGE_TYPE))
    return functional.cross_entropy(model.heads["nlvr2"](torch.cat((first, second), dim=1)).float(), passes.batch["labels"])
