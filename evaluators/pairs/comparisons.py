"""Sentences on two images (NLVR2): the model sees the sentence with each image in turn, and the head judges from both.

Two passes, the second with an image type of its own; the pooled CLS states are set side by side for the head (VLMo, arXiv 2111.02358;
UNITER, arXiv 1909.11740, calls this form "pair").
"""

from collections.abc import Sequence

import torch

from evaluators.pairs.asker import Answered, Asker, Report
from evaluators.pairs.suite import Asked
from evaluators.scores import Sample, task_score
from models.modality_experts.embeddings import IMAGE_TYPE, SECOND_IMAGE_TYPE
from tasks.pairs.records import Compared

IMAGE_TYPES = (IMAGE_TYPE, SECOND_IMAGE_TYPE)
"""Rows of the token-type table for the first and the second image."""


@torch.inference_mode()
def ask_comparisons(asker: Asker, asked: Asked, records: Sequence[Compared], report: Report) -> Answered:
    """The share of sentences judged right, and a row per sentence. Class 1 of the head is "true"; equal logits say "false"."""
    samples: list[Sample] = []
    for batch in asker.batches(records):
        words = asker.texts([record.sentence for record in batch])
        passes = [
            asker.model.pool(
                asker.model.pair(**words, pixel_values=asker.images([record.images[place] for record in batch]), image_type=image_type)
            )
            for place, image_type in enumerate(IMAGE_TYPES)
        ]
        logits = asker.checked(asker.model.heads["nlvr2"](torch.cat(passes, dim=-1)), asked)
        samples += [
            Sample(asked.name, record.key, record.sentence, _word(record.label), _word(judged), float(judged == record.label))
            for record, judged in zip(batch, (logits.argmax(1) == 1).tolist(), strict=True)
        ]
        report(len(samples), len(records))
    return Answered({asked.name: task_score([sample.score for sample in samples])}, samples)


def _word(truth: bool) -> str:
    return "true" if truth else "false"
