"""Questions about images (VQA): the head chooses an answer, its score is the target that the data gives it.

The score of a question is `answers[choice]`, 0 where the data does not name the choice; soft targets make it the VQA score of the chosen
answer. Questions whose answers are secret are answered for the submission file instead, in the published form, and enter no score.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from evaluators.pairs.asker import Answered, Asker, Report
from evaluators.pairs.suite import Asked
from evaluators.scores import Sample, task_score
from foundation.errors import InputError
from tasks.pairs.records import Questioned


@torch.inference_mode()
def ask_questions(asker: Asker, asked: Asked, records: Sequence[Questioned], report: Report) -> Answered:
    """The mean score over the questions whose answers are known (no score where none is), a row per question, the rest to submit.

    A row's answer is the one with the highest target, the first in the alphabet among equals; its score is NaN where the answer is secret.
    """
    choices = asker.model.config.answers
    samples: list[Sample] = []
    submission: list[dict[str, Any]] = []
    for batch in asker.batches(records):
        words = asker.texts([record.question for record in batch])
        pooled = asker.model.pool(asker.model.pair(**words, pixel_values=asker.images([record.image for record in batch])))
        logits = asker.checked(asker.model.heads["vqa"](pooled), asked)
        for record, index in zip(batch, logits.argmax(1).tolist(), strict=True):
            samples.append(_row(asked.name, record, choices[index]))
            if not record.answers:
                submission.append({"question_id": _number(asked.name, record), "answer": choices[index]})
        report(len(samples), len(records))
    known = [sample.score for sample in samples if not math.isnan(sample.score)]
    return Answered({asked.name: task_score(known)} if known else {}, samples, submission)


def _row(name: str, record: Questioned, answer: str) -> Sample:
    best = min(record.answers, key=lambda known: (-record.answers[known], known), default="")
    score = float(record.answers.get(answer, 0.0)) if record.answers else math.nan
    return Sample(name, record.key, record.question, best, answer, score)


def _number(name: str, record: Questioned) -> int:
    """The id that a submission names the question by; InputError where it has none."""
    if record.number is None:
        raise InputError(
            f"set {name!r}: question {record.key!r} has no answers and no number, so it can neither be scored nor submitted; "
            "convert the data again from the published question file"
        )
    return record.number
