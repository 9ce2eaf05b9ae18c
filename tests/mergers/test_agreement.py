"""Which sources may be merged: configs of wholes and of parts, what each source is to hold, tied heads, decided without weights."""

import pytest
import torch

from foundation.errors import InputError
from mergers import Source, read_checkpoint
from mergers.sources.agreement import check_configs, check_cover, drop_tied_heads
from mergers.sources.source import Expert, LanguageModel, unify
from mergers.sources.view_spec import parse_view

W = torch.ones(4, 2)
LANGUAGE = {"model.embed_tokens.weight": W, "model.layers.0.w": W, "lm_head.weight": W}
TIED = {name: tensor for name, tensor in LANGUAGE.items() if name != "lm_head.weight"}
VISUAL = {"vision_tower.w": W, "multi_modal_projector.w": W}
OLD = {"model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
TEXT = {"model_type": "qwen2", "num_attention_heads": 4, "rms_norm_eps": 1e-6}
VLM = {"model_type": "llava", "text_config": TEXT, "vision_config": {"model_type": "siglip_vision_model", "patch_size": 14}}


def in_vlm(tensors):
    """A LLaVA on disk, its language model under the names of older releases."""
    renamed = {old + name.removeprefix(new): tensor for name, tensor in tensors.items() for new, old in OLD.items() if name.startswith(new)}
    return {**renamed, **VISUAL}


def source(bench, name, tensors, config, view=None):
    return Source(name, saved(bench, name, tensors, config), parse_view(view))


def saved(bench, name, tensors, config):
    """A checkpoint whose tensors are each their own (the writer refuses shared memory)."""
    return read_checkpoint(bench.save(name, {key: tensor.clone() for key, tensor in tensors.items()}, config))


def pair(bench, language=LANGUAGE, within=LANGUAGE, text=TEXT, vlm=VLM):
    """A VLM, and a language model seen as its own."""
    return [source(bench, "vlm", in_vlm(within), vlm), source(bench, "lm", language, text, "language_model")]


def agree(sources, partial=False, base=None):
    """All that is decided before the plan: the tensors of each source, the proofs, the notes."""
    notes = check_configs(sources)
    named, renamed = unify(sources)
    held, proofs = drop_tied_heads(sources, named)
    check_cover(sources, held, partial, base=base)
    return held, proofs, notes + renamed


# --- configs ---


def test_a_language_model_is_compared_with_the_text_config(bench):
    assert agree(pair(bench))[2][0].startswith("source 'lm' is seen as the language model: 3 of its 3 tensors take part, e.g.")
    notes = check_configs(pair(bench, text=TEXT | {"rms_norm_eps": 1e-5, "architectures": ["Qwen2ForCausalLM"]}))
    assert notes == ["configs differ: rms_norm_eps is 1e-06 in 'vlm', 1e-05 in 'lm'"]
    with pytest.raises(InputError, match=r"not of one architecture: num_attention_heads is 4 in 'vlm', 2 in 'lm'; merge checkpoints that"):
        check_configs(pair(bench, text=TEXT | {"num_attention_heads": 2}))
    with pytest.raises(InputError, match="model_type is 'qwen2' in 'vlm', 'llama' in 'lm'"):
        check_configs(pair(bench, text=TEXT | {"model_type": "llama"}))


QWEN2_VL = {
    "as transformers 5 writes it": {"model_type": "qwen2_vl", "text_config": TEXT | {"model_type": "qwen2_vl_text"}},
    "as on the hub": TEXT | {"model_type": "qwen2_vl", "vision_config": {"num_attention_heads": 9}},
}


@pytest.mark.parametrize("kind", QWEN2_VL)
def test_the_language_model_inside_may_have_a_name_of_its_own(bench, kind):
    check_configs(pair(bench, vlm=QWEN2_VL[kind]))
    with pytest.raises(InputError, match="num_attention_heads is 4 in 'vlm', 8 in 'lm'"):
        check_configs(pair(bench, vlm=QWEN2_VL[kind], text=TEXT | {"num_attention_heads": 8}))


def test_a_language_model_without_its_view_is_told_of_it(bench):
    vlm, lm = pair(bench)
    with pytest.raises(InputError, match="a language model is merged into a vision-language model by its view: language_model"):
        check_configs([vlm, Source("lm", lm.checkpoint)])


def test_a_vision_tower_is_compared_with_the_vision_config(bench):
    view = {"prefix": {"vision_model.": "model.vision_tower."}}
    tower = {"vision_model.w": W}
    vlm = source(bench, "vlm", in_vlm(LANGUAGE), VLM)
    check_configs([vlm, source(bench, "a", tower, VLM["vision_config"], view)])
    with pytest.raises(InputError, match="patch_size is 14 in 'vlm', 16 in 'b'"):
        check_configs([vlm, source(bench, "b", tower, VLM["vision_config"] | {"patch_size": 16}, view)])
    held, _, _ = agree([vlm, source(bench, "c", tower, VLM["vision_config"], view)])
    assert held[1].keys() == {"vision_tower.w"}


def test_a_config_that_ties_in_its_text_config_ties(bench):
    """transformers ties if either place says so, so a file of version 4 and one of version 5 agree."""
    inner = VLM | {"text_config": TEXT | {"tie_word_embeddings": True}, "tie_word_embeddings": False}
    outer = VLM | {"tie_word_embeddings": True}
    assert agree([source(bench, "a", in_vlm(TIED), inner), source(bench, "b", in_vlm(TIED), outer)])[2] == []


# --- what a source is to hold ---


@pytest.mark.parametrize("partial", [False, True])
def test_a_part_is_owed_to_by_the_whole_only_where_it_lies(bench, partial):
    held, _, _ = agree(pair(bench), partial)
    assert held[0].keys() - held[1].keys() == VISUAL.keys()
    assert held[1].keys() <= held[0].keys()


def test_a_part_that_lacks_tensors_in_its_scope_is_refused(bench):
    lacking = {name: tensor for name, tensor in LANGUAGE.items() if "layers" not in name}
    message = (
        r"source 'lm', seen as the language model, lacks 1 of 3 tensors, e\.g\. 'language_model\.model\.layers\.0\.w' "
        r"\(which 'vlm' holds\); fix its view, or set partial: true"
    )
    with pytest.raises(InputError, match=message):
        agree(pair(bench, language=lacking))
    held, _, _ = agree(pair(bench, language=lacking), partial=True)
    assert len(held[1]) == 2


def test_what_a_part_holds_beyond_the_whole_is_not_dropped(bench):
    more = LANGUAGE | {"model.layers.1.w": W}
    with pytest.raises(
        InputError, match=r"source 'lm' holds 1 of 4 tensors that 'vlm' lacks, e\.g\. 'model\.language_model\.layers\.1\.w'"
    ):
        agree(pair(bench, language=more), partial=True)


def test_a_base_must_hold_what_is_measured_from_it(bench):
    a, base = source(bench, "a", LANGUAGE, TEXT), source(bench, "base", TIED | {"model.norm": W}, TEXT | {"tie_word_embeddings": False})
    with pytest.raises(
        InputError, match=r"source 'base' lacks 1 of 4 tensors, e\.g\. 'lm_head\.weight' \(which 'a2' holds\); the base must"
    ):
        agree([Source("a2", a.checkpoint), base], partial=True, base=base)


def test_a_source_that_shares_nothing_is_another_model(bench):
    sources = [source(bench, "a", {"x.v.w": W, "x.l.w": W}, TEXT), source(bench, "b", {"y.v.w": W}, TEXT)]
    with pytest.raises(InputError, match=r"source 'a' lacks 1 of 3 tensors, e\.g\. 'y\.v\.w' \(which 'b' holds\); it has none in common"):
        agree(sources, partial=True)
    one = saved(bench, "c", {"x.v.w": W, "x.l.w": W, "y.l.w": W}, TEXT)
    held, _, _ = agree([Source("v", one, Expert("v", ("v", "l"))), Source("l", one, Expert("l", ("v", "l")))])
    assert [sorted(found) for found in held] == [["x.w"], ["x.w", "y.w"]]


# --- tied heads ---


def test_a_tied_and_an_untied_language_model_are_not_merged(bench):
    with pytest.raises(InputError, match=r"tie_word_embeddings is False in 'vlm', True in 'lm'; .*there is no head to merge"):
        agree(pair(bench, TIED, LANGUAGE, TEXT | {"tie_word_embeddings": True}, VLM | {"tie_word_embeddings": False}))
    with pytest.raises(InputError, match=r"tie_word_embeddings is True in 'vlm', False in 'lm'"):
        agree(pair(bench, LANGUAGE, TIED, TEXT | {"tie_word_embeddings": False}, VLM | {"tie_word_embeddings": True}))
    untied = VLM | {"tie_word_embeddings": False}
    with pytest.raises(InputError, match=r"'lm', seen .*, lacks 1 of 3 tensors, e\.g\. 'language_model\.lm_head\.weight'.*ties it to its"):
        agree(pair(bench, TIED, LANGUAGE, TEXT, untied))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("holders", ["vlm", "lm", "both"])
def test_heads_of_tied_models_are_proven_redundant_under_any_name(bench, told, holders):
    config = {"tie_word_embeddings": True} if told else {}
    sources = pair(bench, LANGUAGE if holders != "vlm" else TIED, LANGUAGE if holders != "lm" else TIED, TEXT | config, VLM | config)
    if holders == "both" and not told:
        assert agree(sources)[1] == [], "nothing says that they are tied"
        return
    held, proofs, _ = agree(sources)
    assert not any("lm_head" in name for found in held for name in found)
    found = {(position, head.name, tied.name) for position, head, tied in proofs}
    in_file = {
        "vlm": (0, "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),
        "lm": (1, "lm_head.weight", "model.embed_tokens.weight"),
    }
    assert found == {in_file[name] for name in in_file if holders in (name, "both")}


def test_a_part_without_head_and_embedding_does_not_make_a_model_tied(bench):
    view = {"prefix": {"vision_model.": "model.vision_tower."}}
    sources = [source(bench, "vlm", in_vlm(LANGUAGE), VLM), source(bench, "tower", {"vision_model.w": W}, {}, view)]
    held, proofs, _ = agree(sources)
    assert "language_model.lm_head.weight" in held[0]
    assert proofs == []


def test_the_view_is_the_language_models_whatever_its_order(bench):
    vlm, lm = pair(bench)
    assert isinstance(lm.view, LanguageModel)
    held, _, _ = agree([lm, vlm])
    assert held[1].keys() == in_vlm(LANGUAGE).keys(), "the names are the VLM's, which is the whole"


def test_a_model_with_experts_beside_it_is_refused(bench):
    sources = [source(bench, name, LANGUAGE, TEXT) for name in ("plain", "routed")]
    (sources[1].checkpoint.path / "experts.json").write_text("{}")
    with pytest.raises(InputError, match=r"source 'routed' has expert routing: .* would be lost"):
        check_configs(sources)
