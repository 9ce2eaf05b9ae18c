"""mergekit's files: read as mergekit reads them, and what cannot be had named with its line.

Where a test says "measured", the values are what mergekit 0.1.5 gave for that file on five-layer Llama checkpoints of constants (all zeros,
ones, twos, tens), whose merge shows the parameters that each tensor was merged with.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.errors import ConfigError
from mergers import WeightedAverage
from mergers.methods.breadcrumbs import Breadcrumbs
from mergers.methods.dare import DareLinear, DareTies
from mergers.methods.della import Della
from mergers.methods.karcher import Karcher
from mergers.methods.model_stock import ModelStock
from mergers.methods.sce import Sce
from mergers.methods.slerp import NuSlerp, Slerp, SphericalAverage
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.methods.ties import TiesPerTensor
from mergers.schedule import resolve_mergers
from mergers.table import hyperparameters
from pipeline.config.merge_request import MergeRequest
from pipeline.config.merge_source import request_from_file
from pipeline.config.mergekit_methods import MERGEKIT

Asked = Callable[..., MergeRequest]
NAMES = ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"] + [
    f"model.layers.{layer}.{part}.weight" for layer in range(5) for part in ("mlp.up_proj", "self_attn.q_proj")
]
UP = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(5)]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """The request of a file with this text."""

    def read(text: str) -> MergeRequest:
        (tmp_path / "m.yml").write_text(text)
        return request_from_file(tmp_path / "m.yml")

    return read


def of_each(request: MergeRequest, field: str, names: list[str] = NAMES) -> dict[str, object]:
    """A hyperparameter by tensor."""
    found = resolve_mergers(request.merger, NAMES, request.names)
    return {name: hyperparameters(found[name])[field] for name in names}


# Parameters, as measured


def test_a_gradient_runs_over_the_layers_and_begins_outside_them(asked: Asked) -> None:
    request = asked(
        "merge_method: task_arithmetic\nbase_model: zero\nmodels: [{model: one, parameters: {weight: 1}}]\nparameters: {lambda: [1, 3]}\n"
    )
    found = of_each(request, "scale")
    assert [found[name] for name in UP] == [1, 1.5, 2, 2.5, 3]
    assert [found[name] for name in NAMES[:3]] == [1, 1, 1]


def test_a_models_filters_count_before_what_holds_for_all(asked: Asked) -> None:
    request = asked(
        """\
merge_method: task_arithmetic
base_model: zero
models:
  - model: one
    parameters:
      weight:
        - {filter: mlp, value: [1, 3]}
        - {filter: layers.0, value: 7}
  - {model: two, parameters: {weight: [{filter: lm_head, value: 7}, {filter: "*", value: 2}]}}
parameters: {weight: 4}
"""
    )
    found = of_each(request, "weights")
    assert [found[name] for name in UP] == [(1, 2), (1.5, 2), (2, 2), (2.5, 2), (3, 2)]
    assert found["model.layers.0.self_attn.q_proj.weight"] == (7, 2)
    assert found["model.layers.1.self_attn.q_proj.weight"] == (4, 2)
    assert found["lm_head.weight"] == (4, 7)


def test_linear_scales_weights_to_sum_to_1_in_each_tensor(asked: Asked) -> None:
    text = "merge_method: linear\nmodels:\n  - {model: a, parameters: {weight: 1}}\n  - {model: b, parameters: {weight: [1, 3]}}\n"
    found = of_each(asked(text), "weights")
    assert found[UP[0]] == (0.5, 0.5)
    assert found[UP[4]] == (0.25, 0.75)
    plain = asked(text.replace("[1, 3]", "3"))
    assert plain.merger == WeightedAverage((0.25, 0.75))
    unscaled = asked(text.replace("[1, 3]", "3") + "parameters: {normalize: false}\n")
    with pytest.raises(ConfigError, match="weights sum to 4"):
        unscaled.check()


def test_the_slerp_of_the_handbook(asked: Asked) -> None:
    request = asked(
        """\
slices:
  - sources:
      - {model: org/tuned, layer_range: [0, 5]}
      - {model: org/base, layer_range: [0, 5]}
