"""Image classification: the share of images whose class the head puts first, and among its first five."""

from collections.abc import Sequence

import torch

from evaluators.pairs.asker import Answered, Asker, Report
from evaluators.pairs.suite import Asked
from evaluators.scores import Sample, task_score
from foundation.errors import InputError
from tasks.pairs.records import Labelled

TOP = 5


@torch.inference_mode()
def ask_labels(asker: Asker, asked: Asked, records: Sequence[Labelled], report: Report) -> Answered:
    """`NAME`: top-1 accuracy; `NAME/top5`: top-5 accuracy; and a row per image, scored by its first class.

    Among equal logits the class with the lower number stands first. InputError for an image whose class the set does not list.
    """
    classes = asker.model.config.classes
    number = {name: index for index, name in enumerate(classes)}
    samples: list[Sample] = []
    within: list[float] = []
    for batch in asker.batches(records):
        hidden = asker.model.image(asker.images([record.image for record in batch]))
        logits = asker.checked(asker.model.heads["classification"](hidden), asked)
        order = logits.argsort(dim=1, descending=True, stable=True)[:, :TOP].tolist()
        for record, best in zip(batch, order, strict=True):
            if record.label not in number:
                raise InputError(
                    f"set {asked.name!r}: the image {record.key!r} is of class {record.label!r}, which is none of the "
                    f"{len(classes)} classes of its training split; the splits were made from different data"
                )
            samples.append(
                Sample(asked.name, record.key, "the image's class", record.label, classes[best[0]], float(classes[best[0]] == record.label))
            )
            within.append(float(number[record.label] in best))
        report(len(samples), len(records))
    return Answered({asked.name: task_score([sample.score for sample in samples]), f"{asked.name}/top{TOP}": task_score(within)}, samples)
