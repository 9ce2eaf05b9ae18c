"""What a mergekit file asks for that cannot be had, named with its line; and mergekit's files merged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import ended
from small_merges import LAYERS, load, save_random

from foundation.errors import ConfigError
from pipeline.config.merge_request import MergeRequest
from pipeline.config.merge_source import request_from_file

Asked = Callable[..., MergeRequest]
MODELS = "models:\n  - {model: a, parameters: {weight: 1%s}}\n  - {model: b, parameters: {weight: 2%s}}\n"


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """The request of a file with this text."""

    def read(text: str) -> MergeRequest:
        (tmp_path / "m.yml").write_text(text)
        return request_from_file(tmp_path / "m.yml")

    return read


def delta(method: str, own: str = "", whole: str = "") -> str:
    """A file of a method that works from a base."""
    return f"merge_method: {method}\nbase_model: base\n{MODELS % (own, own)}{f'parameters: {{{whole}}}' if whole else ''}\n"


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (delta("dare-ties"), "m.yml:1: unknown merge_method 'dare-ties'; did you mean 'dare_ties'?"),
        (delta("nearswap"), "m.yml:1: mergekit's nearswap is not among the methods here: use slerp"),
        (delta("ties") + "dytpe: float32\n", "m.yml:7: unknown key 'dytpe'; did you mean 'dtype'?"),
        (delta("ties") + "dtype: bf16\n", "m.yml:7: unknown dtype 'bf16'; did you mean 'bfloat16'?"),
        (delta("ties") + "chat_template: auto\n", "m.yml:7: chat_template: the output takes the chat template of its base"),
        ("merge_method: linear\nmodules: {}\n", "m.yml:2: modules: a model is merged as a whole here"),
        (delta("ties", ", denstiy: 0.5"), "m.yml:4: unknown parameter of ties 'denstiy'; did you mean 'density'?"),
        (delta("task_arithmetic", ", density: 0.5"), "m.yml:4: density has no part in task_arithmetic, only in ties, "),
        (delta("ties", ", lambda: 2"), "m.yml:4: lambda belongs to the whole merge, at a model it would not count; move it to"),
        (delta("ties", whole="rescale: true"), "m.yml:6: ties with rescale: true is not among the methods here; remove this line"),
        (delta("ties", whole="normalize: maybe"), "m.yml:6: normalize is the text 'maybe'; give true or false"),
        (delta("ties", ", density: high"), "m.yml:4: density is the text 'high'; give a number"),
        (delta("ties", ", density: [{filter: mlp}]"), "m.yml:4: no value stands beside this filter"),
        (delta("ties", ", density: [{fliter: mlp, value: 1}]"), "m.yml:4: unknown key 'fliter'; did you mean 'filter'?"),
        (delta("ties", ", density: [{value: 1}, {filter: x, value: 2}]"), "m.yml:4: density: nothing after a value without filter counts"),
        (delta("ties", ", density: [{filter: 3, value: 1}]"), "m.yml:4: filter is 3; give a part of tensor names"),
        (
            "merge_method: ties\nbase_model: x\nmodels:\n  - model: a\n",
            "m.yml:4: ties needs weight here; add e.g. parameters:",
        ),
        ("merge_method: ties\n" + MODELS % ("", ""), "m.yml:1: ties needs a base_model"),
        ("merge_method: linear\nbase_model: c\n" + MODELS % ("", ""), "m.yml:2: linear measures nothing from a base, and 'c' is not among"),
        (
            "merge_method: slerp\nbase_model: c\nparameters: {t: 0.5}\nmodels: [{model: a}, {model: b}]\n",
            "m.yml:1: slerp merges base_model with",
        ),
        ("merge_method: linear\n", "m.yml:1: a merge lists either models or slices"),
        ("merge_method: linear\nmodels: []\n", "m.yml:2: models is []; give a list of at least one"),
        ("merge_method: linear\nmodels: [{mdoel: a}]\n", "m.yml:2: unknown key 'mdoel'; did you mean 'model'?"),
        ("merge_method: linear\nmodels: [{parameters: {weight: 1}}]\n", "m.yml:2: no model is named here"),
        ("merge_method: linear\nmodels: [{model: {path: a, revison: b}}]\n", "m.yml:2: unknown key 'path'; Known: lora, model"),
        ("merge_method: linear\nparameters: {weight: -1}\nmodels: [{model: a}, {model: b}]\n", "m.yml:2: the weights sum to -2"),
        (
            delta("ties") + "tokenizer: {source: base, tokens: {x: {source: a}}}\n",
            "m.yml:7: rows of tokens are taken as the sources",
        ),
        (delta("ties") + "tokenizer: {pad_to_multiple_of: 6.4}\n", "m.yml:7: pad_to_multiple_of is 6.4; give a whole number"),
        (delta("ties") + "tokenizer_source: c\n", "m.yml:7: tokenizer source: 'c' is neither the base nor among the models"),
        (delta("ties") + "tokenizer_source: a\ntokenizer: {source: a}\n", "m.yml:7: tokenizer and tokenizer_source say the same thing"),
    ],
)
def test_what_cannot_be_had_is_named_with_its_line(asked: Asked, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        asked(text)
    assert message in str(told.value).replace(str(told.value).partition("m.yml")[0], "", 1)


RANGED = "merge_method: linear\nparameters: {weight: 1}\nslices:\n"


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (
            "  - sources: [{model: a, layer_range: [0, 5]}, {model: b, layer_range: [0, 4]}]\n",
            "m.yml:4: layer_range is [0, 4] here, [0, 5] for the first source; layers are merged each with its like",
        ),
        ("  - sources: [{model: a, layer_range: [1, 5]}]\n", "m.yml:4: layer_range is [1, 5], but layer 0 comes next"),
        (
            "  - sources: [{model: a, layer_range: [0, 3]}]\n  - sources: [{model: a, layer_range: [2, 5]}]\n",
            "m.yml:5: layer_range is [2, 5], but layer 3 comes next",
        ),
        (
            "  - sources: [{model: a, layer_range: [0, 3]}]\n  - sources: [{model: b, layer_range: [3, 5]}]\n",
            "m.yml:5: this slice takes other models than the first",
        ),
        ("  - sources: [{model: a, layer_range: 5}]\n", "m.yml:4: layer_range is 5; give the first layer and the one after the last"),
        ("  - sources: [{model: a}]\n", "m.yml:4: layer_range has no value"),
        ("  - {base_model: x, sources: [{model: a, layer_range: [0, 5]}]}\n", "m.yml:4: a slice cannot have a base of its own here"),
        (
            "  - {sources: [{model: a, layer_range: [0, 3]}], parameters: {weight: 2}}\n  - sources: [{model: a, layer_range: [3, 5]}]\n",
            "m.yml:4: parameters of its own cannot be had for one of several slices",
        ),
    ],
)
def test_layer_surgery_is_refused(asked: Asked, slices: str, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        asked(RANGED + slices)
    assert message in str(told.value)


def test_a_gradient_over_several_slices_is_refused(asked: Asked) -> None:
    slices = "  - sources: [{model: a, layer_range: [0, 3]}]\n  - sources: [{model: a, layer_range: [3, 5]}]\n"
    with pytest.raises(ConfigError, match=r"m.yml:2: mergekit begins a gradient anew in each of several slices"):
        asked(RANGED.replace("weight: 1", "weight: [0, 1]") + slices)


# The command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with checkpoints base, a, b."""
    for seed, name in enumerate(("base", "a", "b")):
        save_random(tmp_path / name, seed, torch.bfloat16)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_mergekit_file_is_merged_unchanged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "m.yml").write_text(
        """\
models:
  - model: ./base
  - model: ./a
    parameters: {weight: [0, 1]}
  - model: ./b
    parameters: {weight: [{filter: mlp, value: -1}, {value: 0}]}
merge_method: task_arithmetic
base_model: ./base
parameters: {lambda: 2, int8_mask: true}
dtype: float32
out_dtype: bfloat16
"""
    )
    told = ended(capsys, "merge", "--config", "m.yml", "out")
    assert told.code == 0, told.said
    base, a, b = (load(here / name) for name in ("base", "a", "b"))
    for name, found in load(here / "out").items():
        depth = int(name.split(".")[2]) / (LAYERS - 1) if ".layers." in name else 0.0
        exact = 2 * (depth * (a[name].double() - base[name].double()) - (".mlp." in name) * (b[name].double() - base[name].double()))
        assert found.dtype == torch.bfloat16
        # One rounding to bfloat16 (2^-9 of the value) after float32 sums.
        torch.testing.assert_close(found.double(), base[name].double() + exact, rtol=2**-8, atol=1e-5)
    assert "m.yml: valid; task_arithmetic of ./a, ./b, base ./base" in ended(capsys, "validate", "m.yml").out
    assert "source 'a': task vector times 0 or task vector times 2, by tensor" in ended(capsys, "plan", "m.yml").out


