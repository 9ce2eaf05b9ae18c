"""Language models merged into real (tiny) vision-language models, through a view and under any names on disk."""

import pytest
import torch
from safetensors.torch import load_file
from small_models import bits

from foundation.errors import InputError
from mergers import MERGERS, Source, WeightedAverage, execute, plan_merge, read_checkpoint
from mergers.sources.names import steps_of
from mergers.sources.source import LanguageModel, unify
from mergers.sources.view_spec import parse_view

transformers = pytest.importorskip("transformers")

TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def qwen2(seed, **more):
    torch.manual_seed(seed)
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**TEXT, **more))


def llava(seed, **more):
    torch.manual_seed(seed)
    text = transformers.Qwen2Config(**TEXT, **more)
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=transformers.SiglipVisionConfig(**VISION), text_config=text, image_token_id=3)
    )


def qwen2_vl(seed):
    torch.manual_seed(seed)
    text = TEXT | {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config={"embed_dim": 16, "depth": 1, "hidden_size": 16, "num_heads": 2})
    return transformers.Qwen2VLForConditionalGeneration(config)


def idefics3(seed):
    torch.manual_seed(seed)
    return transformers.Idefics3ForConditionalGeneration(
        transformers.Idefics3Config(text_config={"model_type": "qwen2", **TEXT, "pad_token_id": 0}, vision_config=VISION, image_token_id=3)
    )


FAMILIES = {"Llava": llava, "Qwen2VL": qwen2_vl, "Idefics3": idefics3}


def seen(bench, lm_first=False, lm_view=None):
    vlm = Source("vlm", read_checkpoint(bench.root / "vlm"))
    lm = Source("lm", read_checkpoint(bench.root / "lm"), lm_view or LanguageModel())
    return [lm, vlm] if lm_first else [vlm, lm]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("old_names", [True, False])
def test_a_language_model_is_merged_into_a_vision_language_model(bench, family, old_names):
    vlm, lm = FAMILIES[family](0), qwen2(1)
    vlm.save_pretrained(bench.root / "vlm", save_original_format=old_names)
    lm.save_pretrained(bench.root / "lm")
    plan = plan_merge(WeightedAverage((0.3, 0.7)), seen(bench), bench.root / "out")
    assert any(note.startswith("source 'lm' is seen as the language model: 27 of its 27 tensors take part") for note in plan.notes)
    execute(plan)
    assert bench.load().keys() == load_file(bench.root / "vlm" / "model.safetensors").keys(), "the output keeps the VLM's names"
    merged, info = type(vlm).from_pretrained(bench.root / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    language = {name.removeprefix("model."): parameter for name, parameter in lm.named_parameters()}
    averaged = 0
    for name, parameter in merged.named_parameters():
        before = dict(vlm.named_parameters())[name]
        inner = name.removeprefix("model.language_model.").removeprefix("model.text_model.")
        if inner in language and (inner != name or name.startswith("lm_head.")):
            torch.testing.assert_close(parameter, 0.3 * before + 0.7 * language[inner], rtol=1e-5, atol=1e-6)  # float32 arithmetic
            averaged += 1
        else:
            assert torch.equal(parameter, before), f"{name} comes from the VLM alone"
    assert averaged == len(language) == 27


def test_a_prefix_may_be_spelled_as_on_disk_or_as_today(bench):
    llava(0).save_pretrained(bench.root / "vlm")
    qwen2(1).save_pretrained(bench.root / "lm")
    made = []
    for view in (LanguageModel(), *(parse_view({"prefix": {"model.": place, "lm_head.": head}}) for place, head in SPELLINGS)):
        names, _ = unify(seen(bench, lm_view=view))
        made.append({name: entry.name for name, entry in names[1].items()})
    assert made[0] == made[1] == made[2]
    assert made[0]["language_model.model.layers.0.mlp.up_proj.weight"] == "model.layers.0.mlp.up_proj.weight"
    assert made[0]["language_model.lm_head.weight"] == "lm_head.weight"


SPELLINGS = (("language_model.model.", "language_model.lm_head."), ("model.language_model.", "lm_head."))


def test_a_rule_that_is_missing_for_a_tensor_is_told(bench):
    llava(0).save_pretrained(bench.root / "vlm")
    qwen2(1).save_pretrained(bench.root / "lm")
    view = parse_view({"prefix": {"model.": "model.language_model."}})
    with pytest.raises(InputError, match=r"source 'lm': tensor 'lm_head\.weight' begins with none of 'model\.'"):
        plan_merge(WeightedAverage(), seen(bench, lm_view=view), bench.root / "out")
    view = parse_view({"prefix": {"model.": "model.language_model.", "lm_head.": None}})
    made = plan_merge(WeightedAverage(), seen(bench, lm_view=view), bench.root / "out")
    assert len(next(tensor for tensor in made.tensors if "lm_head" in tensor.name).positions) == 1, "left out by the view"


def test_a_view_is_owed_what_lies_in_it_under_any_name_on_disk(bench):
    qwen2_vl(0).save_pretrained(bench.root / "vlm")
    qwen2(1).save_pretrained(bench.root / "lm")
    vlm, lm = seen(bench)
    names = list(vlm.checkpoint.tensors)
    owed = lm.owed(names, steps_of(vlm.checkpoint.config))
    assert "model.layers.0.mlp.up_proj.weight" in owed
    assert len(owed) == 27
    assert not any(name.startswith("visual.") for name in owed)


def test_the_whole_gives_names_dtypes_and_config_whatever_the_order(bench):
    vlm = llava(0)
    vlm.save_pretrained(bench.root / "vlm")
    qwen2(1).bfloat16().save_pretrained(bench.root / "lm")
    execute(plan_merge(WeightedAverage(), seen(bench, lm_first=True), bench.root / "out"))
    assert {tensor.dtype for tensor in bench.load().values()} == {torch.float32}
    assert type(transformers.AutoConfig.from_pretrained(bench.root / "out")) is transformers.LlavaConfig
    _, info = type(vlm).from_pretrained(bench.root / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info


def test_what_two_language_models_have_learned_is_added_to_a_vision_language_model(bench):
    """Task vectors from the language model that the VLM was built on; the tower, which that base lacks, is the VLM's own."""
    vlm, language, base = llava(0), qwen2(1), qwen2(2)
    for name, model in {"vlm": vlm, "lm": language, "base": base}.items():
        model.save_pretrained(bench.root / name)
    below = Source("base", read_checkpoint(bench.root / "base"), LanguageModel())
    execute(plan_merge(MERGERS["task_arithmetic"](), seen(bench), bench.root / "out", base=below))
    merged, info = type(vlm).from_pretrained(bench.root / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    before, after = dict(vlm.named_parameters()), dict(merged.named_parameters())
    for name, start in base.named_parameters():
        inner = name.replace("model.", "model.language_model.")
        learned = before[inner].double() + dict(language.named_parameters())[name].double() - start.double()
        torch.testing.assert_close(after[inner].double(), learned, rtol=1e-5, atol=1e-6)  # float32 arithmetic
    outside = [name for name in before if "vision_tower" in name or "projector" in name]
    assert outside
    assert all(bits(before[name].detach()) == bits(after[name].detach()) for name in outside)
