"""Ask a model that is already in memory a suite of tasks, again and again while its weights change, in growing parts of the samples.

Examples are read, and prompts rendered and grouped, once. The batches are those that `evaluate` forms of the same samples with the same
batch size, so a model that has been asked everything has the answers and scores that `evaluate` gives its written checkpoint, to the
last bit. A part consists of whole batches, spread evenly over the lengths: with fewer than four batches a quarter is more than one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluators.generate import Answerer, by_length, encode, generate, prompts_of
from evaluators.scores import TaskScore, task_score
from evaluators.suite import Suite
from foundation.errors import InputError
from tasks.task import Example, Task

Progress = Callable[[str, int, int], None]

PARTS = (1, 2, 4)
"""How many quarters of the samples are asked by the end of each part."""
WHOLE = PARTS[-1]
KEPT_BYTES = 256 << 20
"""How much of the encoded batches is kept from one time to the next; what is beyond is encoded again."""


@dataclass(frozen=True)
class Sheet:
    """One task's questions: its examples, their prompts, and the rows of each batch."""

    task: Task
    examples: Sequence[Example]
    prompts: Sequence[str]
    batches: tuple[tuple[int, ...], ...]

    def within(self, quarters: int) -> list[int]:
        """The numbers of the batches that are asked in so many quarters of the samples."""
        return list(range(0, len(self.batches), WHOLE // quarters))


class Questions:
    """A suite, ready to be put to one model whatever its weights are.

    `batch_size` is the most that is asked at a time. InputError for a batch size below one, or a task without examples in the split.
    """

    def __init__(self, answerer: Answerer, suite: Suite, batch_size: int = 100) -> None:
        if batch_size < 1:
            raise InputError(f"batch size {batch_size} asks nothing; use at least 1")
        self.answerer = answerer
        self.sheets = tuple(sheet_of(answerer, task, suite, batch_size) for task in suite.tasks)
        self.kept: dict[tuple[str, int], dict[str, Any]] = {}
        self.room = KEPT_BYTES

    def inputs(self, sheet: Sheet, number: int) -> dict[str, Any]:
        """A batch as the model takes it, kept as long as there is room."""
        key = (sheet.task.name, number)
        if key in self.kept:
            return self.kept[key]
        rows = sheet.batches[number]
        found = encode(self.answerer, [sheet.examples[row] for row in rows], [sheet.prompts[row] for row in rows])
        size = sum(value.nbytes for value in found.values())
        if size <= self.room:
            self.kept[key] = found
            self.room -= size
        return found

    def responses(self, sheet: Sheet, number: int) -> list[str]:
        """The model's answers to one batch, in its order."""
        return generate(self.answerer, self.inputs(sheet, number), sheet.task.max_new_tokens)


@dataclass
class Interview:
    """One model being asked `questions`: no sample is asked twice, however the parts grow. `scored`: task -> row -> score."""

    questions: Questions
    scored: dict[str, dict[int, float]] = field(default_factory=dict)

    def ask(self, quarters: int = WHOLE, on_progress: Progress | None = None) -> dict[str, TaskScore]:
        """Task -> score over so many quarters (1, 2 or 4) of the samples; `on_progress(task, done, total)` is called for every batch."""
        for sheet in self.questions.sheets:
            rows = self.scored.setdefault(sheet.task.name, {})
            for number in sheet.within(quarters):
                batch = sheet.batches[number]
                if batch[0] in rows:
                    continue
                for row, response in zip(batch, self.questions.responses(sheet, number), strict=True):
                    rows[row] = float(sheet.task.score(response, sheet.examples[row]))
                if on_progress is not None:
                    on_progress(sheet.task.name, len(rows), len(sheet.examples))
        return {task: task_score([rows[row] for row in sorted(rows)]) for task, rows in self.scored.items()}


def sheet_of(answerer: Answerer, task: Task, suite: Suite, batch_size: int) -> Sheet:
    """A task's first samples of the suite's split, in the batches that `answers` makes of them."""
    examples = task.examples(suite.split, suite.samples)
    if not examples:
        raise InputError(f"task {task.name!r} has no examples in its {suite.split.value} split; check its data")
    prompts = prompts_of(answerer, examples)
    order = by_length(answerer, examples, prompts)
    return Sheet(task, examples, prompts, tuple(tuple(order[start : start + batch_size]) for start in range(0, len(order), batch_size)))
