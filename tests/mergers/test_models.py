"""Real (tiny) Hugging Face models, merged and loaded again: names on disk that differ, tied weights, shards."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation.errors import InputError
from mergers import WeightedAverage, WiseFT, plan_merge, read_checkpoint

transformers = pytest.importorskip("transformers")

TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def llama(seed, tied=False):
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, **TOKENS, tie_word_embeddings=tied)).bfloat16()


def llava(seed, cls="Llava"):
    torch.manual_seed(seed)
    config = getattr(transformers, f"{cls}Config")(
        vision_config=transformers.SiglipVisionConfig(**VISION), text_config=transformers.Qwen2Config(**TEXT, **TOKENS), image_token_id=3
    )
    return getattr(transformers, f"{cls}ForConditionalGeneration")(config)


def qwen2_vl(seed):
    torch.manual_seed(seed)
    text = TEXT | TOKENS | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config={"embed_dim": 16, "depth": 1, "hidden_size": 16, "num_heads": 2})
    return transformers.Qwen2VLForConditionalGeneration(config)


def reload(kind, path):
    model, info = type(kind).from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model


def assert_is_average(merged, first, second, weight):
    truth = {
        name: (1 - weight) * a.double() + weight * dict(second.named_parameters())[name].double() for name, a in first.named_parameters()
    }
    for name, parameter in merged.named_parameters():
        # one rounding to the model's dtype, beside which float32's own is small
        torch.testing.assert_close(parameter.double(), truth[name], rtol=torch.finfo(parameter.dtype).eps, atol=1e-7)


@pytest.mark.parametrize("shard", [None, "5KB"])
def test_llama_merges_and_loads(bench, shard):
    previous, tuned = llama(0), llama(1)
    options = {"max_shard_size": shard} if shard else {}
    previous.save_pretrained(bench.root / "p", **options)
    tuned.save_pretrained(bench.root / "t")
    bench.merge(WiseFT(0.1), previous=bench.root / "p", tuned=bench.root / "t", options={"max_shard_size": 4000} if shard else {})
    assert_is_average(reload(previous, bench.root / "out"), previous, tuned, 0.9)
    assert (bench.root / "out" / "generation_config.json").exists()


MAKERS = {
    "Llava": lambda seed: llava(seed),
    "LlavaNext": lambda seed: llava(seed, "LlavaNext"),
    "LlavaOnevision": lambda seed: llava(seed, "LlavaOnevision"),
}
MAKERS["Qwen2VL"] = qwen2_vl


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("old_names_first", [True, False])
def test_two_saves_of_one_model_with_other_names_merge(bench, family, old_names_first):
    """Their key sets are disjoint on disk; the output keeps the first source's."""
    first, second = MAKERS[family](0), MAKERS[family](1)
    first.save_pretrained(bench.root / "a", save_original_format=old_names_first)
    second.save_pretrained(bench.root / "b", save_original_format=not old_names_first)
    names_a, names_b = (load_file(bench.root / name / "model.safetensors").keys() for name in "ab")
    assert names_a != names_b, "the trap must be there to be avoided"
    plan = plan_merge(WeightedAverage(), bench.sources(a=bench.root / "a", b=bench.root / "b"), bench.root / "plan")
    assert any("source 'b' has other names on disk; they are read under those of 'a'" in note for note in plan.notes)
    bench.merge(WeightedAverage((0.3, 0.7)), a=bench.root / "a", b=bench.root / "b")
    assert bench.load().keys() == names_a
    assert_is_average(reload(first, bench.root / "out"), first, second, 0.7)


def test_names_of_a_renamed_source_may_not_be_strays(bench):
    llava(0).save_pretrained(bench.root / "a")
    llava(1).save_pretrained(bench.root / "b", save_original_format=False)
    extra = load_file(bench.root / "b" / "model.safetensors") | {"model.language_model.extra": torch.ones(2)}
    save_file(extra, bench.root / "b" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError,
        match=r"source 'b' holds 1 of \d+ tensors that 'a' lacks, e\.g\. 'model.language_model.extra', and names its tensors differ",
    ):
        plan_merge(WeightedAverage(), bench.sources(a=bench.root / "a", b=bench.root / "b"), bench.root / "out", partial=True)


