"""The modality-expert transformer as something that learns: its first weights, its heads, gradients, drop path, half precision."""

import math

import pytest
import torch
from modality_samples import inputs, lively

from models.modality_experts.config import HEADS
from models.modality_experts.heads import patch_pixels
from models.modality_experts.layers import Layer
from models.modality_experts.starts import new
from models.modality_experts.tiny import digits_config


def test_drop_path_rises_over_depth_and_is_drawn_from_torch() -> None:
    model = lively(drop_path=0.3).train()
    assert [layer.drop for layer in model.encoder.layers] == pytest.approx([0, 0.1, 0.2, 0.3])
    made = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        made.append(model.pair(**inputs()))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert torch.equal(model.eval().pair(**inputs()), model.pair(**inputs()))


def test_a_dropped_update_is_left_out_whole_and_a_kept_one_is_scaled() -> None:
    layer = Layer(digits_config(drop_path=0.5), 3).train()
    hidden, update, gamma = torch.zeros(1000, 2, 96), torch.ones(1000, 2, 96), torch.full((96,), 0.25)
    added = layer._add(hidden, update, gamma)
    assert set(added.unique().tolist()) == {0.0, 0.5}
    assert torch.equal(added.amax((1, 2)), added.amin((1, 2)))
    assert abs((added[:, 0, 0] > 0).float().mean() - 0.5) < 0.08  # five standard deviations of a mean of 1000


def test_the_heads_answer_in_their_shapes() -> None:
    model, given = lively(), inputs()
    assert list(model.heads) == list(HEADS)
    text = model.text(given["input_ids"], given["attention_mask"])
    image, pair = model.image(given["pixel_values"]), model.pair(**given)
    pooled = model.pool(pair)
    shapes = {
        "mlm": (model.heads["mlm"](text), (2, 9, 50)),
        "itm": (model.heads["itm"](pooled), (2, 2)),
        "mim": (model.heads["mim"](image[:, 1:]), (2, 16, 192)),
        "vqa": (model.heads["vqa"](pooled), (2, 3)),
        "nlvr2": (model.heads["nlvr2"](torch.cat((pooled, pooled), -1)), (2, 2)),
        "classification": (model.heads["classification"](image), (2, 2)),
    }
    for name, (made, shape) in shapes.items():
        assert tuple(made.shape) == shape, name
    for name in ("itc", "itc_vl"):
        for made in (model.heads[name].text(text), model.heads[name].image(image)):
            assert made.norm(dim=-1).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert new(digits_config(heads=["itc"]), 0).heads["itc"].scale().item() == pytest.approx(1 / 0.07)


def test_every_weight_learns_on_some_path() -> None:
    model, given = lively(sharing="all"), inputs()
    masked = torch.zeros(2, 16, dtype=torch.bool)
    masked[:, ::2] = True
    words = {name: given[name] for name in ("input_ids", "attention_mask")}
    text, text_vl = model.text(**words), model.text(**words, through="vl")
    image, image_vl = model.image(given["pixel_values"], masked), model.image(given["pixel_values"], through="vl")
    pooled = [model.pool(model.pair(**given, image_type=number)) for number in (1, 2)]
    heads = model.heads
    learned = [heads["itc"].text(text) @ heads["itc"].image(image).T * heads["itc"].scale(), heads["mlm"](text), heads["mim"](image[:, 1:])]
    learned += [heads["itc_vl"].text(text_vl) @ heads["itc_vl"].image(image_vl).T * heads["itc_vl"].scale()]
    learned += [heads["vqa"](pooled[0]), heads["itm"](pooled[0]), heads["nlvr2"](torch.cat(pooled, -1)), heads["classification"](image)]
    sum(made.square().sum() for made in learned).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_gradients_are_the_same_with_checkpointing() -> None:
    grads = []
    for checkpointing in (False, True):
        model = lively(sharing="all").train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.pair(**inputs()).square().sum().backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_half_precision_stays_near() -> None:
    model = lively()
    exact = model.pair(**inputs())
    with torch.autocast("cpu", torch.bfloat16):
        near = model.pair(**inputs())
    near_too = model.to(torch.bfloat16).pair(**inputs())
    spread = exact.std()
    assert (near.float() - exact).abs().mean() < 0.05 * spread  # bfloat16 keeps 8 bits; four layers
    assert (near_too.float() - exact).abs().mean() < 0.05 * spread


def test_weights_start_as_beit_starts_them() -> None:
    model = new(digits_config(hidden_size=192, num_attention_heads=4, heads=["itc"]), 0)
    for number, layer in enumerate(model.encoder.layers):
        assert layer.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
        for weight in (layer.attention.proj.weight, layer.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (number + 1)), rel=0.03)
        assert layer.gamma1.unique().tolist() == pytest.approx([0.1])
    assert not model.relative_positions.table.any()


def test_new_models_follow_the_seed_and_leave_the_random_state() -> None:
    torch.manual_seed(4)
    state = torch.random.get_rng_state()
    one, same, other = (new(digits_config(heads=["itc"]), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["heads.itc.text_projection.weight"], other["heads.itc.text_projection.weight"])


def test_heads_start_equal_in_models_that_differ_elsewhere() -> None:
    one = new(digits_config(heads=["itc", "mlm"]), 1).state_dict()
    other = new(digits_config(heads=["itc", "itm"], sharing="all", fusion_layer=1), 1).state_dict()
    assert torch.equal(one["heads.itc.image_projection.weight"], other["heads.itc.image_projection.weight"])


def test_patches_as_pixels() -> None:
    pixels = torch.randn(2, 3, 32, 32)
    made = patch_pixels(pixels, 8)
    assert made.shape == (2, 16, 192)
    assert torch.equal(made[1, 6].view(8, 8, 3), pixels[1, :, 8:16, 16:24].permute(1, 2, 0))


def test_a_model_that_was_asked_can_learn() -> None:
    """What a model keeps from being asked in inference mode (where tokens stand) is of use to gradients too."""
    model, given = lively(), inputs()
    with torch.inference_mode():
        model.pair(**given)
    model.pair(**given).sum().backward()
    assert model.relative_positions.table.grad is not None
