"""SEED-Bench: questions on images and on videos, four options each. Li et al., SEED-Bench, CVPR 2024 (arXiv 2307.16125).

Read from the hub's tables (lmms-lab/SEED-Bench): question, choice_a to choice_d, answer (a letter), data_type (image or video),
question_id, image (a list; of a video its frames). 17,990 questions, test only. All frames of a video are shown, in their order. Score:
the chosen option is the right one (`scoring/choices.py`). Groups: image, video. Papers report all questions or those on images: `part`
chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.cells import pictures, shown
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw, Row
from tasks.benchmarks.scoring.choices import answer_letter, lettered, letters, option_score
from tasks.task import Example, Split

OPTIONS = ("choice_a", "choice_b", "choice_c", "choice_d")
GROUPS = ("image", "video")
PARTS = ("all", *GROUPS)


@dataclass(frozen=True)
class SeedBench:
    """Images and videos with four options. `part`: all, or only the questions on images or on videos."""

    part: str = "all"
    name: ClassVar[str] = "seedbench"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/SEED-Bench"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ConfigError(f"benchmark seedbench: {unknown('part', str(self.part), PARTS)}")

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {Split.TEST: ("data/test-*.parquet|test-*.parquet",)}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        rows = raw.rows(self.files[split], ("question", *OPTIONS, "answer", "data_type", "question_id", "image"))
        if self.part == "all":
            return Asked(rows, _question)
        return Asked(rows, _question, [number for number, kind in enumerate(rows.column("data_type")) if kind == self.part])

    def score(self, response: str, example: Example) -> float:
        return option_score(response, example.answer, example.choices, example.question)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _question(number: int, row: Row) -> Question:
    kind = row.said("data_type")
    if kind not in GROUPS:
        raise row.wrong(f"data_type is {kind!r}, neither image nor video")
    choices = letters(len(OPTIONS))
    frames = pictures(row)
    text = lettered(row.said("question"), [shown(row, column) for column in OPTIONS])
    answer = answer_letter(row, "answer", choices)
    return Question(shown(row, "question_id"), text, answer, frames, picture_mark(b"".join(frames)), group=kind, choices=choices)
