"""What a stage starts from: an earlier directory in another shape, or a BEiT checkpoint."""

from pathlib import Path

import pytest
import torch
from modality_samples import everything, inputs, lively, stir
from transformers import BeitConfig, BeitForMaskedImageModeling, BeitModel

from foundation.errors import ConfigError, InputError
from models.modality_experts import ModalityExpertsModel, load, pair_processor, save
from models.modality_experts.positions import image_rows, table_rows
from models.modality_experts.starts import from_beit, new, reshaped
from models.modality_experts.tiny import digits_config, word_tokenizer

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40, "patch_size": 8}


def saved(model: ModalityExpertsModel, directory: Path) -> Path:
    save(model, pair_processor(word_tokenizer(["a b"]), model.config), directory)
    return directory


def beit(directory: Path, kind: type = BeitModel, image: int = 32, **changes: object) -> BeitModel:
    settings = {"image_size": image, "layer_norm_eps": 1e-6, "use_mean_pooling": False, "use_mask_token": True, "vocab_size": 20}
    model = stir(kind(BeitConfig(**{**SIZES, **settings, **changes})), "", scale=0.2).eval()
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("sharing", ["all", "attention", "ffn", "layer_norm"])
def test_shared_parts_become_experts_by_copying(tmp_path: Path, sharing: str) -> None:
    model = lively()
    made = reshaped(saved(model, tmp_path / "seed"), sharing=sharing)
    assert made.config.sharing == sharing
    expected = everything(model)
    for name, state in everything(made).items():
        assert (state - expected[name]).abs().max() < 2e-5, name  # the same sums in another grouping


def test_experts_become_shared_by_a_merge_alone(tmp_path: Path) -> None:
    directory = saved(lively(sharing="all"), tmp_path / "specific")
    for sharing in ("shared", "attention", "layer_norm"):
        with pytest.raises(ConfigError, match="merge the experts first"):
            reshaped(directory, sharing=sharing)


def test_nothing_asked_changes_nothing(tmp_path: Path) -> None:
    model = lively(sharing="ffn")
    made = reshaped(saved(model, tmp_path / "model"), seed=9)
    assert made.config.to_diff_dict() == load(tmp_path / "model").config.to_diff_dict()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in made.state_dict().items())


def test_another_image_size_interpolates_the_table_alone(tmp_path: Path) -> None:
    model = lively()
    made = reshaped(saved(model, tmp_path / "model"), image_size=48)
    old, held = model.state_dict(), made.state_dict()
    table = held.pop("relative_positions.table")
    assert len(table) == table_rows(6)
    assert torch.equal(table[image_rows(6) :], old["relative_positions.table"][image_rows(4) :])
    assert all(torch.equal(tensor, old[name]) for name, tensor in held.items())
    assert made.image(torch.zeros(1, 3, 48, 48)).shape == (1, 37, 24)


def test_a_shorter_text_keeps_its_states(tmp_path: Path) -> None:
    model, given = lively(), inputs()
    made = reshaped(saved(model, tmp_path / "model"), max_text_length=6)
    short = given["input_ids"][:, :6]
    assert torch.equal(made.text(short), model.text(short))
    with pytest.raises(InputError, match="max_text_length 6"):
        made.text(given["input_ids"])


def test_heads_are_kept_dropped_and_drawn(tmp_path: Path) -> None:
    model = lively(heads=["mlm", "itc"], token_types=2)
    directory = saved(model, tmp_path / "model")
    made = reshaped(directory, heads=["itc", "nlvr2", "vqa"], answers=["a", "b", "c", "d"], seed=5)
    assert list(made.heads) == ["itc", "vqa", "nlvr2"]
    held, old = made.state_dict(), model.state_dict()
    assert torch.equal(held["heads.itc.text_projection.weight"], old["heads.itc.text_projection.weight"])
    assert held["heads.vqa.out.weight"].shape == (4, 48)
    fresh = new(digits_config(**{**SIZES, "vocab_size": 50, "heads": ["vqa"], "answers": list("abcd")}), 5).state_dict()
    assert torch.equal(held["heads.vqa.dense.weight"], fresh["heads.vqa.dense.weight"])
    types = held["embeddings.token_type.weight"]
    assert torch.equal(types[:2], old["embeddings.token_type.weight"])
    assert torch.equal(types[2], types[1])


def test_a_head_with_other_answers_is_drawn_anew(tmp_path: Path) -> None:
    model = lively()
    directory = saved(model, tmp_path / "model")
    name = "heads.vqa.dense.weight"
    assert torch.equal(reshaped(directory, answers=["no", "yes", "two"]).state_dict()[name], model.state_dict()[name])
    assert not torch.equal(reshaped(directory, answers=["no", "yes", "one"]).state_dict()[name], model.state_dict()[name])