def test_a_filter_that_matches_nothing_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "m.yml").write_text(
        "merge_method: slerp\nbase_model: ./a\nmodels: [{model: ./a}, {model: ./b}]\n"
        "parameters: {t: [{filter: self_atn, value: 1}, {value: 0}]}\n"
    )
    told = ended(capsys, "merge", "--config", "m.yml", "out")
    assert told.code == 2
    assert "'*self_atn*' matches none of 12 tensors; did you mean 'self_attn'?" in told.err


def test_slices_that_do_not_take_all_layers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = "[{model: ./a, layer_range: [0, 2]}, {model: ./b, layer_range: [0, 2]}]"
    (here / "m.yml").write_text(f"merge_method: linear\nslices: [{{sources: {models}}}]\nparameters: {{weight: 1}}\n")
    told = ended(capsys, "merge", "--config", "m.yml", "out")
    assert told.code == 2
    assert "the slices take layers 0 to 2, source 'a' has 3" in told.err
    assert not (here / "out").exists()


def test_passthrough_copies_a_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "m.yml").write_text("merge_method: passthrough\nmodels: [{model: ./a}]\ndtype: bfloat16\n")
    assert ended(capsys, "merge", "--config", "m.yml", "out").code == 0
    assert all(torch.equal(tensor, load(here / "a")[name]) for name, tensor in load(here / "out").items())
