"""alpha from the weights alone: the closed form against its surrogate, groups and their rules, what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import bits

from foundation.errors import ConfigError, InputError
from mergers import InProcess, Source, WiseFT, execute, plan_merge, read_checkpoint
from mergers.adaptive import OUTSIDE, Curvature, adaptive_alpha, alpha_of
from mergers.schedule import Scheduled

LAYERS = 5
SHAPES = {"model.embed.weight": (20, 8), "model.norm.weight": (8,)} | {f"model.layers.{i}.mlp.weight": (8, 8) for i in range(LAYERS)}
BOTH = pytest.mark.parametrize("curvature", list(Curvature))


def models(seed=0):
    """base, previous, tuned: steps of their own length and direction in every tensor."""
    generator = torch.Generator().manual_seed(seed)
    made = [{}, {}, {}]
    for index, (name, shape) in enumerate(SHAPES.items()):
        base, past, step = (torch.randn(shape, generator=generator) for _ in range(3))
        previous = base + 0.1 * past
        for model, tensor in zip(made, (base, previous, previous + 0.1 * (0.3 + 0.2 * index) * (step - 0.5 * past)), strict=True):
            model[name] = tensor
    return dict(zip(("base", "previous", "tuned"), made, strict=True))


def save(bench, tensors, **configs):
    return {name: Source(name, read_checkpoint(bench.save(name, held, configs.get(name)))) for name, held in tensors.items()}


def naive(tensors, names, curvature, past=1):
    """(alpha, ratio, cosine) over some tensors, in float64."""
    base, previous, tuned = (
        torch.cat([tensors[model][name].double().flatten() for name in names]) for model in ("base", "previous", "tuned")
    )
    u, v = previous - base, tuned - previous
    cosine = float(u @ v / (u.norm() * v.norm()))
    strength = past**2 if curvature == "isotropic" else past * cosine**2
    ratio = float(v.norm() / u.norm())
    return strength * ratio**2 / (1 + strength * ratio**2), ratio, cosine


@BOTH
@pytest.mark.parametrize("past", [1, 3])
def test_alpha_is_the_closed_form_over_the_whole_model(bench, curvature, past):
    tensors = models()
    found = adaptive_alpha(**save(bench, tensors), curvature=curvature, past=past)
    expected = naive(tensors, SHAPES, curvature, past)
    assert (found.whole.alpha, found.whole.ratio, found.whole.cosine) == pytest.approx(expected, rel=1e-10)
    assert found.whole.elements == sum(math.prod(shape) for shape in SHAPES.values())
    assert found.merger == WiseFT(found.whole.alpha)
    assert found.schedule.at("anything", 0.5) == found.whole.alpha


@BOTH
@given(seed=st.integers(0, 2**31), past=st.integers(1, 6), scale=st.floats(0.01, 100))
def test_alpha_is_where_the_surrogate_is_least(curvature, seed, past, scale):
    """J as the docstring writes it, with its past tasks spelled out: none of many other alphas has a lower one."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))
    v *= scale

    def lost(alpha):
        left = (1 - alpha) * v
        along = left.norm() if curvature is Curvature.ISOTROPIC else left @ u / past / (u.norm() / past**0.5)
        old = past * along**2 / (u @ u / past)
        return float(old + alpha**2 * (v @ v) / (v @ v))

    alpha = alpha_of(curvature, past, float(v.norm() / u.norm()), float(u @ v / (u.norm() * v.norm())))
    assert 0 <= alpha <= 1
    others = torch.linspace(0, 1, 101, dtype=torch.float64).tolist()
    assert lost(alpha) <= min(map(lost, others)) * (1 + 1e-9)  # rounding of float64


def test_the_cases_that_the_docstring_names():
    assert alpha_of(Curvature.ISOTROPIC, 1, 1.0, 0.0) == 0.5
    assert alpha_of(Curvature.ALONG_PAST, 1, 1.0, 1.0) == alpha_of(Curvature.ALONG_PAST, 1, 1.0, -1.0) == 0.5
    assert alpha_of(Curvature.ALONG_PAST, 1, 1.0, 0.0) == 0.0
    for past in (1, 2, 5):
        assert alpha_of(Curvature.ISOTROPIC, past, 1 / math.sqrt(past), 0.0) == pytest.approx(past / (past + 1))
    assert alpha_of(Curvature.ISOTROPIC, 1, 1e200, 0.0) == 1.0


