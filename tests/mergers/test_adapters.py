"""LoRA adapters on their bases: by the formula, and what is refused."""

import pytest
import torch
from entries import as_read, value_of
from safetensors.torch import save_file
from small_adapters import BASE, DOWN, HIDDEN, NORM, VOCABULARY, WIDE, Q, Room, pair, random

from foundation.errors import InputError
from mergers import Source, WiseFT, execute, plan_merge
from mergers.checkpoints.adapters import open_adapter
from mergers.checkpoints.checkpoint import read_checkpoint
from mergers.checkpoints.resolve import open_source


@pytest.fixture
def room(bench):
    return Room(bench)


def assert_becomes(room, found, expected):
    """Every tensor of `found` is that of the base or, in float64, the expected; name, shape and dtype are the base's throughout."""
    base = read_checkpoint(room.path)
    assert found.tensors.keys() == base.tensors.keys()
    for name, entry in found.tensors.items():
        assert (entry.name, entry.shape, entry.dtype) == (name, base.tensors[name].shape, base.tensors[name].dtype)
        if name not in expected:
            assert entry == base.tensors[name], name
            continue
        torch.testing.assert_close(value_of(entry), expected[name], rtol=0, atol=0)
        # the merge reads in float32: a sum of two products of rank 2 or 3, each rounded
        torch.testing.assert_close(as_read(entry).double(), expected[name], rtol=1e-6, atol=1e-6)


def product(tensors, module, scale):
    return scale * (tensors[f"{module}.lora_B.weight"].double() @ tensors[f"{module}.lora_A.weight"].double())


def test_a_matrix_gets_scale_times_b_a(room):
    tensors = pair(Q, HIDDEN, HIDDEN) | pair(DOWN, HIDDEN, WIDE, seed=60)
    found = room.open(tensors)
    assert (found.path, found.config["model_type"], found.files) == (room.path, "llama", ("model.safetensors",))
    expected = {f"{module}.weight": room.base[f"{module}.weight"].double() + product(tensors, module, 3.0) for module in (Q, DOWN)}
    assert_becomes(room, found, expected)


def test_ranks_and_alphas_go_by_pattern_and_by_the_root_of_the_rank(room):
    tensors = pair(Q, HIDDEN, HIDDEN, rank=3) | pair(DOWN, HIDDEN, WIDE, rank=4, seed=60)
    found = room.open(tensors, rank_pattern={r"layers\.\d+\.mlp.*": 4, "q_proj": 3, "proj": 7}, alpha_pattern={f"^{Q}": 5}, use_rslora=True)
    expected = {
        f"{Q}.weight": room.base[f"{Q}.weight"].double() + product(tensors, Q, 5 / 3**0.5),
        f"{DOWN}.weight": room.base[f"{DOWN}.weight"].double() + product(tensors, DOWN, 6 / 2),
    }
    assert_becomes(room, found, expected)


def test_weights_stored_as_in_by_out_are_told_by_their_shape_or_by_the_flag(room):
    tensors = pair(DOWN, WIDE, HIDDEN)  # Conv1D of GPT-2 keeps [in, out]
    for flag in (False, True):
        expected = {f"{DOWN}.weight": room.base[f"{DOWN}.weight"].double() + product(tensors, DOWN, 3.0).T}
        assert_becomes(room, room.open(tensors, fan_in_fan_out=flag), expected)
    square = pair(Q, HIDDEN, HIDDEN)
    expected = {f"{Q}.weight": room.base[f"{Q}.weight"].double() + product(square, Q, 3.0).T}
    assert_becomes(room, room.open(square, fan_in_fan_out=True), expected)
    with pytest.raises(
        InputError, match=rf"fan_in_fan_out is False, but '{DOWN}.weight' is stored the other way round, so how '{Q}.weight'"
    ):
        room.open(tensors | square)


