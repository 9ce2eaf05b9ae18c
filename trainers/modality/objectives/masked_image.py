"""Masked image modelling (MIM): the pixels of hidden patches, from the patches that are seen.

    x~ = (x - mean(x)) / sqrt(var(x) + 1e-6)                              over the numbers x of one patch
    L = 1/|M| * sum_{p in M} mean_k ( head(h_p)_k - x~_pk )^2             M: the hidden patches of the step's whole batch
BEiT (arXiv 2106.08254, section 2.3) predicts the tokens of a discrete autoencoder; the target here is that of masked autoencoders (MAE,
arXiv 2111.06377, section 3, "reconstruction target"), which needs no second network. MAE divides by var of k - 1 numbers, here it is of k.
"""

from collections.abc import Mapping

from torch import Tensor

from models.modality_experts.heads import patch_pixels
from trainers.modality.objectives.passes import Passes
from trainers.modality.spec import Objective

EPSILON = 1e-6


def hidden_patches(predicted: Tensor, pixels: Tensor, share: float) -> Tensor:
    """The squared error of `predicted` [M, k] against normalised `pixels` [M, k], mean over k, summed over M in float32, times `share`."""
    pixels = pixels.float()
    variance, mean = pixels.var(dim=1, keepdim=True, unbiased=False), pixels.mean(dim=1, keepdim=True)
    target = (pixels - mean) / (variance + EPSILON).sqrt()
    return (predicted.float() - target).square().mean(dim=1).sum() * share


def mim(passes: Passes) -> Tensor:
    """Hidden patches of images alone, through the vision experts."""
    images, masked = passes.batch["image_pixels"], passes.batch["masked_patches"]
    hidden = passes.model.image(images, masked)[:, 1:]
    pixels = patch_pixels(images, passes.model.config.patch_size)
    return hidden_patches(passes.model.heads["mim"](hidden[masked]), pixels[masked], passes.shares[Objective.MIM])


def mim_targets(batch: Mapping[str, Tensor]) -> int:
    """How many patches a micro batch hides."""
    return int(batch["masked_patches"].sum())