@BOTH
def test_each_group_of_layers_has_its_own(bench, curvature):
    tensors = models()
    sources = save(bench, tensors)
    found = adaptive_alpha(**sources, curvature=curvature, blocks=2)
    groups = {
        "model.layers 0 to 2": [f"model.layers.{i}.mlp.weight" for i in (0, 1, 2)],
        "model.layers 3 to 4": [f"model.layers.{i}.mlp.weight" for i in (3, 4)],
        OUTSIDE: ["model.embed.weight", "model.norm.weight"],
    }
    assert [group.group for group in found.groups] == list(groups)
    for group, names in zip(found.groups, groups.values(), strict=True):
        assert (group.alpha, group.ratio, group.cosine) == pytest.approx(naive(tensors, names, curvature), rel=1e-10)
        assert all(found.schedule.at(name, 0.0) == group.alpha for name in names)
    assert isinstance(found.merger, Scheduled)
    execute(plan_merge(found.merger, [sources["previous"], sources["tuned"]], bench.root / "out"))
    made = bench.load()
    for group, names in zip(found.groups, groups.values(), strict=True):
        for name in names:
            expected = torch.lerp(tensors["previous"][name].double(), tensors["tuned"][name].double(), 1 - group.alpha)
            torch.testing.assert_close(made[name].double(), expected, rtol=1e-6, atol=1e-7)  # float32 rounding


def test_more_groups_than_layers_give_each_layer_its_own(bench):
    found = adaptive_alpha(**save(bench, models()), blocks=40)
    assert [group.group for group in found.groups] == [f"model.layers {i}" for i in range(LAYERS)] + [OUTSIDE]
    assert len({alpha for _, alpha in found.rules}) == LAYERS + 1


def test_a_group_that_the_past_left_alone_takes_the_alpha_of_the_model(bench):
    tensors = models()
    tensors["previous"]["model.layers.0.mlp.weight"] = tensors["base"]["model.layers.0.mlp.weight"]
    found = adaptive_alpha(**save(bench, tensors), blocks=LAYERS)
    assert (found.groups[0].alpha, found.groups[0].ratio) == (found.whole.alpha, None)
    assert found.groups[1].alpha != found.whole.alpha


def test_a_stage_that_learned_nothing_keeps_its_model(bench):
    tensors = models()
    found = adaptive_alpha(**save(bench, tensors | {"tuned": tensors["previous"]}))
    assert (found.whole.alpha, found.whole.ratio, found.whole.cosine) == (0.0, 0.0, None)


def test_any_number_of_workers_gives_the_same_bits(bench):
    sources = save(bench, models())
    assert adaptive_alpha(**sources, blocks=3, executor=InProcess(4)) == adaptive_alpha(**sources, blocks=3)


def test_rules_have_the_names_that_previous_and_tuned_are_merged_under(bench):
    """The base was written with today's names, the others with older ones."""
    tensors = {f"model.language_model.layers.{i}.w": (4, 4) for i in range(3)} | {"model.vision_tower.embed": (4,)}
    old = {name: name.replace("model.language_model", "language_model.model").replace("model.vision", "vision") for name in tensors}
    made = {model: {name: torch.randn(shape) for name, shape in tensors.items()} for model in ("base", "previous", "tuned")}
    for model in ("previous", "tuned"):
        made[model] = {old[name]: tensor for name, tensor in made[model].items()}
    sources = save(bench, made, **{model: {"model_type": "llava"} for model in made})
    found = adaptive_alpha(**sources, blocks=3)
    assert [pattern for pattern, _ in found.rules] == [f"language_model.model.layers.{i}.*" for i in range(3)] + ["*"]
    result = execute(plan_merge(found.merger, [sources["previous"], sources["tuned"]], bench.root / "out"))
    assert result.tensors_merged == len(tensors)
    assert bits(bench.load()[old["model.vision_tower.embed"]]) != bits(made["tuned"][old["model.vision_tower.embed"]])


def test_what_makes_no_sense_is_refused(bench):
    tensors = models()
    sources = save(bench, tensors)
    with pytest.raises(InputError, match="'previous' is the same as base 'base', so there is no past"):
        adaptive_alpha(**save(bench, tensors | {"previous": tensors["base"]}), blocks=2)
    sources = save(bench, tensors)
    with pytest.raises(ConfigError, match="past is 0 and blocks 2"):
        adaptive_alpha(**sources, past=0, blocks=2)
    with pytest.raises(ConfigError, match="blocks -1"):
        adaptive_alpha(**sources, blocks=-1)
    with pytest.raises(ConfigError, match=r"isotropc.*did you mean 'isotropic'"):
        adaptive_alpha(**sources, curvature="isotropc")
