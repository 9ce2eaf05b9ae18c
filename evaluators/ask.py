"""Batches of one task put to a loaded model: how they are answered is the task's choice, how they are scored its rule."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evaluators.generate import Answerer, encode, generate
from evaluators.likelihood import likeliest
from evaluators.scores import Sample
from tasks.task import Answering, Detailed, Example, Task

Batch = tuple[Sequence[Example], Sequence[str]]
"""Examples, and the prompt of each."""


def answers_to(answerer: Answerer, task: Task, batches: Iterable[Batch]) -> Iterator[tuple[Sequence[Example], Sequence[str], list[str]]]:
    """Each batch of examples and prompts with the model's responses, in order.

    With a GPU the next batch is read and encoded while the model answers; on the CPU that would take what the model computes with.
    """
    if answerer.device.type == "cpu":
        for examples, prompts in batches:
            yield examples, prompts, respond(answerer, task, examples, prompts, encode(answerer, examples, prompts))
        return
    for examples, prompts, inputs in encoded_ahead(answerer, batches):
        yield examples, prompts, respond(answerer, task, examples, prompts, inputs)


def encoded_ahead(answerer: Answerer, batches: Iterable[Batch]) -> Iterator[tuple[Sequence[Example], Sequence[str], dict[str, Any]]]:
    """Each batch with its inputs, made by a thread that is one batch ahead."""
    waiting = iter(batches)

    def prepared() -> tuple[Sequence[Example], Sequence[str], dict[str, Any]] | None:
        batch = next(waiting, None)
        return None if batch is None else (*batch, encode(answerer, *batch))

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(prepared)
        while (ready := coming.result()) is not None:
            coming = ahead.submit(prepared)
            yield ready


def respond(answerer: Answerer, task: Task, examples: Sequence[Example], prompts: Sequence[str], inputs: dict[str, Any]) -> list[str]:
    """The model's responses to one batch, `inputs` being what `encode` made of it."""
    if answering_of(task) is Answering.LIKELIHOOD:
        return likeliest(answerer, inputs, examples, prompts)
    return generate(answerer, inputs, task.max_new_tokens)


def sample_of(task: Task, example: Example, prompt: str, response: str) -> Sample:
    """One answer, scored by its task."""
    measures = dict(task.measures(response, example)) if isinstance(task, Detailed) else {}
    score = float(task.score(response, example))
    return Sample(task.name, example.key, example.question, example.answer, response, score, prompt, example.group, measures)


def answering_of(task: Task) -> Answering:
    """How the task's questions are answered."""
    return task.answering if isinstance(task, Detailed) else Answering.GENERATE


def is_macro(task: Task) -> bool:
    """Whether the task's score is the mean of its groups' means."""
    return task.macro if isinstance(task, Detailed) else False
