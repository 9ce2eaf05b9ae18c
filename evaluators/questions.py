"""What a suite asks, planned once: each task's examples, their prompts, and which rows are asked together.

Prompts are grouped by the room they take, so little is padded. The batches depend on the suite, the batch size and the checkpoint's
processor alone, never on who asks them: that is what makes one worker's answers and many workers' the same bits.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluators.suite import Suite
from foundation.errors import InputError
from models.prompts import question_text, tokenizer_of
from tasks.outline import Outline, outline
from tasks.task import Example, Task

RUN = 4
"""How many batches a part has at most."""
FEW = 8
"""A task is cut into at least so many parts where it has as many batches, so that a few workers have as much to do as each other."""

Rows = tuple[int, ...]


@dataclass(frozen=True)
class Sheet:
    """One task's questions: its examples, their prompts, the rows of each batch, and a digest of all that is asked."""

    task: Task
    examples: Sequence[Example]
    prompts: tuple[str, ...]
    batches: tuple[Rows, ...]
    digest: str

    @cached_property
    def parts(self) -> tuple[tuple[Rows, ...], ...]:
        """Runs of consecutive batches: what one worker takes at a time. Depends on the number of batches alone."""
        run = min(RUN, max(1, len(self.batches) // FEW))
        return tuple(self.batches[start : start + run] for start in range(0, len(self.batches), run))


def sheets_of(processor: Any, suite: Suite, batch_size: int) -> list[Sheet]:
    """Each task's first samples of the suite's split, in batches of at most `batch_size`. Decodes no image whose size can be told without.

    InputError for a batch size below one, or a task without examples in the split.
    """
    return [sheet_of(processor, task, suite, batch_size) for task in suite.tasks]


def sheet_of(processor: Any, task: Task, suite: Suite, batch_size: int) -> Sheet:
    """One task's questions."""
    examples = task.examples(suite.split, suite.samples)
    if not examples:
        raise InputError(f"task {task.name!r} has no examples in its {suite.split.value} split; check its data")
    outlines = outlines_of(examples)
    prompts = prompts_of(processor, outlines)
    batches = cut(by_room(processor, outlines, prompts), batch_size)
    return Sheet(task, examples, prompts, batches, digest_of(task, outlines, prompts, batches))


def batches_of(processor: Any, examples: Sequence[Example], batch_size: int) -> tuple[tuple[str, ...], tuple[Rows, ...]]:
    """The prompt of each example, and the rows of each batch. InputError for a batch size below one."""
    outlines = outlines_of(examples)
    prompts = prompts_of(processor, outlines)
    return prompts, cut(by_room(processor, outlines, prompts), batch_size)


def outlines_of(examples: Sequence[Example]) -> list[Outline]:
    """What each example says and the sizes of its images."""
    return [outline(examples, index) for index in range(len(examples))]


def prompts_of(processor: Any, outlines: Sequence[Outline]) -> tuple[str, ...]:
    """The prompt of each example; the chat template runs once for each different question."""
    asked = [(len(each.images), each.turns[:-1]) for each in outlines]
    rendered = {(images, turns): question_text(processor, images, turns[-1].text, turns[:-1]) for images, turns in dict.fromkeys(asked)}
    return tuple(rendered[key] for key in asked)


def by_room(processor: Any, outlines: Sequence[Outline], prompts: Sequence[str]) -> list[int]:
    """Row numbers sorted by the room a prompt takes: images' pixels, then tokens of text, then place. Each prompt is encoded once."""
    tokenizer = tokenizer_of(processor)
    lengths = {prompt: len(tokenizer(prompt).input_ids) for prompt in dict.fromkeys(prompts)}
    pixels = [sum(image.size[0] * image.size[1] for image in each.images) for each in outlines]
    return sorted(range(len(outlines)), key=lambda index: (pixels[index], lengths[prompts[index]], index))


def cut(order: Sequence[int], batch_size: int) -> tuple[Rows, ...]:
    """The rows in their order, so many at a time. InputError for less than one."""
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} asks nothing; use at least 1")
    return tuple(tuple(order[start : start + batch_size]) for start in range(0, len(order), batch_size))


def digest_of(task: Task, outlines: Sequence[Outline], prompts: Sequence[str], batches: Sequence[Rows]) -> str:
    """SHA-256 of what the answers to a task rest on, but for the model: the task as a value, keys, prompts, right answers, batches."""
    state = hashlib.sha256(f"{type(task).__qualname__} {task.version} {task!r} {batches!r}".encode("utf-8", "surrogatepass"))
    for each, prompt in zip(outlines, prompts, strict=True):
        state.update(repr((each.key, each.turns[-1].text, each.images, prompt)).encode("utf-8", "surrogatepass"))
    return state.hexdigest()