def test_embeddings_and_heads_take_their_own_form_and_their_saved_base(room):
    new = random((VOCABULARY, HIDDEN), 70).bfloat16()
    columns, rows = random((2, VOCABULARY), 71), random((HIDDEN, 2), 72)
    head = pair("lm_head", VOCABULARY, HIDDEN, seed=73)
    tensors = {
        "model.embed_tokens.base_layer.weight": new,
        "model.embed_tokens.lora_embedding_A": columns,
        "model.embed_tokens.lora_embedding_B": rows,
    }
    expected = {
        "model.embed_tokens.weight": new.double() + 3.0 * (rows.double() @ columns.double()).T,
        "lm_head.weight": room.base["lm_head.weight"].double() + product(head, "lm_head", 3.0),
    }
    assert_becomes(room, room.open(tensors | head), expected)


def test_whole_tensors_take_the_base_s_place_in_the_base_s_dtype(room):
    tensors = {f"{NORM}.weight": random((HIDDEN,), 80), "lm_head.weight": random((VOCABULARY, HIDDEN), 81)}
    tensors |= {f"{Q}.base_layer.bias": random((HIDDEN,), 82).bfloat16()} | pair(Q, HIDDEN, HIDDEN)
    expected = {name: tensors[name].double() for name in (f"{NORM}.weight", "lm_head.weight")}
    expected |= {f"{Q}.bias": tensors[f"{Q}.base_layer.bias"].double()}
    expected |= {f"{Q}.weight": room.base[f"{Q}.weight"].double() + product(tensors, Q, 3.0)}
    assert_becomes(room, room.open(tensors, modules_to_save=["lm_head", "input_layernorm"], bias="lora_only"), expected)


@pytest.mark.parametrize("said", [[7, 2], {"embed_tokens": [7, 2]}])
def test_trained_tokens_take_their_rows(room, said):
    rows = random((2, HIDDEN), 90)
    expected = room.base["model.embed_tokens.weight"].double()
    expected[7], expected[2] = rows.double()
    found = room.open({"model.embed_tokens.token_adapter.trainable_tokens_delta": rows}, trainable_token_indices=said)
    assert_becomes(room, found, {"model.embed_tokens.weight": expected})
    for wrong in ([7], [7, 7], [7, VOCABULARY], {"lm_head": [7, 2]}, "all"):
        with pytest.raises(InputError, match=r"does not fit the \(20, 8\) of the base and trainable_token_indices"):
            room.open({"model.embed_tokens.token_adapter.trainable_tokens_delta": rows}, trainable_token_indices=wrong)


def test_names_in_memory_find_older_names_on_disk(bench):
    old = {"language_model.model.layers.0.q.weight": torch.ones(4, 4), "vision_tower.vision_model.fc.weight": torch.ones(4, 4)}
    base = read_checkpoint(bench.save("base", old, {"model_type": "llava"}))
    room = Room(bench)
    tensors = pair("model.language_model.layers.0.q", 4, 4) | pair("model.vision_tower.fc", 4, 4)
    found = open_adapter(room.adapter(tensors), base)
    assert all(len(entry.added) == 1 for entry in found.tensors.values())
    tensors = pair("language_model.model.layers.0.q", 4, 4)  # trained under an older release
    assert len(open_adapter(room.adapter(tensors), base).tensors["language_model.model.layers.0.q.weight"].added) == 1


# --- what is refused ---


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA adapters are merged on the fly"),
        ({"use_dora": True}, "use_dora is True; that is not plain LoRA"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "layer_replication is"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is"),
        ({"megatron_config": {"x": 1}}, "megatron_config is"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters is"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"a_variant_of_tomorrow": 1}, "a_variant_of_tomorrow is 1; that is not plain LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changes the base's own weights"),
        ({"rank_pattern": {"(": 2}}, "rank_pattern is .*, not a table of regular expressions"),
        ({"rank_pattern": [2]}, "rank_pattern is .*, not a table of regular expressions"),
        ({"r": 0}, "has rank 0 and alpha 6"),
        ({"lora_alpha": "8"}, "has rank 2 and alpha '8'"),
        ({"r": 3}, r"do not fit a weight of shape \(8, 8\) at rank 3"),
    ],
)
def test_configs_that_are_not_plain_lora_are_refused(room, config, message):
    with pytest.raises(InputError, match=message) as caught:
        room.open(pair(Q, HIDDEN, HIDDEN), **config)
    assert "adapter" in str(caught.value)


