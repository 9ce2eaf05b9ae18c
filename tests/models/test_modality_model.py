"""The modality-expert transformer: against its formula written naively, and which weights and tokens reach which state."""

import math

import pytest
import torch
from modality_samples import PADDING, everything, inputs, lively, stir
from torch import Tensor, nn

from foundation.errors import ConfigError, InputError
from models.modality_experts import ModalityExpertsModel
from models.modality_experts.config import Sharing
from models.modality_experts.positions import pair_index
from models.modality_experts.starts import new
from models.modality_experts.tiny import digits_config

ROUNDING = 2e-5  # float32 sums of some hundred terms of order one, in another order


def naive_pair(model: ModalityExpertsModel, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
    """The states of one pair in float64, head by head, of a `shared` model with joint streams."""
    held = {name: tensor.double() for name, tensor in model.state_dict().items()}
    config, size = model.config, model.config.hidden_size
    types, words = held["embeddings.token_type.weight"], held["embeddings.word.weight"]
    tokens = [layer_norm(words[word], held, "embeddings.text_norm") + types[0] for word in ids.tolist()]
    tokens.append(held["embeddings.cls"][0, 0] + types[1])
    p = config.patch_size
    for row in range(config.window):
        for column in range(config.window):
            patch = pixels[:, row * p : (row + 1) * p, column * p : (column + 1) * p].double().flatten()
            made = held["embeddings.patch.weight"].flatten(1) @ patch + held["embeddings.patch.bias"]
            tokens.append(made + types[1])
    x, real = torch.stack(tokens), torch.cat((mask, torch.ones(config.patches + 1))).bool()
    index = pair_index(len(ids), config.window)
    wide = size // config.num_attention_heads
    for number in range(config.num_hidden_layers):
        at = f"encoder.layers.{number}"
        normed = layer_norm(x, held, f"{at}.norm1")
        query, key, value = (normed @ w.T for w in held[f"{at}.attention.qkv.weight"].split(size))
        query, value = query + held[f"{at}.attention.q_bias"], value + held[f"{at}.attention.v_bias"]
        seen = []
        for head in range(config.num_attention_heads):
            cut = slice(head * wide, (head + 1) * wide)
            bias = held["relative_positions.table"][:, number * config.num_attention_heads + head][index]
            logits = query[:, cut] @ key[:, cut].T / math.sqrt(wide) + bias
            seen.append(logits[:, real].softmax(-1) @ value[real][:, cut])
        x = x + held[f"{at}.gamma1"] * linear(torch.cat(seen, -1), held, f"{at}.attention.proj")
        inner = linear(layer_norm(x, held, f"{at}.norm2"), held, f"{at}.mlp.fc1")
        x = x + held[f"{at}.gamma2"] * linear(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))), held, f"{at}.mlp.fc2")
    return layer_norm(x, held, "norm")


