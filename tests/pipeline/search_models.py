"""Two tiny random models that answer differently, as sources of a search, and the suites that the tests ask."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from evaluators.suite import Suite
from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from tasks.digits import all_texts
from tasks.registry import get_task
from tasks.task import Example, Split


@dataclass(frozen=True)
class Vowels:
    """Questions of another task, scored by the share of vowels in the response, so that a random model's scores differ from zero."""

    source: str
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        return f"vowels/{self.source}"  # a name with a slash, which Tune would take apart

    @property
    def max_new_tokens(self) -> int:
        return 6

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        return get_task(self.source).examples(split, count)

    def score(self, response: str, example: Example) -> float:
        return sum(letter in "aeiou" for letter in response.lower()) / max(len(response), 1)


def suite_of(samples: int = 8) -> Suite:
    return Suite((Vowels("parity"), Vowels("cell")), (Vowels("name"),), Split.VALIDATION, samples)


def two_models(directory: Path) -> dict[str, Path]:
    """Previous and tuned: random models with large weights, so that they answer every image differently."""
    places = {}
    for seed, name in enumerate(("previous", "tuned")):
        model = digits_llava(seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 5 if parameter.dim() > 1 else 1
        places[name] = directory / name
        save_checkpoint(model, digits_processor(all_texts()), places[name])
    return places
