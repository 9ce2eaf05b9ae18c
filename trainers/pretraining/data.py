"""The demo's pretraining examples as tensors, made once: pixels, what lies in each cell, and tokens with the answer marked.

Everything comes from the TRAIN split. Encoded with the model's own processor and prompts, so training sees exactly what evaluation asks.
"""

from dataclasses import dataclass
from typing import Any

import torch

from models.prompts import conversation_text, question_text
from tasks.digits import DigitsTask
from tasks.digits_scene import CELLS, COLORS, WORDS
from tasks.task import Split

IGNORED = -100
NO_DIGIT = len(WORDS)
NO_COLOR = len(COLORS)
CHUNK = 1000


@dataclass(frozen=True)
class Encoded:
    """N examples. Padding is on the right, and `labels` is IGNORED outside the answer.

    pixels [N, 3, H, W] float32; digits and colors [N, 4] int64 (per cell in reading order, with one more class for an empty cell);
    tokens, attention and labels [N, T] int64.
    """

    pixels: torch.Tensor
    digits: torch.Tensor
    colors: torch.Tensor
    tokens: torch.Tensor
    attention: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's inputs for `rows`, without the columns that are padding in all of them."""
        width = int(self.attention[rows].sum(dim=1).max())
        return {
            "pixel_values": self.pixels[rows],
            "input_ids": self.tokens[rows, :width],
            "attention_mask": self.attention[rows, :width],
            "labels": self.labels[rows, :width],
        }


def encode(processor: Any, samples: tuple[tuple[str, int], ...], data_seed: int) -> Encoded:
    """The first examples of each task in `samples`, in that order."""
    tasks = [(DigitsTask(name, data_seed), count) for name, count in samples]
    digits = [cell_classes(task, index) for task, count in tasks for index in range(count)]
    examples = [example for task, count in tasks for example in task.examples(Split.TRAIN, count)]
    parts = [encode_examples(processor, examples[start : start + CHUNK]) for start in range(0, len(examples), CHUNK)]
    width = max(tokens.shape[1] for _, tokens, _, _ in parts)
    pad = processor.tokenizer.pad_token_id

    def stacked(which: int, value: int) -> torch.Tensor:
        return torch.cat([torch.nn.functional.pad(part[which], (0, width - part[which].shape[1]), value=value) for part in parts])

    classes = torch.tensor(digits)
    return Encoded(
        pixels=torch.cat([part[0] for part in parts]),
        digits=classes[:, 0],
        colors=classes[:, 1],
        tokens=stacked(1, pad),
        attention=stacked(2, 0),
        labels=stacked(3, IGNORED),
    )


def cell_classes(task: DigitsTask, index: int) -> tuple[list[int], list[int]]:
    """For each cell of one training canvas, which digit and which color it holds."""
    digits, colors = [NO_DIGIT] * len(CELLS), [NO_COLOR] * len(CELLS)
    for glyph in task.scene(Split.TRAIN, index).glyphs:
        digits[glyph.cell], colors[glyph.cell] = glyph.digit, glyph.color
    return digits, colors


def encode_examples(processor: Any, examples: list[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels, tokens, attention and labels of a few examples; the loss is on the answer and what ends it."""
    images = [list(example.images) for example in examples]
    whole = [conversation_text(processor, len(example.images), example.question, example.answer) for example in examples]
    prompts = [question_text(processor, len(example.images), example.question) for example in examples]
    encoded = processor(images=images, text=whole, padding=True, return_tensors="pt")
    lengths = [[len(ids) for ids in processor.tokenizer(texts)["input_ids"]] for texts in (whole, prompts)]
    answered = torch.tensor(lengths[0]) - torch.tensor(lengths[1])
    tokens, attention = encoded["input_ids"], encoded["attention_mask"]
    asked = attention.sum(dim=1) - answered
    columns = torch.arange(tokens.shape[1])
    in_answer = (columns >= asked[:, None]) & attention.bool()
    return encoded["pixel_values"], tokens, attention, tokens.masked_fill(~in_answer, IGNORED)