def layer_norm(x: Tensor, held: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * held[f"{name}.weight"] + held[f"{name}.bias"]


def linear(x: Tensor, held: dict[str, Tensor], name: str) -> Tensor:
    return x @ held[f"{name}.weight"].T + held[f"{name}.bias"]


def test_a_pair_is_the_formula() -> None:
    model, given = lively(streams="joint"), inputs()
    with torch.no_grad():
        states = model.pair(**given)
    for number in range(2):
        expected = naive_pair(model, given["input_ids"][number], given["attention_mask"][number], given["pixel_values"][number])
        assert (states[number] - expected).abs().max() < ROUNDING


@pytest.mark.parametrize("sharing", list(Sharing)[1:])
@pytest.mark.parametrize("streams", ["separate", "joint"])
def test_equal_experts_are_a_shared_model(sharing: str, streams: str) -> None:
    shared = lively(streams=streams)
    apart = new(digits_config(**{**own_sizes(shared), "sharing": sharing}), seed=3)
    given = shared.state_dict()
    with torch.no_grad():
        for name, tensor in apart.state_dict().items():
            tensor.copy_(given[name if name in given else name.replace(".v.", ".").replace(".l.", ".").replace(".vl.", ".")])
    expected = everything(shared)
    for name, made in everything(apart).items():
        assert (made - expected[name]).abs().max() < ROUNDING, name


def own_sizes(model: ModalityExpertsModel) -> dict[str, object]:
    return {name: value for name, value in model.config.to_dict().items() if name not in ("architectures", "dtype", "model_type")}


@pytest.mark.parametrize(
    ("expert", "reached"),
    [
        ("v", {"image v", "image vl", "pair", "itc image", "itc_vl image", "itm logits", "vqa logits", "mlm logits"}),
        ("l", {"text l", "text vl", "pair", "itm logits", "vqa logits", "mlm logits"}),
        ("vl", {"text vl", "image vl", "pair", "itm logits", "vqa logits", "mlm logits"}),
    ],
)
@pytest.mark.parametrize("part", ["attention", "mlp", "norm1", "norm2"])
def test_an_expert_reaches_its_own_paths_alone(expert: str, reached: set[str], part: str) -> None:
    model = lively(sharing="all")
    before = everything(model)
    after = everything(stir(model, f"{part}.{expert}."))
    assert {name for name in before if not torch.equal(before[name], after[name])} == reached


def test_experts_are_where_the_sharing_says() -> None:
    for sharing, parts in {
        "shared": set(),
        "all": {"attention", "mlp", "norm1", "norm2"},
        "attention": {"attention", "norm1"},
        "ffn": {"mlp", "norm2"},
        "layer_norm": {"norm1", "norm2"},
    }.items():
        names = list(new(digits_config(sharing=sharing), 0).state_dict())
        for number, experts in ((0, {"v", "l"}), (3, {"v", "l", "vl"})):
            parted = [name.split(".") for name in names if name.startswith(f"encoder.layers.{number}.")]
            own = [name[3:5] for name in parted if set(name) & {"v", "l", "vl"}]
            assert {part for part, _ in own} == parts
            assert {expert for _, expert in own} == (experts if parts else set())


@pytest.mark.parametrize(("streams", "fusion", "sees"), [("separate", 4, False), ("separate", 3, True), ("joint", 4, True)])
def test_streams_see_one_another_from_the_fusion_layer_or_when_joint(streams: str, fusion: int, sees: bool) -> None:
    model, given = lively(streams=streams, fusion_layer=fusion, sharing="all"), inputs()
    with torch.no_grad():
        one = model.pair(**given)
        other_image = model.pair(**{**given, "pixel_values": given["pixel_values"].flip(0)})
        other_text = model.pair(**{**given, "input_ids": given["input_ids"].roll(1, dims=1)})
    assert torch.equal(one[:, :9], other_image[:, :9]) is not sees
    assert torch.equal(one[:, 9:], other_text[:, 9:]) is not sees


def test_a_pair_is_its_two_halves() -> None:
    model, given = lively(sharing="all"), inputs()
    text, mask = given["input_ids"], given["attention_mask"]
    with torch.no_grad():
        made = model.fuse(model.text_below(text, mask), mask, model.image_below(given["pixel_values"]))
        assert torch.equal(made, model.pair(**given))
        assert torch.equal(model.text_above(model.text_below(text, mask), mask, "vl"), model.text(text, mask, "vl"))


@pytest.mark.parametrize("streams", ["separate", "joint"])
def test_padding_changes_nothing_real(streams: str) -> None:
    model, given = lively(streams=streams), inputs()
    ids, mask, pixels = given["input_ids"][:1], given["attention_mask"][:1], given["pixel_values"][:1]
    short, other = ids[:, :-PADDING], ids.clone()
    other[:, -PADDING:] = 7
    with torch.no_grad():
        bare = model.text(short, torch.ones_like(short))
        assert (model.text(ids, mask)[:, :-PADDING] - bare).abs().max() < ROUNDING
        assert torch.equal(model.text(other, mask)[:, 0], model.text(ids, mask)[:, 0])
        pair, bare_pair = model.pair(ids, mask, pixels), model.pair(short, None, pixels)
    assert (pair[:, 0] - bare_pair[:, 0]).abs().max() < ROUNDING
    assert (pair[:, 9:] - bare_pair[:, 9 - PADDING :]).abs().max() < ROUNDING


def test_masked_patches_are_hidden() -> None:
    model, pixels = lively(), inputs()["pixel_values"]
    masked = torch.zeros(2, model.config.patches, dtype=torch.bool)
    masked[:, 0] = True
    changed = pixels.clone()
    changed[:, :, :8, :8] += 5
    with torch.no_grad():
        assert torch.equal(model.image(pixels, masked), model.image(changed, masked))
        assert not torch.equal(model.image(pixels, masked), model.image(pixels))
    with pytest.raises(ValueError, match="no head 'mim'"):
        lively(heads=["itc"]).image(pixels, masked)


def test_forward_takes_what_is_given() -> None:
    model, given = lively(), inputs()
    with torch.no_grad():
        assert torch.equal(model(**given).last_hidden_state, model.pair(**given))
        assert torch.equal(model(pixel_values=given["pixel_values"]).pooler_output, model.pool(model.image(given["pixel_values"])))
        assert torch.equal(model(input_ids=given["input_ids"]).last_hidden_state, model.text(given["input_ids"]))
    with pytest.raises(ValueError, match="give input_ids"):
        model()


def test_the_second_image_has_its_own_type() -> None:
    model, given = lively(), inputs()
    with torch.no_grad():
        assert not torch.equal(model.pair(**given, image_type=2), model.pair(**given))


def test_linear_layers_show_their_inputs_to_hooks() -> None:
    model, seen = lively(sharing="all"), {}
    for name, module in model.named_modules():
        if name.startswith("encoder.") and isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, arguments, name=name: seen.update({name: arguments[0].shape}))
    model.pair(**inputs())
    lower = "encoder.layers.0"
    assert seen[f"{lower}.attention.v.qkv"] == (2, 17, 24)
    assert seen[f"{lower}.mlp.l.fc2"] == (2, 9, 40)
    assert seen["encoder.layers.3.attention.vl.proj"] == (2, 26, 24)
    assert "encoder.layers.3.attention.v.qkv" not in seen


def test_what_does_not_fit_is_refused() -> None:
    model = lively(heads=["itc"])
    with pytest.raises(InputError, match=r"\(3, 16, 16\) for a model that takes \(3, 32, 32\)"):
        model.image(torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match="10 tokens for a model of max_text_length 9"):
        model.text(torch.zeros(1, 10, dtype=torch.long))
    with pytest.raises(ValueError, match="through is 'v'"):
        model.text(inputs()["input_ids"], through="v")
    with pytest.raises(ConfigError, match="nothing to choose among"):
        new(digits_config(heads=["vqa"]), 0)
    for wrong, words in (
        ({"sharing": "alll"}, "did you mean 'all'"),
        ({"heads": ["itn"]}, "did you mean 'it"),
        ({"image_size": 30}, "patches of 8"),
    ):
        with pytest.raises(ConfigError, match=words):
            digits_config(**wrong)
