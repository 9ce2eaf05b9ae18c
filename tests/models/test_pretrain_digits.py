"""The demo's base model: a few steps give the same bytes twice, learn something, and leave no half-written directory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from foundation.errors import ConfigError
from foundation.files import directory_manifest
from models.digits_llava import digits_llava, digits_processor
from models.load import load_model, load_processor
from tasks.digits import COLOR_NAMES, WORDS, DigitsTask, all_texts
from tasks.registry import TASKS
from tasks.task import Split
from trainers.pretraining import digits as pretraining
from trainers.pretraining.data import IGNORED, NO_COLOR, NO_DIGIT, encode
from trainers.pretraining.digits import pace, pretrain_digits, shuffled
from trainers.pretraining.spec import DigitsPretraining, Phase

SAMPLES = (("name", 40), ("describe", 24))
SHORT = DigitsPretraining(
    tower=Phase(steps=30, batch_size=16, learning_rate=2e-3, warmup_steps=3, weight_decay=0.05),
    language=Phase(steps=26, batch_size=16, learning_rate=2e-3, warmup_steps=3, weight_decay=0.01),
    samples=SAMPLES,
)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    pretrain_digits(0, tmp_path / "first", threads=1, recipe=SHORT)
    torch.manual_seed(2)
    pretrain_digits(0, tmp_path / "second", threads=1, recipe=SHORT)
    pretrain_digits(1, tmp_path / "other", threads=1, recipe=SHORT)
    first, second, other = (directory_manifest(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}
    AutoModelForImageTextToText.from_pretrained(tmp_path / "first")
    AutoProcessor.from_pretrained(tmp_path / "first")
    assert load_processor(tmp_path / "first").chat_template


def test_each_phase_learns_and_changes_only_its_part(tmp_path: Path) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    before = torch.get_num_threads()
    result = pretrain_digits(0, tmp_path / "base", on_log=lambda step, values: logged.append((step, values)), threads=1, recipe=SHORT)
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert [(step, list(values)) for step, values in logged] == [
        (25, ["tower_loss"]),
        (30, ["tower_loss"]),
        (55, ["language_loss"]),
        (56, ["language_loss"]),
    ]
    assert logged[1][1]["tower_loss"] < logged[0][1]["tower_loss"]
    assert logged[3][1]["language_loss"] < logged[2][1]["language_loss"]
    assert result == {"tower_loss": logged[1][1]["tower_loss"], "language_loss": logged[3][1]["language_loss"], "steps": 56.0}
    start, end = digits_llava(0), load_model(tmp_path / "base")
    same = {name for name, weight in start.named_parameters() if torch.equal(weight, end.get_parameter(name))}
    assert same <= {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}


def test_phase_b_leaves_the_tower_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = digits_processor(all_texts())
    model, data = digits_llava(0), encode(processor, SAMPLES, data_seed=0)
    pretraining.teach_language(model, data, SHORT, 0, lambda step, values: None)
    start = digits_llava(0)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, start.get_parameter(name)) == name.startswith("model.vision_tower."), name


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        (_[-1] / "half").parent.mkdir()  # type: ignore[operator]
        raise OSError("disk full")

    monkeypatch.setattr(pretraining, "save_checkpoint", fail)
    with pytest.raises(OSError, match="disk full"):
        pretrain_digits(0, tmp_path / "base", threads=1, recipe=replace(SHORT, tower=replace(SHORT.tower, steps=3)))
    assert list(tmp_path.iterdir()) == []


def test_labels_mark_the_answer_and_its_end() -> None:
    processor = digits_processor(all_texts())
    data = encode(processor, SAMPLES, data_seed=0)
    examples = [example for name, count in SAMPLES for example in DigitsTask(name).examples(Split.TRAIN, count)]
    for row, example in enumerate(examples):
        learned = data.labels[row] != IGNORED
        assert torch.equal(data.labels[row][learned], data.tokens[row][learned])
        assert processor.tokenizer.decode(data.tokens[row][learned]).strip() == f"{example.answer}<eos>"
        pixels = processor.image_processor(list(example.images), return_tensors="pt")["pixel_values"][0]
        assert torch.equal(data.pixels[row], pixels)
        shown = [
            f"{COLOR_NAMES[color]} {WORDS[digit]}"
            for digit, color in zip(data.digits[row].tolist(), data.colors[row].tolist(), strict=True)
            if digit != NO_DIGIT and color != NO_COLOR
        ]
        if example.question == "Describe the image.":
            assert shown == [part for part in example.answer.split(", ") if part != "nothing"]
        else:
            assert [word.split()[1] for word in shown] == [example.answer]


def test_every_answer_survives_the_tokenizer() -> None:
    tokenizer = digits_processor(all_texts()).tokenizer
    answers = {DigitsTask(name).scene(Split.TRAIN, index).answer for name in TASKS for index in range(300)}
    for answer in sorted(answers):
        tokens = tokenizer(answer)["input_ids"]
        assert tokenizer.decode(tokens).strip() == answer
        assert len(tokens) == len(answer.replace(",", " ,").split())  # one token per word: short answers, cheap stages
        assert len(tokens) < min(task.max_new_tokens for task in TASKS.values()) or len(tokens) < TASKS["describe"].max_new_tokens
    odd = "Ünseen wörds: 数字 & <tags>!"
    assert tokenizer.decode(tokenizer(odd)["input_ids"]).strip() == odd


def test_tokenizer_fits_the_model() -> None:
    tokenizer = digits_processor(all_texts()).tokenizer
    config = digits_llava(0).config
    assert len(tokenizer) <= config.text_config.vocab_size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (config.text_config.pad_token_id, config.text_config.eos_token_id)
    assert tokenizer.convert_tokens_to_ids("<image>") == config.image_token_index


def test_batches_take_every_row_once_per_pass() -> None:
    phase = Phase(steps=9, batch_size=4, learning_rate=1.0, warmup_steps=0, weight_decay=0.0)
    rows = torch.cat(list(shuffled(12, phase, seed=5)))
    passes = rows.reshape(3, 12)
    assert all(sorted(each.tolist()) == list(range(12)) for each in passes)
    assert not torch.equal(passes[0], passes[1])


def test_learning_rate_rises_then_falls_to_zero() -> None:
    phase = Phase(steps=20, batch_size=1, learning_rate=1.0, warmup_steps=4, weight_decay=0.0)
    shares = [pace(step, phase) for step in range(21)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert shares[20] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("changes", [{"samples": ()}, {"samples": (("name", 0),)}, {"samples": (("nmae", 5),)}, {"beta2": 1.0}])
def test_a_recipe_that_cannot_be_followed_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(DigitsPretraining(), **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps and batch_size"):
        Phase(steps=0, batch_size=1, learning_rate=1.0, warmup_steps=0, weight_decay=0.0)


def test_naming_the_recipe_loads_no_torch() -> None:
    code = "import sys, trainers.pretraining.spec; print('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
