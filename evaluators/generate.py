"""A model's own answers: greedy generation in batches, the same on CPU and GPU and, rounding aside, for every batch size.

Prompts are grouped by length, so little is padded, and padded on the left, so every answer begins at the same column. A checkpoint's
sampling settings (temperature, repetition penalty) are set aside: every model is asked the same way, and only its end-of-text tokens
are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from evaluators.questions import batches_of
from foundation.errors import InputError
from models.load import load_model, load_processor
from models.prompts import special_tokens, tokenizer_of
from tasks.task import Example


@dataclass(frozen=True)
class Answerer:
    """A checkpoint that is ready to be asked: the model on `device` and the processor that pads its prompts on the left."""

    model: Any
    processor: Any
    device: torch.device


def load_answerer(checkpoint: Path, device: torch.device | None = None, processor: Any = None) -> Answerer:
    """The model and processor in `checkpoint` on `device` (None: the GPU if there is one), in the dtype they are stored in.

    `processor`: the checkpoint's, where it is loaded already; it will pad on the left.
    Raises InputError where the checkpoint does not load whole or names no token that ends an answer.
    """
    chosen = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = load_processor(checkpoint) if processor is None else processor
    tokenizer = tokenizer_of(processor)
    tokenizer.padding_side = "left"
    model = load_model(checkpoint).to(chosen).eval()
    stored = model.generation_config.eos_token_id
    ends = sorted({*(stored if isinstance(stored, list) else [stored]), tokenizer.eos_token_id} - {None})
    if not ends:
        raise InputError(f"{checkpoint}: neither generation_config.json nor the tokenizer names an end-of-text token; set eos_token_id")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = ends[0]
    model.generation_config = GenerationConfig(do_sample=False, num_beams=1, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return Answerer(model, processor, chosen)


def answers(
    answerer: Answerer, examples: Sequence[Example], max_new_tokens: int, batch_size: int, on_batch: Callable[[int], None] | None = None
) -> list[str]:
    """The model's answer to each example, in the order of `examples`; at most `max_new_tokens` tokens, up to the end-of-text token.

    `on_batch` hears how many examples have been answered. Raises InputError for a batch size below one.
    """
    prompts, batches = batches_of(answerer.processor, examples, batch_size)
    found: dict[int, str] = {}
    for batch in batches:
        inputs = encode(answerer, [examples[index] for index in batch], [prompts[index] for index in batch])
        found |= zip(batch, generate(answerer, inputs, max_new_tokens), strict=True)
        if on_batch is not None:
            on_batch(len(found))
    return [found[index] for index in range(len(examples))]


def encode(answerer: Answerer, examples: Sequence[Example], prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Prompts and images as the model's inputs on its device; one call of the processor for the whole batch."""
    options: dict[str, Any] = {"text": list(prompts), "padding": True, "return_tensors": "pt"}
    options |= special_tokens(answerer.processor, prompts[0])
    if any(example.images for example in examples):
        options["images"] = [list(example.images) for example in examples]
    inputs = answerer.processor(**options).to(answerer.device)
    wanted = answerer.model.dtype
    return {name: value.to(wanted) if value.is_floating_point() else value for name, value in inputs.items()}


@torch.inference_mode()
def generate(answerer: Answerer, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> list[str]:
    """Greedy answers to one encoded batch, without special tokens and without space at their ends."""
    produced = answerer.model.generate(**inputs, max_new_tokens=max_new_tokens)
    new = produced[:, inputs["input_ids"].shape[1] :].cpu()
    texts = tokenizer_of(answerer.processor).batch_decode(new, skip_special_tokens=True)
    return [text.strip() for text in texts]