def test_names_that_no_table_joins_are_counted_with_an_example(bench):
    a = bench.save("a", {"encoder.w": torch.ones(2), "encoder.b": torch.ones(2)}, {"model_type": "llava"})
    b = bench.save("b", {"trunk.w": torch.ones(2), "trunk.b": torch.ones(2)}, {"model_type": "llava"})
    with pytest.raises(InputError, match=r"source 'a' lacks 2 of 4 tensors, e\.g\. 'trunk\.b' \(which 'b' holds\); it has none in common"):
        plan_merge(WeightedAverage(), bench.sources(a=a, b=b), bench.root / "out")


def test_a_name_claimed_twice_is_refused(bench):
    pair = {"language_model.model.w": torch.ones(2), "model.language_model.w": torch.ones(2)}
    a = bench.save("a", {"model.language_model.w": torch.ones(2)}, {"model_type": "llava"})
    with pytest.raises(InputError, match=r"source 'b': .* and .* are both the output's 'model.language_model.w'"):
        plan_merge(WeightedAverage(), bench.sources(a=a, b=bench.save("b", pair, {"model_type": "llava"})), bench.root / "out")


# --- tied weights ---


def with_head(bench, path, head=None):
    """Write the output head beside the embedding it is tied to, as some tools do."""
    held = load_file(path / "model.safetensors")
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone() if head is None else head
    save_file(held, path / "model.safetensors", metadata={"format": "pt"})


def tied_pair(bench):
    first, second = llama(0, tied=True), llama(1, tied=True)
    first.save_pretrained(bench.root / "a")
    second.save_pretrained(bench.root / "b")
    return first, second


@pytest.mark.parametrize("holders", ["", "a", "b", "ab"])
def test_tied_models_stay_tied_whoever_wrote_the_head_out(bench, holders):
    first, second = tied_pair(bench)
    for name in holders:
        with_head(bench, bench.root / name)
    bench.merge(WeightedAverage(), a=bench.root / "a", b=bench.root / "b")
    assert "lm_head.weight" not in bench.load()
    model = reload(first, bench.root / "out")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert_is_average(model, first, second, 0.5)


def test_a_head_that_is_not_the_embedding_is_not_dropped_in_silence(bench):
    tied_pair(bench)
    with_head(bench, bench.root / "b", head=torch.zeros(64, 16, dtype=torch.bfloat16))
    with pytest.raises(
        InputError, match=r"source 'b': the config ties the output head to the embedding, but 'lm_head.weight' on disk differs from it"
    ):
        bench.merge(WeightedAverage(), a=bench.root / "a", b=bench.root / "b")
    with_head(bench, bench.root / "b", head=torch.zeros(60, 16, dtype=torch.bfloat16))
    with pytest.raises(
        InputError, match=r"the config ties 'lm_head.weight' \(60, 16\) BF16 to 'model.embed_tokens.weight' \(64, 16\) BF16"
    ):
        bench.merge(WeightedAverage(), a=bench.root / "a", b=bench.root / "b")
    assert bench.left_behind() == []


def test_tied_and_untied_models_are_not_mixed(bench):
    llama(0, tied=True).save_pretrained(bench.root / "a")
    llama(1, tied=False).save_pretrained(bench.root / "b")
    with pytest.raises(InputError, match="not of one architecture: tie_word_embeddings is True in 'a', False in 'b'"):
        bench.merge(WeightedAverage(), a=bench.root / "a", b=bench.root / "b")


def test_untied_heads_are_merged(bench):
    first, second = llama(0), llama(1)
    first.save_pretrained(bench.root / "a")
    second.save_pretrained(bench.root / "b")
    bench.merge(WeightedAverage(), a=bench.root / "a", b=bench.root / "b")
    assert_is_average(reload(first, bench.root / "out"), first, second, 0.5)


def test_a_sharded_save_of_a_tied_model_reads(bench):
    llama(0, tied=True).save_pretrained(bench.root / "a", max_shard_size="5KB")
    assert len(read_checkpoint(bench.root / "a").files) > 1
