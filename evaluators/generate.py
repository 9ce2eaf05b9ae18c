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

from foundation.errors import InputError
from models.load import load_model, load_processor
from models.prompts import question_text, tokenizer_of
from tasks.task import Example


@dataclass(frozen=True)
class Answerer:
    """A checkpoint that is ready to be asked: the model on `device` and the processor that pads its prompts on the left."""

    model: Any
    processor: Any
    device: torch.device


def load_answerer(checkpoint: Path, device: torch.device | None = None) -> Answerer:
    """The model and processor in `checkpoint` on `device` (None: the GPU if there is one), in the dtype they are stored in.

    Raises InputError where the checkpoint does not load whole or names no token that ends an answer.
    """
    chosen = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = load_processor(checkpoint)
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
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} asks nothing; use at least 1")
    prompts = prompts_of(answerer, examples)
    order = by_length(answerer, examples, prompts)
    found: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = encode(answerer, [examples[index] for index in batch], [prompts[index] for index in batch])
        found |= zip(batch, generate(answerer, inputs, max_new_tokens), strict=True)
        if on_batch is not None:
            on_batch(len(found))
    return [found[index] for index in range(len(examples))]


def prompts_of(answerer: Answerer, examples: Sequence[Example]) -> list[str]:
    """The prompt of each example; the chat template runs once for each different question."""
    asked = [(len(example.images), example.question, example.before) for example in examples]
    rendered = {key: question_text(answerer.processor, *key) for key in dict.fromkeys(asked)}
    return [rendered[key] for key in asked]


def by_length(answerer: Answerer, examples: Sequence[Example], prompts: Sequence[str]) -> list[int]:
    """Row numbers sorted by the room a prompt takes: images' pixels, then tokens of text, then place. Each prompt is encoded once."""
    tokenizer = tokenizer_of(answerer.processor)
    lengths = {prompt: len(tokenizer(prompt).input_ids) for prompt in dict.fromkeys(prompts)}
    pixels = [sum(image.width * image.height for image in example.images) for example in examples]
    return sorted(range(len(examples)), key=lambda index: (pixels[index], lengths[prompts[index]], index))


def encode(answerer: Answerer, examples: Sequence[Example], prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Prompts and images as the model's inputs on its device; one call of the processor for the whole batch."""
    bos = tokenizer_of(answerer.processor).bos_token
    options: dict[str, Any] = {"text": list(prompts), "padding": True, "return_tensors": "pt"}
    if bos is not None and prompts[0].startswith(bos):
        options["add_special_tokens"] = False  # the chat template wrote the first token already
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
