"""A modality-expert model on disk: loaded whole or refused, saved in the same bytes, and its processor beside it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from modality_samples import everything, lively
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from foundation.errors import InputError
from foundation.files import directory_manifest
from models.modality_experts import ModalityExpertsModel, load, load_processor, pair_processor, save
from models.modality_experts.tiny import digits_config, word_tokenizer

CORPUS = ["Red three top left, blue 7 below.", "Is there a seven?"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tokenizer = word_tokenizer(CORPUS)
    model = lively(vocab_size=len(tokenizer), sharing="all")
    save(model, pair_processor(tokenizer, model.config), tmp_path / "model")
    return tmp_path / "model"


def test_saving_what_was_loaded_gives_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    model, processor = load(directory), load_processor(directory)
    processor.texts(["red seven"])
    save(model, processor, tmp_path / "again")
    assert directory_manifest(directory) == directory_manifest(tmp_path / "again")
    expected = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in directory.iterdir()} == expected
    assert str(tmp_path) not in "".join(path.read_text() for path in directory.glob("*.json"))


def test_the_auto_classes_know_the_model(directory: Path) -> None:
    model = AutoModel.from_pretrained(directory)
    assert isinstance(model, ModalityExpertsModel)
    assert AutoConfig.from_pretrained(directory).sharing == "all"
    made, loaded = everything(model), everything(load(directory))
    assert all(torch.equal(made[name], loaded[name]) for name in made)


def test_names_in_memory_are_names_on_disk(directory: Path) -> None:
    held = load_file(directory / "model.safetensors")
    assert sorted(held) == sorted(load(directory).state_dict())
    for name in ("encoder.layers.3.mlp.vl.fc1.weight", "encoder.layers.0.attention.l.q_bias", "relative_positions.table", "embeddings.cls"):
        assert name in held


def test_the_dtype_is_the_callers(directory: Path, tmp_path: Path) -> None:
    assert load(directory, torch.bfloat16).dtype == torch.bfloat16
    save(load(directory, torch.bfloat16), load_processor(directory), tmp_path / "half")
    assert load(tmp_path / "half").dtype == torch.float32
    assert load(tmp_path / "half", "auto").dtype == torch.bfloat16
    assert not load(directory).training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: held.pop("encoder.layers.2.mlp.vl.fc1.bias"), "1 missing, e.g. 'encoder.layers.2.mlp.vl.fc1.bias'"),
        (lambda held: held.update({"encoder.layers.0.mlp.vl.fc1.bias": torch.zeros(40)}), "1 unexpected"),
        (lambda held: held.update({"norm.weight": torch.zeros(23)}), "1 mismatched, e.g. 'norm.weight'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(directory: Path, change: Callable[[dict[str, torch.Tensor]], None], words: str) -> None:
    held = load_file(directory / "model.safetensors")
    change(held)
    save_file(held, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=words):
        load(directory)


def test_another_model_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="'bert', not a modality-expert"):
        load(directory)
    with pytest.raises(InputError, match=r"no config\.json"):
        load(tmp_path)
    (directory / "config.json").write_text(json.dumps({"auto_map": {}}))
    with pytest.raises(InputError, match="never done here"):
        load_processor(directory)


def test_a_missing_tokenizer_is_refused(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="so its words are not known"):
        load_processor(directory)


def test_words_and_pieces(directory: Path) -> None:
    processor = load_processor(directory)
    made = processor.texts(["red Three", "left " * 30, "treble"])
    assert made["input_ids"].shape == made["attention_mask"].shape == (3, 9)
    assert made["input_ids"].dtype == torch.int64
    pieces = processor.tokenizer.convert_ids_to_tokens(made["input_ids"][0].tolist())
    assert pieces == ["[CLS]", "red", "three", "[SEP]"] + ["[PAD]"] * 5
    assert made["attention_mask"].sum(1).tolist() == [4, 9, 8]
    assert processor.tokenizer.tokenize("treble") == ["t", "##r", "##e", "##b", "##l", "##e"]
    assert processor.tokenizer.tokenize("zoo") == ["[UNK]"]


def test_images_between_minus_one_and_one(directory: Path) -> None:
    processor = load_processor(directory)
    pictures = [Image.new("RGB", (32, 32), "white"), Image.new("L", (50, 20), 0), Image.new("RGB", (32, 32), (255, 0, 51))]
    made = processor.images(pictures)
    assert made.dtype == torch.float32
    assert made.shape == (3, 3, 32, 32)
    assert made[0].unique().tolist() == pytest.approx([1])
    assert made[1].unique().tolist() == pytest.approx([-1])
    assert made[2, :, 5, 5].tolist() == pytest.approx([1, -1, -0.6], abs=1e-6)


def test_equal_corpora_give_equal_tokenizers() -> None:
    one, other = word_tokenizer(CORPUS), word_tokenizer([*reversed(CORPUS), "SEVEN"])
    assert one.get_vocab() == other.get_vocab()
    assert one.pad_token_id == 0


def test_a_tokenizer_with_more_words_than_the_model_is_refused() -> None:
    with pytest.raises(InputError, match="the model has 10"):
        pair_processor(word_tokenizer(CORPUS), digits_config(vocab_size=10))
