"""Ask a modality-expert transformer a suite of pair sets: answers in `samples.parquet`, scores in `scores.json`, a submission if due.

The model is loaded once for all sets. Every model is asked the same records in the same order, so two models can be compared record by
record, and asking again gives the same bytes (same threads, batch size and kind of machine). Nothing is chosen here: the suite names its
split. Whoever chooses (a ratio, a λ, a checkpoint) asks a suite of the validation split and then, once, one of the test split; no figure
of the latter enters a choice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from evaluators.pairs.asker import Answered, Asker, Report, load_asker
from evaluators.pairs.comparisons import ask_comparisons
from evaluators.pairs.fit import check_fit
from evaluators.pairs.labels import ask_labels
from evaluators.pairs.questions import ask_questions
from evaluators.pairs.retrieval import ask_captions
from evaluators.pairs.suite import Asked, PairSuite
from evaluators.scores import SAMPLES_FILE, SCORES_FILE, TaskScore, write_samples, write_scores
from foundation.errors import InputError
from foundation.files import file_name, write_json_atomic
from tasks.pairs.records import Kind

Progress = Callable[[str, int, int], None]

WAYS: dict[Kind, Callable[[Asker, Asked, Any, Report], Answered]] = {
    Kind.CAPTIONS: ask_captions,
    Kind.QUESTIONS: ask_questions,
    Kind.COMPARISONS: ask_comparisons,
    Kind.LABELS: ask_labels,
}
"""How each kind of set is asked."""


def evaluate_pairs(
    checkpoint: Path, suite: PairSuite, output: Path, batch_size: int = 100, threads: int = 1, on_progress: Progress | None = None
) -> dict[str, TaskScore]:
    """Name -> score of the model in `checkpoint`, in the order of `suite.tasks`; the files are written to `output`.

    | set of         | `NAME`                        | beside it |
    | captions       | the mean of the six recalls   | `NAME/TR@1`, `/TR@5`, `/TR@10`, `/IR@1`, `/IR@5`, `/IR@10` |
    | questions      | the mean target of the answer | (no score at all where every answer is secret) |
    | comparisons    | the share judged right        | |
    | labels         | top-1 accuracy                | `NAME/top5` |

    `threads`: CPU threads; part of what makes the bits. `on_progress(set, done, total)` is called after every batch. The scores are written
    last: where `scores.json` stands, the evaluation is complete. `vqa_submit.json` holds the answers to questions whose answers are secret
    (`vqa_submit.NAME.json` for each where several sets have such). InputError for a checkpoint or data that cannot be used; where
    the model lacks a head or its choices are not the set's, before its weights are read.
    """
    from models.modality_experts import load_config

    config = load_config(checkpoint)
    for asked in suite.tasks:
        check_fit(checkpoint, config, asked)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        asker = load_asker(checkpoint, batch_size)
        answered = {asked.name: _ask(asker, asked, suite, on_progress) for asked in suite.tasks}
    finally:
        torch.set_num_threads(before)
    scores = {name: score for each in answered.values() for name, score in each.scores.items()}
    output.mkdir(parents=True, exist_ok=True)
    _write_submissions({name: each.submission for name, each in answered.items() if each.submission}, output)
    write_samples([sample for each in answered.values() for sample in each.samples], output / SAMPLES_FILE)
    write_scores(scores, output / SCORES_FILE)
    return scores


def _ask(asker: Asker, asked: Asked, suite: PairSuite, on_progress: Progress | None) -> Answered:
    """What the set's records give; InputError where there are none."""
    records = asked.set.records(suite.split, suite.samples)
    if not len(records):
        raise InputError(f"set {asked.name!r} has no records in its {suite.split.value} split; check its data")

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(asked.name, done, total)

    return WAYS[asked.set.kind](asker, asked, records, report)


def _write_submissions(rows: dict[str, list[dict[str, Any]]], output: Path) -> None:
    """The submission files: one list of {question_id, answer} per set."""
    for name, answers in rows.items():
        middle = f".{file_name(name)}" if len(rows) > 1 else ""
        write_json_atomic(output / f"vqa_submit{middle}.json", answers)
