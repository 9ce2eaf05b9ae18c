"""InfographicVQA: questions on infographics. Mathew et al., InfographicVQA, WACV 2022.

Read from the hub's tables (lmms-lab/DocVQA, folder InfographicVQA): questionId, question, answers (texts), image; or from the challenge's
own files (rrc.cvc.uab.es, task 3): infographicsVQA_train_v1.0.json and infographicsVQA_val_v1.0_withQT.json, an object whose `data` holds
{questionId, question, image_local_name, answers}, with the images in infographicsvqa_images/.

The answers of the published test split are secret, so the published validation split (2,801 questions) is the TEST here. Nothing is to be
chosen by it: VALIDATION is a tenth of the training images. Score: ANLS (`scoring/anls.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.docvqa import document_files, document_questions
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.scoring.anls import anls
from tasks.task import Example, Split

IMAGES = "infographicsvqa_images/*|images/*"


@dataclass(frozen=True)
class InfoVqa:
    """Infographics with short answers."""

    name: ClassVar[str] = "infovqa"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/DocVQA"
    max_new_tokens: ClassVar[int] = 32
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        parts = {Split.TRAIN: "train", Split.TEST: "val"}
        return {split: document_files("InfographicVQA", part, "infographicsVQA_", IMAGES) for split, part in parts.items()}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return document_questions(raw, self.files[split], "image_local_name")

    def score(self, response: str, example: Example) -> float:
        return anls(response, example.references)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}
