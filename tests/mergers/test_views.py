"""Views: which tensor a source's tensor plays, and what it is to hold; experts inside one checkpoint."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import bits

from foundation.errors import ConfigError, InputError
from mergers import MERGERS, Source, WeightedAverage, execute, plan_merge, read_checkpoint
from mergers.sources.source import Expert, Identity, LanguageModel, Prefix, Rename, anchor_of
from mergers.sources.view_spec import parse_view

# --- the views by themselves ---

EXPERTS = ("v", "l", "vl")
PLACES = {
    "transformer.blocks.3.mlp.v.fc1.weight": "transformer.blocks.3.mlp.fc1.weight",
    "transformer.blocks.3.norm1.v.weight": "transformer.blocks.3.norm1.weight",
    "transformer.blocks.0.attn.v.q_bias": "transformer.blocks.0.attn.q_bias",
    "transformer.blocks.0.attn.l.qkv.weight": None,
    "transformer.blocks.11.mlp.vl.fc2.bias": None,
    "transformer.blocks.0.gamma_1": "transformer.blocks.0.gamma_1",
    "transformer.blocks.0.attn.v_bias": "transformer.blocks.0.attn.v_bias",
    "level.vlm.l2.weight": "level.vlm.l2.weight",
}


@pytest.mark.parametrize(("tensor", "output"), PLACES.items())
def test_an_expert_plays_its_own_tensors_and_those_that_all_share(tensor, output):
    assert Expert("v", EXPERTS).output_name(tensor) == output


@given(
    st.lists(st.sampled_from(["blocks", "0", "mlp", "fc1", "v_bias", "weight"]), min_size=1, max_size=5),
    st.sampled_from(EXPERTS),
    st.data(),
)
def test_every_tensor_is_exactly_one_experts_or_everyones(parts, owner, data):
    place = data.draw(st.integers(0, len(parts)))
    views = [Expert(name, EXPERTS) for name in EXPERTS]
    shared, own = ".".join(parts), ".".join([*parts[:place], owner, *parts[place:]])
    assert [view.output_name(shared) for view in views] == [shared] * 3
    assert [view.output_name(own) for view in views] == [shared if view.name == owner else None for view in views]
    assert [view.leaves(own) for view in views] == [None if view.name == owner else shared for view in views]


def test_a_prefix_view_names_a_part_and_expects_nothing_else():
    view = Prefix((("model.", "model.language_model."), ("model.rotary.", None), ("lm_head.", "lm_head.")))
    assert view.output_name("model.layers.0.w") == "model.language_model.layers.0.w"
    assert view.output_name("model.rotary.inv_freq") is None, "the longest prefix counts"
    assert view.output_name("lm_head.weight") == "lm_head.weight"
    assert [view.expects(name) for name in ("model.language_model.x", "lm_head.x", "model.visual.x")] == [True, True, False]
    with pytest.raises(InputError, match=r"'extra\.w' begins with none of 'model\.', 'model\.rotary\.', 'lm_head\.'.* null"):
        view.output_name("extra.w")


def test_a_rename_view_applies_its_expressions_in_order():
    view = Rename(((r"^model\.", ""), (r"^transformer\.", "vilt."), (r"\.relative_position_index$", None)))
    assert view.output_name("model.transformer.blocks.0.w") == "vilt.blocks.0.w"
    assert view.output_name("model.relative_position_index") == "relative_position_index"
    assert view.output_name("model.transformer.relative_position_index") is None
    assert view.leaves("model.transformer.relative_position_index") == "vilt.relative_position_index"


def test_views_from_yaml():
    assert parse_view(None) == parse_view("identity") == Identity()
    assert parse_view("language_model") == LanguageModel()
    assert parse_view({"expert": "v", "of": ["v", "l", "vl"]}) == Expert("v", EXPERTS)
    assert parse_view({"prefix": {"model.": "model.text_model.", "x.": None}}) == Prefix((("model.", "model.text_model."), ("x.", None)))
    assert parse_view({"rename": [["^model\\.", ""], ["y", None]]}) == Rename((("^model\\.", ""), ("y", None)))


BAD_SPECS = {
    "a mistyped word": ("langage_model", r"unknown view 'langage_model'; did you mean 'language_model'\?"),
    "a bare kind": ("expert", r"'expert' says too little; write .*\{expert: v, of: \[v, l, vl\]\}"),
    "a number": (3, "a view is a word or a mapping, not 3"),
    "nothing": ({}, "is empty; write identity"),
    "a mistyped kind": ({"exper": "v"}, r"unknown kind 'exper'; did you mean 'expert'\?"),
    "two kinds": ({"expert": "v", "prefix": {}}, "names expert and prefix, but can be one of them only"),
    "a mistyped key": ({"expert": "v", "off": ["v", "l"]}, r"unknown key 'off'; did you mean 'of'\?"),
    "no experts": ({"expert": "v"}, "name the expert and, as `of`, all experts"),
    "experts as text": ({"expert": "v", "of": "vl"}, "name the expert and, as `of`, all experts"),
    "an expert that is not listed": ({"expert": "vv", "of": ["v", "l"]}, r"'vv' of v, l: list every expert .* did you mean 'v'\?"),
    "one expert": ({"expert": "v", "of": ["v"]}, "'v' of v: list every expert of the checkpoint once"),
    "an expert twice": ({"expert": "v", "of": ["v", "l", "l"]}, "list every expert of the checkpoint once"),
    "a number as expert": ({"expert": "0", "of": ["0", "1"]}, "'0' cannot name an expert.* layers are numbered"),
    "prefixes as list": ({"prefix": ["model."]}, "prefix maps each prefix to the one it is seen as"),
    "all left out": ({"prefix": {"model.": None}}, "it leaves everything out"),
    "a rename that is no pair": ({"rename": ["^model"]}, "rename lists pairs"),
    "a bad expression": ({"rename": [["(", ""]]}, r"'\(' -> '' is not a regular expression"),
    "a bad replacement": ({"rename": [["a", "\\1"]]}, "is not a regular expression and its replacement: invalid group reference"),
}


@pytest.mark.parametrize("kind", BAD_SPECS)
def test_views_that_make_no_sense_are_refused(kind):
    spec, message = BAD_SPECS[kind]
    with pytest.raises(ConfigError, match=message):
        parse_view(spec)


# --- views of checkpoints ---


def source(bench, name, tensors, view, config=None):
    return Source(name, read_checkpoint(bench.save(name, tensors, config)), view)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (Expert("x", ("x", "l")), "is seen as expert x of x, l, but no tensor has a component 'x' in its name in /.*; fix its view"),
        (Prefix((("model.", "x."),)), r"is seen as model\.\* as x\.\*, but no tensor's name begins with 'model\.'"),
        (LanguageModel(), r"is seen as the language model, but no tensor's name begins with 'model\.'"),
        (Rename((("^model", ""),)), r"is seen as \^model -> nothing, but '\^model' matches no tensor, e\.g\. not 'a\.l\.w'"),
        (Rename((("[vl]", "x"),)), "'a.l.w' and 'a.v.w' are both the output's 'a.x.w'; only one can be"),
        (Expert("v", ("a", "v", "l")), r"source 's': tensor 'a\.l\.w' has 2 components that name an expert \(a, l\)"),
    ],
)
def test_a_view_that_does_not_fit_its_checkpoint_is_refused(bench, view, message):
    tensors = {"a.v.w": torch.ones(2), "a.l.w": torch.ones(2), "b": torch.ones(2)}
    with pytest.raises(InputError, match=message):
        source(bench, "s", tensors, view).tensors()


def experts_checkpoint(seed):
    """Two layers of experts v and l, the second with vl besides, and what all share."""
    generator = torch.Generator().manual_seed(seed)
    owners = {0: ("v", "l"), 1: ("v", "l", "vl")}
    parts = ("mlp.{}.fc1.weight", "norm1.{}.weight", "attn.{}.q_bias")
    names = [f"transformer.blocks.{layer}.{part.format(owner)}" for layer in owners for part in parts for owner in owners[layer]]
    names += ["transformer.blocks.0.gamma_1", "transformer.norm.weight", "transformer.blocks.0.attn.v_bias"]
    return {name: torch.randn(5, 3, generator=generator) for name in names}


def test_three_experts_of_one_checkpoint_are_merged_into_a_shared_one(bench):
    held = experts_checkpoint(0)
    checkpoint = read_checkpoint(bench.save("moe", held))
    sources = [Source(name, checkpoint, Expert(name, EXPERTS)) for name in EXPERTS]
    plan = plan_merge(WeightedAverage((0.25, 0.25, 0.5)), sources, bench.root / "out")
    assert "source 'vl' is seen as expert vl of v, l, vl: 6 of its 18 tensors take part" in " ".join(plan.notes)
    execute(plan)
    made = bench.load()
    assert len(made) == 9
    for name in ("transformer.blocks.0.gamma_1", "transformer.norm.weight", "transformer.blocks.0.attn.v_bias"):
        assert bits(made.pop(name)) == bits(held[name]), "what all share keeps its bytes"
    for name, tensor in made.items():
        kind, rest = name.split(".")[3], name.rpartition(f"{name.split('.')[3]}.")[2]
        parts = [held.get(name.replace(f"{kind}.{rest}", f"{kind}.{expert}.{rest}")) for expert in EXPERTS]
        assert (parts[2] is None) == (".0." in name)
        weights = (0.5, 0.5) if parts[2] is None else (0.25, 0.25, 0.5)  # scaled to sum to 1 where there is no vl
        truth = sum(weight * part.double() for weight, part in zip(weights, parts, strict=False))
        torch.testing.assert_close(tensor.double(), truth, rtol=1e-6, atol=1e-6)  # float32 arithmetic


def test_modality_arithmetic_on_a_seed(bench):
    """seed + scale * sum over experts of (expert - seed), the formula that the order of experts does not change."""
    held = experts_checkpoint(0)
    seed = {output: torch.full((5, 3), 0.5) for name in held if (output := Expert("v", EXPERTS).output_name(name))}
    checkpoint = read_checkpoint(bench.save("moe", held))
    base = Source("seed", read_checkpoint(bench.save("seed", seed)))
    sources = [Source(name, checkpoint, Expert(name, EXPERTS)) for name in EXPERTS]
    for number, order in enumerate((sources, sources[::-1])):
        execute(plan_merge(MERGERS["task_arithmetic"](scale=0.75), order, bench.root / f"out{number}", base=base))
    made, other = bench.load("out0"), bench.load("out1")
    assert made.keys() == seed.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-6, atol=1e-6)
    for name in ("transformer.blocks.0.gamma_1", "transformer.norm.weight"):
        assert bits(made[name]) == bits(held[name]), "what all experts share is the model's own: copied, not counted once per expert"
    for layer, experts in ((0, ("v", "l")), (1, EXPERTS)):
        parts = [held[f"transformer.blocks.{layer}.mlp.{expert}.fc1.weight"].double() for expert in experts]
        truth = 0.5 + 0.75 * sum(part - 0.5 for part in parts)
        torch.testing.assert_close(made[f"transformer.blocks.{layer}.mlp.fc1.weight"].double(), truth, rtol=1e-6, atol=1e-6)


def test_what_no_expert_holds_is_missed(bench):
    """Scope is not an excuse: a tensor that the whole checkpoint lacks is an error."""
    held = experts_checkpoint(0)
    shared = {output: tensor for name, tensor in held.items() if (output := Expert("v", EXPERTS).output_name(name))}
    whole = Source("seed", read_checkpoint(bench.save("seed", shared)))
    del held["transformer.norm.weight"]
    checkpoint = read_checkpoint(bench.save("moe", held))
    sources = [whole, *(Source(name, checkpoint, Expert(name, EXPERTS)) for name in EXPERTS)]
    with pytest.raises(
        InputError, match=r"source 'v', seen as expert v of v, l, vl, lacks 1 of 9 tensors, e\.g\. 'transformer\.norm\.weight'"
    ):
        plan_merge(WeightedAverage(), sources, bench.root / "out")


def test_lightning_prefixes_are_taken_away(bench):
    tensors = {"a.w": torch.ones(2), "b": torch.zeros(3)}
    plain = source(bench, "plain", tensors, Identity())
    lightning = source(
        bench, "lightning", {f"model.{name}": tensor + 2 for name, tensor in tensors.items()}, parse_view({"rename": [["^model\\.", ""]]})
    )
    execute(plan_merge(WeightedAverage(), [plain, lightning], bench.root / "out"))
    assert {name: tensor.tolist() for name, tensor in bench.load().items()} == {"a.w": [2, 2], "b": [1, 1, 1]}


# --- the anchor ---


def test_the_anchor_is_the_base_or_the_first_whole_source(bench):
    part = source(bench, "lm", {"model.w": torch.ones(2)}, LanguageModel())
    first, second, base = (source(bench, name, {"model.language_model.w": torch.ones(2)}, Identity()) for name in ("a", "b", "base"))
    assert anchor_of([part, first, second]) is first
    assert anchor_of([first, second], base) is base
    assert anchor_of([first, second], part) is first, "a part cannot be the anchor"
    with pytest.raises(
        ConfigError, match=r"every source is seen as a part of a model: 'lm' \(as the language model\); one must be the whole"
    ):
        anchor_of([part])