def test_another_fusion_layer(tmp_path: Path) -> None:
    model = lively(sharing="all")
    directory = saved(model, tmp_path / "model")
    held, old = reshaped(directory, fusion_layer=1).state_dict(), model.state_dict()
    assert torch.equal(held["encoder.layers.1.mlp.vl.fc1.weight"], old["encoder.layers.1.mlp.v.fc1.weight"])
    assert torch.equal(held["encoder.layers.2.mlp.vl.fc1.weight"], old["encoder.layers.2.mlp.vl.fc1.weight"])
    assert "encoder.layers.2.mlp.vl.fc1.weight" not in reshaped(directory, fusion_layer=3).state_dict()


@pytest.mark.parametrize("shared_bias", [True, False])
@pytest.mark.parametrize("sharing", ["shared", "all"])
def test_images_are_seen_as_beit_sees_them(tmp_path: Path, shared_bias: bool, sharing: str) -> None:
    biases = {"use_shared_relative_position_bias": shared_bias, "use_relative_position_bias": not shared_bias}
    source = beit(tmp_path / "beit", **biases)
    made = from_beit(tmp_path / "beit", digits_config(**SIZES, sharing=sharing), seed=1)
    pixels = inputs()["pixel_values"]
    with torch.no_grad():
        expected = source(pixels).last_hidden_state
        for through in ("v", "vl"):
            assert (made.image(pixels, through=through) - expected).abs().max() < 2e-5  # float32, sums in another order


def test_beit_that_was_pretrained_with_masks_brings_its_mask(tmp_path: Path) -> None:
    source = beit(tmp_path / "beit", BeitForMaskedImageModeling, use_relative_position_bias=True, use_mean_pooling=True)
    made = from_beit(tmp_path / "beit", digits_config(**SIZES, heads=["mim"]))
    pixels, masked = inputs()["pixel_values"], torch.arange(32).view(2, 16) % 3 == 0
    with torch.no_grad():
        expected = source.layernorm(source.beit(pixels, bool_masked_pos=masked).last_hidden_state)
        assert (made.image(pixels, masked) - expected).abs().max() < 2e-5


def test_beit_with_a_pooled_norm(tmp_path: Path) -> None:
    source = beit(tmp_path / "beit", use_mean_pooling=True, use_shared_relative_position_bias=True)
    made = from_beit(tmp_path / "beit", digits_config(**SIZES))
    pixels = inputs()["pixel_values"]
    with torch.no_grad():
        expected = source.pooler.layernorm(source(pixels).last_hidden_state)
        assert (made.image(pixels) - expected).abs().max() < 2e-5


def test_vision_weights_go_to_the_other_experts_by_option(tmp_path: Path) -> None:
    beit(tmp_path / "beit", use_relative_position_bias=True)
    config = digits_config(**SIZES, sharing="all")
    copied, drawn = (from_beit(tmp_path / "beit", config, copy=copy, seed=1).state_dict() for copy in (True, False))
    fresh = new(config, 1).state_dict()
    vision, others = "encoder.layers.2.attention.v.qkv.weight", [f"encoder.layers.2.attention.{name}.qkv.weight" for name in ("l", "vl")]
    assert torch.equal(copied[vision], drawn[vision])
    for name in others:
        assert torch.equal(copied[name], copied[vision])
        assert torch.equal(drawn[name], fresh[name])
    assert torch.equal(copied["embeddings.word.weight"], fresh["embeddings.word.weight"])


def test_beit_of_another_image_size(tmp_path: Path) -> None:
    source = beit(tmp_path / "beit", image=48, use_relative_position_bias=True)
    table = from_beit(tmp_path / "beit", digits_config(**SIZES)).state_dict()["relative_positions.table"]
    assert len(table) == table_rows(4)
    held = torch.cat([layer.relative_position_bias.relative_position_bias_table for layer in source.layers], 1)
    assert torch.equal(table[image_rows(4) : image_rows(4) + 3], held[-3:])
    assert not table[image_rows(4) + 3 :].any()


def test_beit_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    beit(tmp_path / "beit", use_absolute_position_embeddings=True)
    with pytest.raises(InputError, match=r"hidden_size is 24, the config says 48; .*absolute position"):
        from_beit(tmp_path / "beit", digits_config(**{**SIZES, "hidden_size": 48}))
    beit(tmp_path / "masked", BeitForMaskedImageModeling)
    with pytest.raises(InputError, match="two final norms"):
        from_beit(tmp_path / "masked", digits_config(**SIZES))
    with pytest.raises(InputError, match="not BEiT"):
        from_beit(saved(lively(), tmp_path / "ours"), digits_config())
    with pytest.raises(InputError, match=r"no config\.json"):
        from_beit(tmp_path, digits_config())
