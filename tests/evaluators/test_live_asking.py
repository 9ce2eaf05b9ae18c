"""Asking a model in memory gives what `evaluate` gives its written checkpoint, to the last bit, however the samples are parted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from evaluators import live
from evaluators.evaluate import evaluate
from evaluators.generate import load_answerer
from evaluators.live import PARTS, Interview, Questions
from evaluators.suite import Suite
from foundation.errors import InputError
from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from tasks.digits import all_texts
from tasks.registry import get_task
from tasks.task import Example, Split

SCORED: Counter[tuple[str, str]] = Counter()


@dataclass(frozen=True)
class Vowels:
    """Another task's questions, scored by the share of vowels, with a count of how often each sample is scored."""

    source: str
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        return f"vowels of {self.source}"

    @property
    def max_new_tokens(self) -> int:
        return 8

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        return get_task(self.source).examples(split, count)

    def score(self, response: str, example: Example) -> float:
        SCORED[self.name, example.key] += 1
        return sum(letter in "aeiou" for letter in response.lower()) / max(len(response), 1)


SUITE = Suite((Vowels("cell"), Vowels("parity")), (Vowels("name"),), Split.VALIDATION, 13)


def write(directory: Path, seed: int) -> Path:
    """A random model with large weights, so that it answers every image differently."""
    model = digits_llava(seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 5 if parameter.dim() > 1 else 1
    save_checkpoint(model, digits_processor(all_texts()), directory)
    return directory


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    room = tmp_path_factory.mktemp("models")
    return [write(room / str(seed), seed) for seed in (3, 4)]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 100])
def test_all_parts_together_equal_evaluate_to_the_last_bit(checkpoints, tmp_path, batch_size) -> None:
    expected = evaluate(checkpoints[0], SUITE, tmp_path, batch_size)
    SCORED.clear()
    interview = Interview(Questions(load_answerer(checkpoints[0]), SUITE, batch_size))
    asked = []
    for quarters in PARTS:
        scores = interview.ask(quarters)
        asked.append(scores["vowels of cell"].samples)
    assert scores == expected
    assert list(scores) == list(expected)
    assert set(SCORED.values()) == {1}, "no sample is asked twice"
    assert asked == {1: [4, 7, 13], 3: [4, 7, 13], 5: [5, 8, 13], 100: [13, 13, 13]}[batch_size]
    assert len({score.accuracy for score in scores.values()}) == 3


def test_parts_of_one_interview_do_not_change_the_whole(checkpoints) -> None:
    questions = Questions(load_answerer(checkpoints[0]), SUITE, 2)
    assert Interview(questions).ask() == Interview(questions).ask(PARTS[-1])
    parted = Interview(questions)
    quarter = parted.ask(1)
    assert quarter != parted.ask(4) == Interview(questions).ask()


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (40_000, 3), (1 << 20, 12)], ids=["nothing", "what is small", "all"])
def test_weights_may_change_between_interviews(checkpoints, tmp_path, monkeypatch, room, kept) -> None:
    monkeypatch.setattr(live, "KEPT_BYTES", room)
    expected = [evaluate(checkpoint, SUITE, tmp_path / checkpoint.name, 4) for checkpoint in checkpoints]
    assert expected[0] != expected[1]
    questions = Questions(load_answerer(checkpoints[0]), SUITE, 4)
    weights = [load_answerer(checkpoint).model.state_dict() for checkpoint in checkpoints]
    for which in (0, 1, 0, 1):
        questions.answerer.model.load_state_dict(weights[which])
        assert Interview(questions).ask() == expected[which]
    assert len(questions.kept) == kept


def test_progress(checkpoints) -> None:
    heard: list[tuple[str, int, int]] = []
    interview = Interview(Questions(load_answerer(checkpoints[0]), replace(SUITE, stream=SUITE.stream[:1], held_out=(), samples=8), 2))
    interview.ask(2, lambda *event: heard.append(event))
    interview.ask(4, lambda *event: heard.append(event))
    assert heard == [("vowels of cell", done, 8) for done in (2, 4, 6, 8)]


def test_refusals(checkpoints) -> None:
    answerer = load_answerer(checkpoints[0])
    with pytest.raises(InputError, match="batch size 0"):
        Questions(answerer, SUITE, 0)

    class Empty(Vowels):
        def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
            return []

    with pytest.raises(InputError, match="'vowels of read' has no examples in its validation split"):
        Questions(answerer, replace(SUITE, stream=(Empty("read"),)), 4)
