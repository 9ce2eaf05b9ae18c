"""Image-text contrastive learning (ITC): each image finds its own text among all of the batch, and each text its image.

    s_ij = exp(t) * <image_i, text_j>                                       unit vectors, t learned
    L = 1/2 * ( -1/N sum_i log softmax_j(s_ij)[i]  -  1/N sum_j log softmax_i(s_ij)[j] )
CLIP (arXiv 2103.00020, figure 3); VLMo (arXiv 2111.02358, section 3.3). N is the micro batch of all workers together, so unlike other
settings of how a batch is cut, `micro_batch_size` decides what is learned here: it is how many texts an image is compared with.

ITC runs twice and takes the mean: through the pure path (language experts for texts, vision experts for images, to the top), which is what
retrieval uses, and through the vision-language experts from the fusion layer on, with projections and a temperature of their own.
RETRIEVAL is the pure path alone.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.modality_experts.config import Expert
from trainers.modality.gathering import gathered
from trainers.modality.objectives.passes import Passes


@dataclass
class Compared:
    """The texts [B, H] and images [B, H] of one worker as unit vectors in one space, and the factor of their cosines."""

    texts: Tensor
    images: Tensor
    scale: Tensor

    @cached_property
    def similarities(self) -> Tensor:
        """Of all workers' images (rows) with all their texts [N, N], float32."""
        with torch.autocast(self.texts.device.type, enabled=False):
            return self.scale.float() * gathered(self.images.float()) @ gathered(self.texts.float()).T


def contrastive(similarities: Tensor) -> Tensor:
    """The symmetric loss of similarities [N, N] whose diagonal holds the pairs; float32."""
    own = torch.arange(len(similarities), device=similarities.device)
    return (functional.cross_entropy(similarities, own) + functional.cross_entropy(similarities.T, own)) / 2


def compared(passes: Passes, head: str, text: Expert, image: Expert) -> Compared:
    """The micro batch in the space of one of the contrastive heads."""
    module: Any = passes.model.heads[head]
    return Compared(module.text(passes.text(text)), module.image(passes.image(image)), module.scale())


def pure(passes: Passes) -> Compared:
    """Each modality through its own experts to the top; run once for all who ask."""
    return passes.once("pure", lambda: compared(passes, "itc", Expert.LANGUAGE, Expert.VISION))


def itc(passes: Passes) -> Tensor:
    """The mean of the losses in both paths."""
    fused = compared(passes, "itc_vl", Expert.VISION_LANGUAGE, Expert.VISION_LANGUAGE)
    return (contrastive(pure(passes).similarities) + contrastive(fused.similarities)) / 2


def retrieval(passes: Passes) -> Tensor:
    """The pure path alone."""
    return contrastive(pure(passes).similarities)
