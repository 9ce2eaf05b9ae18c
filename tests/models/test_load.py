"""Loading refuses what does not fit; saving gives a plain checkpoint that Auto* classes load with equal logits."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, BertConfig, BertModel

from foundation.errors import InputError
from models.digits_llava import digits_llava, digits_processor
from models.load import load_model, load_processor, save_checkpoint
from models.prompts import question_text

WEIGHTS = "model.safetensors"


def names_on_disk(directory: Path) -> set[str]:
    with safe_open(directory / WEIGHTS, framework="pt") as file:
        return set(file.keys())


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


def inputs(processor: Any) -> dict[str, torch.Tensor]:
    image = Image.effect_noise((32, 32), 60).convert("RGB")
    return processor(images=[[image]], text=[question_text(processor, 1, "Which digit is shown?")], return_tensors="pt")


def test_auto_classes_load_it_with_equal_logits(checkpoint: Path) -> None:
    saved, loaded = digits_llava(0), load_model(checkpoint)
    automatic = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    batch = inputs(AutoProcessor.from_pretrained(checkpoint))
    with torch.no_grad():
        logits = saved(**batch).logits
        assert torch.equal(logits, loaded(**batch).logits)
        assert torch.equal(logits, automatic(**batch).logits)
    assert not loaded.training


def test_processor_round_trip(checkpoint: Path, processor: Any) -> None:
    loaded = load_processor(checkpoint)
    first, second = inputs(processor), inputs(loaded)
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert first["pixel_values"].shape == second["pixel_values"].shape == (1, 3, 32, 32)
    assert int((first["input_ids"] == loaded.image_token_id).sum()) == 16


def test_it_generates(checkpoint: Path) -> None:
    model, processor = load_model(checkpoint), load_processor(checkpoint)
    batch = inputs(processor)
    made = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert batch["input_ids"].shape[1] < made.shape[1] <= batch["input_ids"].shape[1] + 3


def test_model_and_tokenizer_come_from_the_seed_and_corpus_alone(tmp_path: Path) -> None:
    corpus = ["three", "seven", "Which digit is shown?"]
    before = torch.get_rng_state()
    for place, words in (("first", corpus), ("second", corpus[::-1])):
        save_checkpoint(digits_llava(3), digits_processor(words), tmp_path / place)
    assert torch.equal(before, torch.get_rng_state())
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
    assert not torch.equal(digits_llava(3).lm_head.weight, digits_llava(4).lm_head.weight)


def test_size_of_the_demo_model() -> None:
    model = digits_llava(0)
    assert 820_000 < sum(weight.numel() for weight in model.parameters()) < 830_000


def test_saved_files_are_plain_and_readable(checkpoint: Path, tmp_path: Path) -> None:
    names = {path.name for path in checkpoint.iterdir()}
    assert {"config.json", "generation_config.json", WEIGHTS, "processor_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert "training_args.bin" not in names
    before = os.umask(0o027)
    try:
        save_checkpoint(digits_llava(0), load_processor(checkpoint), tmp_path / "masked")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "masked").iterdir()} == {0o640}


def test_names_on_disk_are_not_names_in_memory(checkpoint: Path) -> None:
    """The trap: a state dict read from a LLaVA file and loaded by name matches almost nothing. Merge or compare in one namespace only."""
    in_memory = {name for name, _ in load_model(checkpoint).named_parameters()}
    assert "model.language_model.layers.0.mlp.up_proj.weight" in in_memory
    assert "language_model.model.layers.0.mlp.up_proj.weight" in names_on_disk(checkpoint)
    assert not in_memory & names_on_disk(checkpoint)


def test_saving_keeps_the_names_of_the_source(checkpoint: Path, tmp_path: Path, processor: Any) -> None:
    save_checkpoint(load_model(checkpoint), processor, tmp_path / "again")
    assert names_on_disk(tmp_path / "again") == names_on_disk(checkpoint)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    digits_llava(0).save_pretrained(tmp_path / "new_style", save_original_format=False)
    new_style = names_on_disk(tmp_path / "new_style")
    assert new_style.isdisjoint(names_on_disk(checkpoint))
    save_checkpoint(load_model(tmp_path / "new_style"), processor, tmp_path / "new_style_again")
    assert names_on_disk(tmp_path / "new_style_again") == new_style


def test_dtype_is_kept_or_changed_on_request(checkpoint: Path, tmp_path: Path, processor: Any) -> None:
    save_checkpoint(load_model(checkpoint, dtype=torch.bfloat16), processor, tmp_path / "half")
    assert load_model(tmp_path / "half").dtype == torch.bfloat16
    assert load_model(tmp_path / "half", dtype="float32").dtype == torch.float32


LM = "language_model.model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(LM), r"1 missing, e\.g\. 'model\.language_model\.layers\.1\.mlp\.up_proj\.weight'"),
        (lambda tensors: tensors.update({"stray.weight": torch.zeros(2)}), r"1 unexpected, e\.g\. 'stray\.weight'"),
        (lambda tensors: tensors.update({LM: torch.zeros(5, 7)}), r"1 mismatched, e\.g\. 'model\.language_model\.layers\.1"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str) -> None:
    change_weights(checkpoint, change)
    with pytest.raises(InputError, match=message):
        load_model(checkpoint)


def test_a_tied_model_with_two_different_embeddings_is_refused(tmp_path: Path, tiny: dict[str, Callable[[], Any]]) -> None:
    model = tiny["llama"]()
    model.config.tie_word_embeddings = True
    model.save_pretrained(tmp_path)
    if "lm_head.weight" not in names_on_disk(tmp_path):
        change_weights(tmp_path, lambda tensors: tensors.update({"lm_head.weight": model.lm_head.weight.detach().clone()}))
    with pytest.raises(InputError, match="although the config ties them"):
        load_model(tmp_path)


def test_code_that_comes_with_a_checkpoint_is_never_run(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "code.Model"}}))
    (checkpoint / "code.py").write_text("raise SystemExit('was run')")
    for load in (load_model, load_processor):
        with pytest.raises(InputError, match="auto_map"):
            load(checkpoint)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(tmp_path / "absent")
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        load_model(checkpoint)
    (checkpoint / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(InputError, match="fits no model that transformers has"):
        load_model(checkpoint)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:1000])])
def test_absent_or_cut_weights_are_refused(checkpoint: Path, damage: Callable[[Path], None]) -> None:
    damage(checkpoint / WEIGHTS)
    with pytest.raises(InputError, match="weights cannot be read"):
        load_model(checkpoint)


def test_other_kinds_of_model_are_refused(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
    model = BertModel(BertConfig(**small))
    model.config.model_type = "vit_mae"
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "vit_mae"}))
    with pytest.raises(InputError, match="neither an image-text-to-text model nor a causal language model"):
        load_model(tmp_path)


def test_text_only_models_load_as_causal_language_models(tmp_path: Path, tiny: dict[str, Callable[[], Any]]) -> None:
    tiny["llama"]().save_pretrained(tmp_path)
    tokens = torch.tensor([[2, 5, 7]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(tokens).logits
        assert torch.equal(load_model(tmp_path)(tokens).logits, logits)


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3"])
def test_other_families_load(tmp_path: Path, tiny: dict[str, Callable[[], Any]], family: str) -> None:
    model = tiny[family]()
    model.save_pretrained(tmp_path)
    loaded = dict(load_model(tmp_path).named_parameters())
    assert all(torch.equal(weight, loaded[name]) for name, weight in model.named_parameters())


def test_a_missing_processor_is_refused(tmp_path: Path, tiny: dict[str, Callable[[], Any]]) -> None:
    tiny["llama"]().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no processor and no tokenizer"):
        load_processor(tmp_path)


def test_a_processor_that_takes_video_asks_for_torchvision(checkpoint: Path) -> None:
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        pytest.skip("torchvision is installed, so such a processor loads")
    settings = json.loads((checkpoint / "processor_config.json").read_text())
    settings["processor_class"] = "LlavaOnevisionProcessor"
    settings["video_processor"] = {"video_processor_type": "LlavaOnevisionVideoProcessor"}
    (checkpoint / "processor_config.json").write_text(json.dumps(settings))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "llava_onevision"}))
    with pytest.raises(InputError, match=r"(?i)torchvision"):
        load_processor(checkpoint)
