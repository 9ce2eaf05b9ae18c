"""Whether a checkpoint can be asked a suite: what is lacking is said before the model is loaded."""

import json
from pathlib import Path
from typing import Any

from evaluators.ask import answering_of
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError
from models.load import class_for, load_processor
from models.prompts import template_of, tokenizer_of
from tasks.benchmarks.task import BenchmarkTask
from tasks.outline import has_images
from tasks.task import Answering, Task

CONFIGS = ("generation_config.json", "config.json")
"""Where a checkpoint may name its end-of-text token, besides the tokenizer."""


def check_askable(checkpoint: Path, suite: Suite) -> Any:
    """The checkpoint's processor, once it is known that the suite can be put to its model.

    Raises InputError for a checkpoint without processor or tokenizer, without chat template or without a token that ends an answer; a task
    with images where the model reads none; a task without examples. ConfigError for a task that is to be answered by likelihood and whose
    questions have no choices. Looks at each task's first example, and at every question of a benchmark: its images decode, its keys differ.
    """
    kind = class_for(checkpoint)
    processor = load_processor(checkpoint)
    if not suite.tasks:
        return processor  # other harnesses ask in their own way
    tokenizer = tokenizer_of(processor)
    if not hasattr(tokenizer, "eos_token_id"):
        raise InputError(
            f"{checkpoint}: its {type(processor).__name__} has no tokenizer; "
            "put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside its config.json"
        )
    try:
        template_of(processor)
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error
    if not names_end(checkpoint, tokenizer):
        raise InputError(f"{checkpoint}: neither generation_config.json nor the tokenizer names an end-of-text token; set eos_token_id")
    blind = "is a model of text alone" if kind.__name__ == "AutoModelForCausalLM" else ""
    if not blind and tokenizer is processor:
        blind = "has a tokenizer but no image processor (processor_config.json, preprocessor_config.json)"
    for task in suite.tasks:
        check_task(checkpoint, task, suite, blind)
    return processor


def check_task(checkpoint: Path, task: Task, suite: Suite, blind: str) -> None:
    """InputError where the model cannot be asked the task. `blind`: why it reads no images; empty where it does."""
    examples = task.examples(suite.split, 1)
    if not examples:
        raise InputError(f"task {task.name!r} has no examples in its {suite.split.value} split; check its data")
    if blind and has_images(examples, 0):
        raise InputError(
            f"task {task.name!r} shows images, and {checkpoint} {blind}; leave the task out of the suite, or ask a vision-language model"
        )
    if isinstance(task, BenchmarkTask):
        task.check(suite.split, suite.samples)
    if answering_of(task) is Answering.LIKELIHOOD and not examples[0].choices:
        raise ConfigError(
            f"task {task.name!r} is to be answered by the likeliest of the choices, and its question {examples[0].key} has none; "
            "set answering: generate"
        )


def names_end(checkpoint: Path, tokenizer: Any) -> bool:
    """Whether the checkpoint names a token that ends an answer."""
    if tokenizer.eos_token_id is not None:
        return True
    for name in CONFIGS:
        path = checkpoint / name
        held = json.loads(path.read_text()) if path.exists() else {}
        if any(part.get("eos_token_id") is not None for part in (held, held.get("text_config") or {})):
            return True
    return False