def renamed(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (pair("model.layers.9.q", 8, 8), "belongs on 'model.layers.9.q.weight', which the base .* does not hold; name the base"),
        ({"score.weight": torch.ones(2, 8)}, "belongs on 'score.weight', which the base .* does not hold"),
        ({f"{Q}.lora_A.weight": torch.ones(2, 8)}, "has no counterpart, LoRA needs both A and B"),
        (pair(Q, 8, 8) | {f"{Q}.lora_magnitude_vector": torch.ones(8)}, r"lora_magnitude_vector' \(8,\) has no place in plain LoRA"),
        (pair(Q, 8, 8) | {f"{Q}.lora_B.bias": torch.ones(8)}, "lora_B.bias.* has no place in plain LoRA"),
        (pair(Q, 8, 8) | renamed(pair(Q, 8, 8), "lora_", "base_layer.lora_"), "base_layer.lora_A.* has no place in plain LoRA|no place in"),
        (pair(DOWN, 8, 8), r"do not fit a weight of shape \(8, 12\) at rank 2"),
        ({"lm_head.weight": torch.ones(VOCABULARY + 2, HIDDEN)}, r"\(22, 8\) takes the place of 'lm_head.weight', which is \(20, 8\)"),
        ({f"{NORM}.weight": torch.ones(8, dtype=torch.int32)}, "has dtype I32; an adapter's are F64"),
        (
            {"model.conv.lora_A.weight": torch.ones(2, 3, 2, 2), "model.conv.lora_B.weight": torch.ones(4, 2, 1, 1)},
            "only matrices are merged on the fly, not convolutions",
        ),
        ({}, "holds no tensors"),
    ],
)
def test_tensors_without_a_place_are_refused(room, tensors, message):
    with pytest.raises(InputError, match=message):
        room.open(tensors)


def test_foreign_names_and_a_tied_head_are_told(room):
    path = room.adapter({})
    save_file({"q.lora_A.weight": torch.ones(2, 8)}, path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"tensor 'q.lora_A.weight' does not begin with base_model.model."):
        open_source(str(path))
    room.path = room.bench.save("tied", {name: tensor for name, tensor in room.base.items() if name != "lm_head.weight"})
    with pytest.raises(InputError, match=r"does not hold \(it has no output head of its own: it is tied to the embedding\)"):
        room.open(pair("lm_head", VOCABULARY, HIDDEN))


def test_a_merge_reads_adapters_and_pickles_as_it_reads_any_source(room):
    tensors = pair(Q, HIDDEN, HIDDEN) | {f"{NORM}.weight": random((HIDDEN,), 80)}
    room.adapter(tensors)
    pickled = room.bench.root / "pickled"
    pickled.mkdir()
    other = {name: random(shape, 100 + seed).bfloat16() for seed, (name, shape) in enumerate(BASE.items())}
    torch.save(other, pickled / "pytorch_model.bin")
    texts = {"previous": str(room.bench.root / "adapter"), "tuned": str(pickled)}
    sources = [Source(name, open_source(text, allow_pickle=True)) for name, text in texts.items()]
    execute(plan_merge(WiseFT(0.25), sources, room.bench.root / "out"))
    previous = {name: tensor.double() for name, tensor in room.base.items()}
    previous[f"{Q}.weight"] = previous[f"{Q}.weight"] + product(tensors, Q, 3.0)
    previous[f"{NORM}.weight"] = tensors[f"{NORM}.weight"].double()
    merged = room.bench.load()
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    for name, tensor in merged.items():
        expected = 0.25 * previous[name] + 0.75 * other[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=2**-8, atol=1e-6)  # one rounding to bfloat16, half a unit of 2^-7
