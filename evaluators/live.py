"""Ask a model that is already in memory a suite of tasks, again and again while its weights change, in growing parts of the samples.

Questions are planned once, as `evaluate` plans them: the same samples in the same batches. So a model that has been asked everything has
the answers and scores that `evaluate` gives its written checkpoint, to the last bit. A part consists of whole batches, spread evenly over
the lengths: with fewer than four batches a quarter is more than one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluators.ask import is_macro, respond, sample_of
from evaluators.generate import Answerer, encode
from evaluators.questions import Sheet, sheets_of
from evaluators.scores import Sample, TaskScore, scores_of
from evaluators.suite import Suite
from tasks.outline import Outlined
from tasks.task import Example

Progress = Callable[[str, int, int], None]

PARTS = (1, 2, 4)
"""How many quarters of the samples are asked by the end of each part."""
WHOLE = PARTS[-1]
KEPT_BYTES = 256 << 20
"""How much of the encoded batches is kept from one time to the next; what is beyond is encoded again."""


@dataclass(frozen=True)
class Batch:
    """Examples of one task with their prompts, and what the model takes of them."""

    examples: Sequence[Example]
    prompts: Sequence[str]
    inputs: dict[str, Any]

    def size(self, held: bool) -> int:
        """Bytes of what keeping it takes; `held`: the examples' images are in memory anyway."""
        images = [] if held else [image for example in self.examples for image in example.images]
        encoded = sum(value.nbytes for value in self.inputs.values())
        return encoded + sum(image.width * image.height * len(image.getbands()) for image in images)


class Questions:
    """A suite, ready to be put to one model whatever its weights are.

    `batch_size` is the most that is asked at a time. InputError for a batch size below one, or a task without examples in the split.
    """

    def __init__(self, answerer: Answerer, suite: Suite, batch_size: int = 100) -> None:
        self.answerer = answerer
        self.sheets = tuple(sheets_of(answerer.processor, suite, batch_size))
        self.kept: dict[tuple[str, int], Batch] = {}
        self.room = KEPT_BYTES

    def batch(self, sheet: Sheet, number: int) -> Batch:
        """A batch as it is asked, kept as long as there is room."""
        key = (sheet.task.name, number)
        if key in self.kept:
            return self.kept[key]
        rows = sheet.batches[number]
        examples, prompts = [sheet.examples[row] for row in rows], [sheet.prompts[row] for row in rows]
        found = Batch(examples, prompts, encode(self.answerer, examples, prompts))
        size = found.size(held=not isinstance(sheet.examples, Outlined))
        if size <= self.room:
            self.kept[key] = found
            self.room -= size
        return found

    def ask(self, sheet: Sheet, number: int) -> list[Sample]:
        """One batch, answered and scored, in its order."""
        batch = self.batch(sheet, number)
        responses = respond(self.answerer, sheet.task, batch.examples, batch.prompts, batch.inputs)
        return [sample_of(sheet.task, *each) for each in zip(batch.examples, batch.prompts, responses, strict=True)]


@dataclass
class Interview:
    """One model being asked `questions`: no sample is asked twice, however the parts grow. `samples`: task -> row -> what it answered."""

    questions: Questions
    samples: dict[str, dict[int, Sample]] = field(default_factory=dict)

    @property
    def scored(self) -> dict[str, dict[int, float]]:
        """Task -> row -> score, of all that has been asked, rows in their order."""
        return {task: {row: rows[row].score for row in sorted(rows)} for task, rows in self.samples.items()}

    def ask(self, quarters: int = WHOLE, on_progress: Progress | None = None) -> dict[str, TaskScore]:
        """The scores over so many quarters (1, 2 or 4) of the samples; `on_progress(task, done, total)` is called for every batch."""
        scores: dict[str, TaskScore] = {}
        for sheet in self.questions.sheets:
            rows = self.samples.setdefault(sheet.task.name, {})
            for number in within(sheet, quarters):
                batch = sheet.batches[number]
                if batch[0] in rows:
                    continue
                rows |= zip(batch, self.questions.ask(sheet, number), strict=True)
                if on_progress is not None:
                    on_progress(sheet.task.name, len(rows), len(sheet.examples))
            scores |= scores_of(sheet.task.name, [rows[row] for row in sorted(rows)], is_macro(sheet.task))
        return scores


def within(sheet: Sheet, quarters: int) -> list[int]:
    """The numbers of the batches that are asked in so many quarters of the samples."""
    return list(range(0, len(sheet.batches), WHOLE // quarters))
