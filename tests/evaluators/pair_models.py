"""A tiny modality-expert checkpoint with drawn weights, and sets of records made by the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from models.modality_experts import pair_processor, save
from models.modality_experts.starts import new
from models.modality_experts.tiny import digits_config, word_tokenizer
from tasks.pairs.records import Kind, Questioned, Record
from tasks.pairs.registry import corpus, get_pair_set
from tasks.task import Split

HEADS = ["itm", "itc", "vqa", "nlvr2", "classification"]


@dataclass(frozen=True)
class Given:
    """A set whose records and choices the test gives; every split has the same."""

    name: str
    kind: Kind
    rows: tuple[Record, ...]
    chosen: tuple[str, ...] = ()
    version: ClassVar[int] = 1

    def records(self, split: Split, count: int | None = None) -> Sequence[Record]:
        return self.rows[:count]

    def choices(self) -> tuple[str, ...]:
        return self.chosen


def save_tiny(directory: Path, seed: int = 5, **changes: Any) -> Path:
    """A checkpoint with all heads, whose weights are drawn so wide (and from such a seed) that the answers of every head vary."""
    tokenizer = word_tokenizer(corpus())
    config = digits_config(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "fusion_layer": 1,
            "intermediate_size": 48,
            "token_types": 3,
            "initializer_range": 0.25,
            "layer_scale": 1.0,
            "sharing": "all",
            "heads": HEADS,
            "answers": list(get_pair_set("digits_questions").choices()),
            "classes": list(get_pair_set("digits_labels").choices()),
            **changes,
        }
    )
    save(new(config, seed), pair_processor(tokenizer, config), directory)
    return directory


def blank(shade: int = 0) -> Image.Image:
    """An image of one grey."""
    return Image.new("RGB", (32, 32), (shade, shade, shade))


def secret(name: str, answers: dict[str, float], numbers: tuple[int | None, ...] = (11, 12, 13)) -> Given:
    """Two questions whose answers are secret, and one that is known to be among `answers`."""
    known: list[dict[str, float]] = [{}, {}, answers]
    rows = [Questioned(f"q{n}", partial(blank, 9 * n), "Which digit is shown?", known[n], number) for n, number in enumerate(numbers)]
    return Given(name, Kind.QUESTIONS, tuple(rows), get_pair_set("digits_questions").choices())
