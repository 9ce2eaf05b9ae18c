"""One way of asking a model, in a process of its own.

    python -m benchmarks.evaluation_alone plain CHECKPOINT BATCH SAMPLES
    python -m benchmarks.evaluation_alone ours CHECKPOINT BATCH SAMPLES WORKERS
    python -m benchmarks.evaluation_alone score ANSWERS

`plain` is what one would write by hand: the model's own chat template, `model.generate` on BATCH samples at a time in the order they come,
each scored. `ours` is `evaluate`, with WORKERS Ray actors that are up, or in this process for 0. Both read the same questions, SAMPLES of
each task, load the model, and ask greedily, on one thread each. `score` scores so many answers, writes and reads them, and adds them up.
Printed as JSON in the last line: seconds of all that, without imports and without starting Ray.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from evaluators.ask import sample_of
from evaluators.evaluate import evaluate
from evaluators.scores import SAMPLES_FILE, read_samples, scores_of, write_samples
from evaluators.suite import Suite
from models.load import load_model, load_processor
from models.prompts import question_text
from tasks.registry import get_task
from tasks.task import Example, Split

TASKS = ("parity", "read", "describe")
"""Short answers and long ones."""
WARM = 4
"""Samples of each task asked beforehand, which import what is imported when it is needed."""


def suite(samples: int) -> Suite:
    """The questions."""
    return Suite(tuple(map(get_task, TASKS)), samples=samples)


def plain(checkpoint: Path, batch: int, samples: int) -> dict[str, list[float]]:
    """Task -> scores, by a loop around `generate`."""
    processor, model = load_processor(checkpoint), load_model(checkpoint)
    processor.tokenizer.padding_side = "left"
    scores: dict[str, list[float]] = {}
    for task in map(get_task, TASKS):
        scores[task.name] = []
        examples = list(task.examples(Split.TEST, samples))
        for start in range(0, len(examples), batch):
            asked = examples[start : start + batch]
            prompts = [question_text(processor, 1, example.question) for example in asked]
            inputs = processor(text=prompts, images=[example.images[0] for example in asked], padding=True, return_tensors="pt")
            with torch.inference_mode():
                made = model.generate(**inputs, max_new_tokens=task.max_new_tokens, do_sample=False)
            texts = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            scores[task.name] += [task.score(text.strip(), example) for text, example in zip(texts, asked, strict=True)]
    return scores


def ours(checkpoint: Path, batch: int, samples: int, crew: Any = None) -> None:
    """`evaluate`, by the crew."""
    with tempfile.TemporaryDirectory() as place:
        evaluate(checkpoint, suite(samples), Path(place), batch, crew=crew)


def score(answers: int) -> None:
    """Right and wrong answers to questions that are there already, scored, written, read again and added up."""
    task = get_task("describe")
    examples = described()
    rows = []
    for place in range(answers):
        example = examples[place % len(examples)]
        response = f"{example.answer} " if place % 3 else examples[place % 7].answer
        rows.append(sample_of(task, example, example.question, response))
    with tempfile.TemporaryDirectory() as place_of_samples:
        path = Path(place_of_samples) / SAMPLES_FILE
        write_samples(rows, path)
        scores_of(task.name, read_samples(path))


@cache
def described() -> Sequence[Example]:
    """Questions to be scored, made once."""
    return get_task("describe").examples(Split.TEST, 1000)


def seconds_of(work: Callable[[int], Any], samples: int) -> float:
    """How long the work takes on so many samples, once it has been done on a few."""
    work(WARM)
    began = time.perf_counter()
    work(samples)
    return time.perf_counter() - began


def main(kind: str, *arguments: str) -> None:
    """Print the seconds of what the arguments ask for."""
    torch.set_num_threads(1)
    if kind == "score":
        found = seconds_of(score, int(arguments[0]))
    else:
        place, batch, samples = Path(arguments[0]), int(arguments[1]), int(arguments[2])
        workers = int(arguments[3]) if kind == "ours" else 0
        if kind == "plain":
            found = seconds_of(lambda count: plain(place, batch, count), samples)
        elif not workers:
            found = seconds_of(lambda count: ours(place, batch, count), samples)
        else:
            found = on_ray(place, batch, samples, workers)
    print(json.dumps({"seconds": found}))


def on_ray(place: Path, batch: int, samples: int, workers: int) -> float:
    """The seconds of so many actors that are up: every one has asked before."""
    from pipeline.graph.actors import RayActors
    from pipeline.graph.cluster import connected

    with connected(cpus=workers + 1), RayActors(workers) as crew:
        return seconds_of(lambda count: ours(place, 1 if count == WARM else batch, count, crew), samples)


if __name__ == "__main__":
    main(*sys.argv[1:])
