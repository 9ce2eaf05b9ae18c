"""Ask a checkpoint a suite of tasks: every sample's answer in `samples.parquet`, every task's score in `scores.json`.

The model is loaded once for all tasks. Every model is asked the same samples in the same order, so scores of two models can be paired
sample by sample. Evaluating again gives the same bytes (on the same kind of machine).
"""

from collections.abc import Callable
from pathlib import Path

import torch

from evaluators.generate import Answerer, answers, load_answerer
from evaluators.scores import SAMPLES_FILE, SCORES_FILE, Sample, TaskScore, task_score, write_samples, write_scores
from evaluators.suite import Suite
from foundation.errors import InputError
from tasks.task import Split, Task

Progress = Callable[[str, int, int], None]


def evaluate(
    checkpoint: Path, suite: Suite, output: Path, batch_size: int = 100, threads: int = 1, on_progress: Progress | None = None
) -> dict[str, TaskScore]:
    """Task name -> score of the model in `checkpoint`, in the order of `suite.tasks`; both files are written to `output`.

    `threads`: CPU threads; part of what makes the bits, so it is fixed rather than found. `on_progress(task, done, total)` is called after
    every batch. The scores are written last: where `scores.json` stands, the evaluation is complete. Raises InputError for a checkpoint or
    data that cannot be used.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        answerer = load_answerer(checkpoint)
        samples = {task.name: ask(answerer, task, suite.split, suite.samples, batch_size, on_progress) for task in suite.tasks}
    finally:
        torch.set_num_threads(before)
    scores = {task: task_score([sample.score for sample in rows]) for task, rows in samples.items()}
    output.mkdir(parents=True, exist_ok=True)
    write_samples([sample for rows in samples.values() for sample in rows], output / SAMPLES_FILE)
    write_scores(scores, output / SCORES_FILE)
    return scores


def ask(answerer: Answerer, task: Task, split: Split, count: int, batch_size: int, on_progress: Progress | None = None) -> list[Sample]:
    """The first `count` examples of the split, answered and scored, in their order."""
    examples = task.examples(split, count)
    if not examples:
        raise InputError(f"task {task.name!r} has no examples in its {split.value} split; check its data")

    def report(done: int) -> None:
        if on_progress is not None:
            on_progress(task.name, done, len(examples))

    responses = answers(answerer, examples, task.max_new_tokens, batch_size, report)
    return [
        Sample(task.name, example.key, example.question, example.answer, response, float(task.score(response, example)))
        for example, response in zip(examples, responses, strict=True)
    ]