merge_method: slerp
base_model: org/base
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: bfloat16
"""
    )
    assert [source.checkpoint for source in request.sources] == ["org/base", "org/tuned"]  # t counts from base_model, wherever it stands
    found = of_each(request, "weight")
    assert [found[name] for name in UP] == [1, 0.5, 0.7, 0.3, 0]
    assert found["lm_head.weight"] == 0.5
    assert (request.dtype, request.layers, request.files_from, request.base) == ("BF16", (0, 5), "base (1)", None)


# Methods


MODELS = "models:\n  - {model: a, parameters: {weight: 1%s}}\n  - {model: b, parameters: {weight: 2%s}}\n"


def delta(method: str, own: str = "", whole: str = "") -> str:
    """A file of a method that works from a base."""
    return f"merge_method: {method}\nbase_model: base\n{MODELS % (own, own)}{f'parameters: {{{whole}}}' if whole else ''}\n"


@pytest.mark.parametrize(
    ("text", "merger"),
    [
        (delta("task_arithmetic"), TaskArithmetic((1, 2))),
        (delta("task_arithmetic", whole="lambda: 0.5, normalize: true"), TaskArithmetic((1, 2), 0.5, True)),
        (delta("ties"), TiesPerTensor(1.0, (1, 2), 1.0, normalize=True)),
        (delta("ties", ", density: 0.5", "normalize: false, int8_mask: true"), TiesPerTensor(0.5, (1, 2), 1.0, normalize=False)),
        (delta("dare_linear", ", density: 0.5"), DareLinear(0.5, (1, 2))),
        (delta("dare_ties", ", density: 0.5", "rescale: false"), DareTies(0.5, (1, 2), normalize=False, rescale=False)),
        (delta("breadcrumbs", ", density: 0.5, gamma: 0.1"), Breadcrumbs(0.5, 0.1, (1, 2))),
        (delta("della", ", density: 0.5, epsilon: 0.1"), Della(0.5, 0.2, (1, 2), normalize=True)),
        ("merge_method: sce\nbase_model: base\nmodels: [{model: a}, {model: b}]\nparameters: {select_topk: 0.5}\n", Sce(0.5)),
        ("merge_method: model_stock\nbase_model: base\nmodels: [{model: base}, {model: a}, {model: b}]\n", ModelStock()),
        ("merge_method: karcher\nmodels: [{model: a}, {model: b}]\nparameters: {max_iter: 10, tol: 1.0e-5}\n", Karcher()),
        ("merge_method: nuslerp\n" + MODELS % ("", ""), NuSlerp((1, 2))),
        ("merge_method: multislerp\n" + MODELS % ("", ""), SphericalAverage((1 / 3, 2 / 3))),
        ("merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.3}\n", Slerp(0.3)),
        ("merge_method: passthrough\nmodels: [{model: a+lora}]\n", WeightedAverage((1.0, 0.0))),
    ],
)
def test_each_method_with_mergekits_defaults(asked: Asked, text: str, merger: object) -> None:
    request = asked(text)
    assert request.merger == merger
    assert not {"base"} & {source.checkpoint for source in request.sources}
    request.check()


def test_a_base_among_the_models_is_only_the_base(asked: Asked) -> None:
    request = asked("merge_method: ties\nbase_model: base\nmodels:\n  - model: base\n  - {model: a, parameters: {weight: 1}}\n")
    assert request.names == ("a",)
    assert request.base is not None
    assert request.base.checkpoint == "base"


def test_where_nothing_is_measured_from_it_base_model_says_whose_files_are_taken(asked: Asked) -> None:
    request = asked("merge_method: linear\nbase_model: b\n" + MODELS % ("", ""))
    assert (request.base, request.files_from) == (None, "b")


def test_the_same_model_twice_and_models_of_one_name(asked: Asked) -> None:
    models = "[{model: x/m, parameters: {weight: 1}}, {model: x/m, parameters: {weight: 1}}, {model: n, parameters: {weight: 2}}]"
    assert asked(f"merge_method: linear\nmodels: {models}\n").names == ("m (1)", "m (2)", "n")


def test_a_model_may_be_written_as_a_mapping(asked: Asked) -> None:
    model = "{model: {path: org/m, revision: v1}, lora: {path: org/l}}"
    request = asked(
        f"merge_method: linear\nmodels: [{{model: {model}, parameters: {{weight: 1}}}}, {{model: b, parameters: {{weight: 1}}}}]\n"
    )
    assert request.sources[0].checkpoint == "org/m@v1+org/l"


def test_several_slices_that_take_all_layers_in_order(asked: Asked) -> None:
    one = "{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]}"
    two = "{sources: [{model: a, layer_range: [2, 5]}, {model: b, layer_range: [2, 5]}]}"
    request = asked(f"merge_method: linear\nslices: [{one}, {two}]\nparameters: {{weight: 1}}\n")
    assert (request.layers, request.merger) == ((0, 5), WeightedAverage((0.5, 0.5)))


@pytest.mark.parametrize(
    ("lines", "dtype"),
    [("", None), ("dtype: float32\n", "F32"), ("dtype: float32\nout_dtype: bfloat16\n", "BF16"), ("out_dtype: float16\n", "F16")],
)
def test_the_dtype_that_is_written(asked: Asked, lines: str, dtype: str | None) -> None:
    assert asked("merge_method: linear\n" + MODELS % ("", "") + lines).dtype == dtype  # measured


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("tokenizer_source: union\n", "union"),
        ("tokenizer_source: base\n", "base"),
        ("tokenizer_source: b\n", "b"),
        ("tokenizer: {source: a}\n", "a"),
    ],
)
def test_whose_tokenizer_is_taken(asked: Asked, lines: str, wanted: str) -> None:
    assert asked(delta("task_arithmetic") + lines).tokenizer_source == wanted
    assert asked(delta("task_arithmetic") + "tokenizer: {pad_to_multiple_of: 64}\n").pad_to_multiple_of == 64


def test_differences_that_apply_are_told(asked: Asked) -> None:
    assert asked(delta("task_arithmetic")).notes == ()
    assert asked(delta("dare_linear")).notes == ()  # density 1: nothing is dropped
    told = asked(delta("dare_linear", ", density: 0.5")).notes
    assert all(note.startswith("unlike mergekit: ") for note in told)
    assert [word for word in ("drawn anew", "L1 norms") if any(word in note for note in told)] == ["drawn anew", "L1 norms"]
    assert len(asked(delta("dare_linear", ", density: 0.5", "rescale: false")).notes) == 1
    assert "bfloat16" in asked(delta("task_arithmetic") + "dtype: bfloat16\n").notes[-1]


def test_every_note_and_default_belongs_to_a_field_of_ours() -> None:
    from pipeline.config.merge_values import knobs_of

    for name, method in MERGEKIT.items():
        ours = {option.ours for option in (*method.each.values(), *method.whole.values()) if option.ours}
        assert ours <= knobs_of(method.ours).keys(), name


def test_passthrough_of_two_models_would_drop_one(asked: Asked) -> None:
    with pytest.raises(ConfigError, match="passthrough takes one model as it is, got 2"):
        asked("merge_method: passthrough\nmodels: [{model: a}, {model: b}]\n")
