"""Image-text matching (ITM) with hard negatives: do this text and this image belong together?

    L = - 1/3B * sum over B pairs of [ log p(yes | text_i, image_i) + log p(no | text_i, image_j) + log p(no | text_k, image_i) ]
    j ~ softmax of text i's similarities with all images, k ~ softmax of image i's with all texts, own pairs excluded
ALBEF (arXiv 2107.07651, section 3.2, "contrastive hard negative mining"); VLMo (arXiv 2111.02358, section 3.3) takes them from all workers.
The similarities are those of ITC's pure path. Besides its own, a pair is never given for a negative what is said in the same words: that
image would match. A draw belongs to (seed, showing, use), so it is the same on any number of workers, and after a resume.
"""

import torch
from torch import Tensor
from torch.nn import functional

from trainers.modality.data.addresses import generator
from trainers.modality.gathering import gathered, own_rows, workers
from trainers.modality.objectives.contrastive import pure
from trainers.modality.objectives.passes import Passes


def hard_negatives(similarities: Tensor, alike: Tensor, own: Tensor, draws: Tensor) -> Tensor:
    """For each of B rows of `similarities` [B, N] one of the N [B], by the softmax over those that are not `alike` [B, N].

    `own` [B] is the row's own place, `draws` [B] float64 are uniform in 0 to 1. Where all are alike, any but the own. On the CPU, float64.
    """
    itself = functional.one_hot(own, similarities.shape[1]).bool()
    excluded = alike | itself
    excluded = torch.where(excluded.all(dim=1, keepdim=True), itself, excluded)
    ends = similarities.double().masked_fill(excluded, -torch.inf).softmax(dim=1).cumsum(dim=1)
    last = ends[:, -1:]
    wanted = torch.minimum(draws[:, None] * last, torch.nextafter(last, torch.zeros_like(last)))
    found = torch.searchsorted(ends, wanted, right=True)[:, 0]
    return found.clamp(max=similarities.shape[1] - 1)  # beyond the last only where similarities are no numbers; the loss is none either


def matching(logits: Tensor) -> Tensor:
    """The mean cross entropy of logits [3B, 2], the first B of pairs that match, the others of pairs that do not; float32."""
    labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    labels[: len(logits) // 3] = 1
    return functional.cross_entropy(logits.float(), labels)


def negatives(passes: Passes) -> tuple[Tensor, Tensor]:
    """For each pair of this worker, which of all workers' images is put with its text [B], and which text with its image [B]."""
    ids, showings = passes.batch["input_ids"], passes.batch["showings"].tolist()
    rows = own_rows(ids)
    similarities = pure(passes).similarities.detach().cpu()
    alike = (ids[:, None] == gathered(ids)[None]).all(dim=-1).cpu()
    own = torch.arange(rows.start, rows.stop)
    found = []
    for use, of_own in (("image", similarities.T[rows]), ("text", similarities[rows])):
        numbers = [generator(f"itm/{passes.seed}/{use}/{showing}").random() for showing in showings]
        found.append(hard_negatives(of_own, alike, own, torch.tensor(numbers, dtype=torch.float64)).to(ids.device))
    return found[0], found[1]


def itm(passes: Passes) -> Tensor:
    """Each pair, its text with a wrong image, and its image with a wrong text."""
    images, texts = negatives(passes)
    hidden = _all_inputs(passes, images, texts) if passes.joint else _from_below(passes, images, texts)
    return matching(passes.model.heads["itm"](passes.model.pool(hidden)))


def _all_inputs(passes: Passes, images: Tensor, texts: Tensor) -> Tensor:
    """The states of [pairs, texts with wrong images, images with wrong texts], from the inputs up."""
    batch = passes.batch
    ids, mask, pixels = (batch[name] for name in ("input_ids", "attention_mask", "pixel_values"))
    return passes.model.pair(
        torch.cat((ids, ids, gathered(ids)[texts])),
        torch.cat((mask, mask, gathered(mask)[texts])),
        torch.cat((pixels, gathered(pixels)[images], pixels)),
    )


def _from_below(passes: Passes, images: Tensor, texts: Tensor) -> Tensor:
    """The same from the states below the fusion layer; those of other workers' texts and images are computed anew, with their gradients."""
    mask, text, image = passes.batch["attention_mask"], passes.text_below, passes.image_below
    wrong_mask = gathered(mask)[texts]
    if workers() == 1:
        wrong_text, wrong_image = text[texts], image[images]
    else:
        wrong_text = passes.model.text_below(gathered(passes.batch["input_ids"])[texts], wrong_mask)
        wrong_image = passes.model.image_below(gathered(passes.batch["pixel_values"])[images])
    return passes.model.fuse(
        torch.cat((text, text, wrong_text)), torch.cat((mask, mask, wrong_mask)), torch.cat((image, wrong_image, image))
    )
