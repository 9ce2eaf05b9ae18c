"""Evaluation on a real (tiny, random) LLaVA, against the plainest loop that could answer the same questions."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from evaluators.evaluate import evaluate
from evaluators.generate import answers, load_answerer
from evaluators.scores import TaskScore, read_samples, read_scores
from evaluators.suite import Suite
from foundation.errors import InputError
from models.digits_llava import digits_llava, digits_processor
from models.load import load_model, load_processor, save_checkpoint
from models.prompts import question_text
from tasks.digits import all_texts
from tasks.registry import get_task
from tasks.task import Example, Split, Task

SAMPLES = 7


@dataclass(frozen=True)
class Vowels:
    """Questions of another task, scored by the share of vowels in the response, so that a random model's scores differ from zero."""

    source: str
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        return f"vowels of {self.source}"

    @property
    def max_new_tokens(self) -> int:
        return 12

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        return get_task(self.source).examples(split, count)

    def score(self, response: str, example: Example) -> float:
        return sum(letter in "aeiou" for letter in response.lower()) / max(len(response), 1)


SUITE = Suite((get_task("parity"), Vowels("cell")), (get_task("describe"), Vowels("name")), Split.TEST, SAMPLES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with large weights, so that it answers every image differently and ends some answers early."""
    directory = tmp_path_factory.mktemp("checkpoint")
    model = digits_llava(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 5 if parameter.dim() > 1 else 1
        model.lm_head.weight[model.generation_config.eos_token_id] *= 2.5
    model.generation_config.update(do_sample=True, temperature=0.7, repetition_penalty=1.3)
    save_checkpoint(model, digits_processor(all_texts()), directory)
    return directory


@pytest.fixture(scope="module")
def scored(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TaskScore]]:
    output = tmp_path_factory.mktemp("evaluation")
    return output, evaluate(checkpoint, SUITE, output, batch_size=3)


def naive_answers(checkpoint: Path, task: Task) -> list[str]:
    """One sample at a time, the whole text again for every token, no cache, no padding."""
    model, processor = load_model(checkpoint), load_processor(checkpoint)
    found = []
    for example in task.examples(Split.TEST, SAMPLES):
        inputs: dict[str, Any] = processor(
            text=question_text(processor, 1, example.question), images=example.images[0], return_tensors="pt"
        )
        ids, answer = inputs["input_ids"], []
        while len(answer) < task.max_new_tokens:
            with torch.no_grad():
                token = int(
                    model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"]).logits[0, -1].argmax()
                )
            if token == processor.tokenizer.eos_token_id:
                break
            answer.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        found.append(processor.tokenizer.decode(answer, skip_special_tokens=True).strip())
    return found


def test_answers_and_scores_equal_the_naive_loop(checkpoint, scored) -> None:
    output, scores = scored
    rows = read_samples(output / "samples.parquet")
    assert [row.task for row in rows] == [task.name for task in SUITE.tasks for _ in range(SAMPLES)]
    lengths = set()
    for place, task in enumerate(SUITE.tasks):
        mine = rows[place * SAMPLES : (place + 1) * SAMPLES]
        examples = task.examples(Split.TEST, SAMPLES)
        expected = naive_answers(checkpoint, task)
        assert [row.response for row in mine] == expected
        assert [(row.key, row.question, row.answer) for row in mine] == [(each.key, each.question, each.answer) for each in examples]
        values = [task.score(response, example) for response, example in zip(expected, examples, strict=True)]
        assert [row.score for row in mine] == values
        # fsum against numpy's pairwise sum: a few float64 roundings
        assert scores[task.name].accuracy == pytest.approx(np.mean(values), abs=1e-14)
        assert scores[task.name].stderr == pytest.approx(np.std(values, ddof=1) / np.sqrt(SAMPLES), abs=1e-14)
        assert scores[task.name].samples == SAMPLES
        lengths |= {len(response) for response in expected}
    assert len(lengths) > 3, "answers of many lengths, else the early stop is not tested"
    assert scores["vowels of cell"].accuracy > 0


def test_scores_file_holds_what_is_returned_in_suite_order(scored) -> None:
    output, scores = scored
    assert list(scores) == [task.name for task in SUITE.tasks]
    assert read_scores(output / "scores.json") == scores
    assert set(json.loads((output / "scores.json").read_text())["parity"]) == {"accuracy", "stderr", "samples"}


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_same_bytes_for_every_batch_size(checkpoint, scored, tmp_path, batch_size) -> None:
    evaluate(checkpoint, SUITE, tmp_path / "again", batch_size=batch_size)
    for name in ("samples.parquet", "scores.json"):
        first, second = ((directory / name).read_bytes() for directory in (scored[0], tmp_path / "again"))
        assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest(), name
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["samples.parquet", "scores.json"]


def test_an_answer_does_not_depend_on_what_else_is_asked(checkpoint) -> None:
    answerer = load_answerer(checkpoint)
    examples = [*get_task("cell").examples(Split.TEST, 5), *get_task("name").examples(Split.TEST, 5)]
    together = answers(answerer, examples, 8, batch_size=10)
    backwards = answers(answerer, examples[::-1], 8, batch_size=3)
    assert together == backwards[::-1]
    assert len(set(together)) > 1


def test_progress_and_threads(checkpoint, tmp_path) -> None:
    heard: list[tuple[str, int, int]] = []
    before = torch.get_num_threads()
    suite = Suite((get_task("parity"),), (get_task("name"),), Split.VALIDATION, 5)
    evaluate(checkpoint, suite, tmp_path, batch_size=2, threads=2, on_progress=lambda *event: heard.append(event))
    planned = [(task, 0, 5) for task in ("name", "parity")]
    assert heard == planned + [(task, done, 5) for task in ("name", "parity") for done in (2, 4, 5)]
    assert torch.get_num_threads() == before


def test_refusals(checkpoint, tmp_path) -> None:
    suite = Suite((get_task("parity"),), samples=2)
    with pytest.raises(InputError, match="batch size 0"):
        evaluate(checkpoint, suite, tmp_path / "out", batch_size=0)
    with pytest.raises(InputError, match="no checkpoint"):
        evaluate(tmp_path, suite, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_text_model_without_images(tmp_path) -> None:
    """A checkpoint with a tokenizer and no processor is asked the same way."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    processor = digits_processor(all_texts())
    config = Qwen2Config(
        vocab_size=448, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    torch.manual_seed(0)
    save_checkpoint(Qwen2ForCausalLM(config), processor.tokenizer, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(processor.chat_template)
    questions = ["Which digit is shown?", "Describe the image.", "Which digit is at the bottom right?"]
    examples = [Example(str(place), (), question, "") for place, question in enumerate(questions)]
    answerer = load_answerer(tmp_path)
    together = answers(answerer, examples, 6, batch_size=3)
    assert together == [answers(answerer, [example], 6, batch_size=1)[0] for example in examples]
    assert any(together)
