"""Image classification: the class, from the mean of all tokens of the image, its CLS token among them.

    L = - 1/B * sum_i log softmax( head(1/(1+P) sum_t h_it) )[class_i]
BEiT (arXiv 2106.08254, section 2.6) pools the patches; the original of arXiv 2304.14933 takes all tokens, and so does the head here.
"""

from torch import Tensor
from torch.nn import functional

from models.modality_experts.config import Expert
from trainers.modality.objectives.passes import Passes


def classification(passes: Passes) -> Tensor:
    """The image's class, through the vision experts."""
    return functional.cross_entropy(passes.model.heads["classification"](passes.image(Expert.VISION)).float(), passes.batch["labels"])
