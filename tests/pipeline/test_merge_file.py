"""Our merge file: what it asks for, and what is refused with which line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from small_merges import MERGE

from foundation.errors import ConfigError
from mergers import MERGERS
from mergers.methods.ties import Ties, TiesPerTensor
from mergers.schedule import Schedule, Scheduled
from mergers.sources.views import Prefix
from pipeline.config.merge_request import MergeRequest
from pipeline.config.merge_source import request_from_file
from pipeline.config.merge_values import Varies, knobs_of


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., MergeRequest]:
    """The request of a file with this text."""

    def read(text: str, *overrides: str) -> MergeRequest:
        (tmp_path / "m.yaml").write_text(text)
        return request_from_file(tmp_path / "m.yaml", overrides)

    return read


Asked = Callable[..., MergeRequest]


# What a file asks for


def test_a_file(asked: Asked) -> None:
    request = asked(MERGE + "max_shard_size: 1.5 GB\ndtype: bfloat16\npartial: true\nallow_pickle: true\nfiles_from: math\n")
    assert request.merger == Ties(density=0.2, scale=1.5)
    assert [(source.name, source.checkpoint) for source in request.sources] == [("math", "a"), ("code", "b")]
    assert request.base is not None
    assert request.base.checkpoint == "base"
    assert (request.max_shard_size, request.dtype, request.partial, request.allow_pickle) == (1_500_000_000, "BF16", True, True)
    assert (request.files_from, request.allow_nonfinite) == ("math", False)


def test_hyperparameters_may_stand_in_a_group_of_their_own(asked: Asked) -> None:
    text = MERGE.replace("density: 0.2\nscale: 1.5\n", "parameters: {density: 0.2, scale: 1.5, normalize: false}\n")
    assert asked(text).merger == Ties(density=0.2, scale=1.5, normalize=False)


def test_per_tensor_and_per_source(asked: Asked) -> None:
    text = MERGE.replace("ties", "ties_per_tensor").replace("scale: 1.5", 'scale: {"*.mlp.*": [0, 1], "*": 0.5}')
    text = text.replace("math: a", "math: {checkpoint: a, weight: 1}").replace("checkpoint: b", "checkpoint: b, weight: [0, 0.5, 1]")
    merger = asked(text).merger
    assert isinstance(merger, Scheduled)
    assert dict(merger.parameters) == {
        "weights": (1.0, Schedule((("*", (0.0, 0.5, 1.0)),))),
        "scale": Schedule((("*.mlp.*", (0.0, 1.0)), ("*", 0.5))),
    }
    assert isinstance(merger.method, TiesPerTensor)
    assert merger.method.density == 0.2


def test_weights_as_one_list(asked: Asked) -> None:
    assert asked(MERGE + "weights: [1, 2]\n").merger == Ties(density=0.2, scale=1.5, weights=(1.0, 2.0))
    merger = asked(MERGE.replace("method: ties", "method: ties_per_tensor") + "weights: [1, {'*.mlp.*': 0, '*': 2}]\n").merger
    assert isinstance(merger, Scheduled)
    assert dict(merger.parameters)["weights"] == (1.0, Schedule((("*.mlp.*", 0.0), ("*", 2.0))))


def test_views_and_statistics(asked: Asked) -> None:
    view = '{prefix: {"model.": "model.language_model."}}'
    text = f"method: fisher\nsources:\n  a: {{checkpoint: a, statistics: f.safetensors}}\n  b: {{checkpoint: b, view: {view}}}\n"
    request = asked(text)
    assert [source.statistics for source in request.sources] == ["f.safetensors", None]
    assert request.sources[1].view == Prefix((("model.", "model.language_model."),))


def test_values_can_be_laid_over_a_file(asked: Asked) -> None:
    request = asked(MERGE, "density=0.4", "sources.code.weight=2", "sources.math={checkpoint: a, weight: 3}")
    assert request.merger == Ties(density=0.4, scale=1.5, weights=(3.0, 2.0))


@pytest.mark.parametrize("method", sorted(MERGERS))
def test_every_method_can_be_asked_for(asked: Asked, method: str) -> None:
    knobs = knobs_of(method).values()
    own = "".join(f"{knob.name}: 0.4\n" for knob in knobs if knob.required)
    names = ("previous", "tuned") if method == "wise_ft" else ("a", "b")
    request = asked(f"method: {method}\nbase: base\nsources: {{{names[0]}: a, {names[1]}: b}}\n{own}")
    assert type(request.merger) is MERGERS[method]
    request.check()
    assert {knob.name for knob in knobs if knob.varies is Varies.SOURCES} <= {"weights", "density", "outliers", "spread"}


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method: ties", "method: teis", "m.yaml:1: unknown merge method 'teis'; did you mean 'ties'?"),
        ("method: ties", "mehtod: ties", "m.yaml:1: no method is named; did you mean 'method' by 'mehtod'?"),
        ("method: ties", "recipe: wise_ft", "m.yaml:1: this is an experiment, not a merge; python -m pipeline run"),
        ("method: ties", "method: ties\nmerge_method: ties", "m.yaml:2: the file names method (a merge file of ours) and merge_method"),
        ("density: 0.2", "denisty: 0.2", "m.yaml:6: unknown key 'denisty'; did you mean 'density'? Known here: allow_nonfinite,"),
        ("{checkpoint: b}", "{checkpoint: b, wieght: 1}", "m.yaml:5: unknown key 'sources.code.wieght'; did you mean 'weight'?"),
        ("density: 0.2", "statistics: x", "m.yaml:6: unknown key 'statistics'; it belongs under 'sources.<name>'."),
        ("scale: 1.5", "parameters: {sclae: 1}", "m.yaml:7: unknown key 'parameters.sclae'; did you mean 'scale'?"),
        ("scale: 1.5", "parameters: {density: 1}", "m.yaml:7: density stands here and at"),
        ("density: 0.2", "density: low", "m.yaml:6: density is the text 'low'; give a number, a list of numbers"),
        ("density: 0.2", "density: '0.2'", "m.yaml:6: density is the text '0.2'; give a number, without quotes: 0.2"),
        ("density: 0.2", "density: true", "m.yaml:6: density is true; give a number"),
        ("density: 0.2", "density:", "m.yaml:6: density has no value; give a number"),
        ("density: 0.2", "density: []", "m.yaml:6: density is []; give a number"),
        ("density: 0.2", "density: {}", "m.yaml:6: a schedule needs rules such as"),
        ("density: 0.2", "density:\n  '*.mlp.*': 0.1\n  '*': half", "m.yaml:8: * is the text 'half'; give a number"),
        ("scale: 1.5", "normalize: 1", "m.yaml:7: normalize is 1; give true or false"),
        ("scale: 1.5", "normalize: {'*': true}", "m.yaml:7: normalize is {'*': True}; give true or false"),
        ("scale: 1.5", "dtype: bf16", "m.yaml:7: dtype: unknown value 'bf16'; did you mean 'bfloat16'?"),
        ("scale: 1.5", "max_shard_size: 5 gigs", "m.yaml:7: max_shard_size is the text '5 gigs'; give bytes, e.g. 5GB"),
        ("scale: 1.5", "partial: yes", "m.yaml:7: partial is the text 'yes'; give true or false"),
        ("scale: 1.5", "files_from:", "m.yaml:7: files_from has no value; give text"),
        ("base: base", "base: [base]", "m.yaml:2: base is ['base']; give a checkpoint (a path or hub id)"),
        ("base: base", "base: {chekpoint: base}", "m.yaml:2: unknown key 'base.chekpoint'; did you mean 'checkpoint'?"),
        ("math: a", "math:", "m.yaml:4: sources.math has no value; give a checkpoint"),
        ("math: a", "math: {weight: 1}", "m.yaml:4: the key 'sources.math.checkpoint' is missing"),
        ("math: a", "math: {checkpoint: a, weight: 1}", "m.yaml:5: source 'code' has no weight, but 'math' has; give each source one"),
        ("scale: 1.5", "weights: [1]", "m.yaml:7: 1 weights for 2 checkpoints (math, code); give one for each"),
        ("scale: 1.5", "weights: 1", "m.yaml:7: weights is 1; give a list, one for each of math, code"),
        ("{checkpoint: b}", "{checkpoint: b, view: langauge_model}", "m.yaml:5: sources.code.view: unknown view 'langauge_model'"),
        ("  math: a\n  code: {checkpoint: b}\n", "  {}\n", "m.yaml:3: sources is {}; name at least 1"),
    ],
)
def test_a_mistake_is_named_with_its_line(asked: Asked, old: str, new: str, message: str) -> None:
    assert MERGE.count(old) == 1
    with pytest.raises(ConfigError) as told:
        asked(MERGE.replace(old, new))
    assert message in str(told.value).replace(str(told.value).partition("m.yaml")[0], "", 1)


def test_a_method_that_needs_a_value(asked: Asked) -> None:
    with pytest.raises(ConfigError, match=r"m.yaml:1: dare_linear needs density; add it, e.g. density: 0.5"):
        asked("method: dare_linear\nbase: base\nsources: {a: a, b: b}\n")


# What the documentation says


DOCUMENT = (Path(__file__).parents[2] / "docs" / "merging.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL))
def test_the_files_in_the_documentation_are_valid(asked: Asked, text: str) -> None:
    asked(text).check()


def test_the_documentation_names_every_method_with_its_keys() -> None:
    rows = {cells[0].strip(" `"): cells[2] for line in DOCUMENT.splitlines() if len(cells := line.strip("|").split("|")) == 4}
    for method in MERGERS:
        keys = rows[method] if "as `" not in rows[method] else rows[method] + rows[rows[method].split("as `")[1].split("`")[0]]
        assert all(f"`{name}`" in keys for name in knobs_of(method)), method
