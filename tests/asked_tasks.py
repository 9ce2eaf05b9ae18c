"""Tasks whose scores differ from zero even for a random model, with measures, groups and choices, and such a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from tasks.digits import all_texts
from tasks.outline import ImageSize, Outline
from tasks.registry import get_task
from tasks.task import Answering, Example, Split

CHOICES = ("three", "even", "top left", "red three, nothing, blue seven, nothing", "4 7", "seven", "odd")


def shouting_model(directory: Path, seed: int = 3) -> Path:
    """A random model with large weights, so that it answers every image differently and ends some answers early."""
    model = digits_llava(seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 5 if parameter.dim() > 1 else 1
        model.lm_head.weight[model.generation_config.eos_token_id] *= 2.5
    save_checkpoint(model, digits_processor(all_texts()), directory)
    return directory


@dataclass(frozen=True)
class Graded:
    """Another task's questions, scored by the share of vowels in the response; grouped by the right answer's first letter."""

    source: str
    answering: Answering = Answering.GENERATE
    macro: bool = False
    max_new_tokens: int = 6
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        return f"graded {self.source}"

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        found = get_task(self.source).examples(split, count)
        return [replace(each, group=each.answer[0], choices=CHOICES[: 2 + place % 6]) for place, each in enumerate(found)]

    def score(self, response: str, example: Example) -> float:
        return sum(letter in "aeiou" for letter in response.lower()) / max(len(response), 1)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        """`third` belongs to every third question only."""
        third = {"third": 1 / 3} if sum(map(ord, example.key)) % 3 == 0 else {}
        return {"length": float(len(response)), **third}


class Lazy(Sequence[Example]):
    """Examples that are made when asked for; which ones are, is noted in a file."""

    def __init__(self, examples: Sequence[Example], log: str) -> None:
        self.examples, self.log = examples, log

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        with open(self.log, "a") as file:
            file.write(f"{index}\n")
        return self.examples[index]

    def outline(self, index: int) -> Outline:
        example = self.examples[index]
        return Outline(example.key, example.turns, tuple(ImageSize(image.mode, image.size) for image in example.images))

    def has_images(self, index: int) -> bool:
        return bool(self.examples[index].images)


@dataclass(frozen=True)
class LazyTask:
    """A digits task, read lazily; every example that is read is noted in `log`."""

    source: str
    log: str
    version: ClassVar[int] = 1
    max_new_tokens: ClassVar[int] = 6

    @property
    def name(self) -> str:
        return f"lazy {self.source}"

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        return Lazy(get_task(self.source).examples(split, count), self.log)

    def score(self, response: str, example: Example) -> float:
        return sum(letter in "aeiou" for letter in response.lower()) / max(len(response), 1)
