"""Comparing checkpoints element by element, and knowing where a method had a choice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.agreement import compare
from benchmarks.checkpoints import Shape, make_models
from benchmarks.choices import at_edges, drawn, kept
from benchmarks.planning import balance

SMALL = Shape(hidden=32, layers=1, heads=4, kv_heads=2, intermediate=64, vocabulary=50)
NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_one_last_place_of_one_element(tmp_path: Path, dtype: str) -> None:
    first = make_models(tmp_path / "one", SMALL, dtype, models=["base"])[0]
    second = make_models(tmp_path / "two", SMALL, dtype, models=["base"])[0]
    same = compare(first, second)
    assert (same.equal, same.steps, same.relative, same.beyond) == (1, 0, 0, 0)

    tensors = load_file(second / "model.safetensors")
    flat = tensors[NAME].view(-1)
    place = int(flat.abs().argmax())  # where float32 sums are exact to less than a last place of bfloat16
    flat.view(torch.int16 if dtype == "BF16" else torch.int32)[place] += 3
    save_file(tensors, second / "model.safetensors")
    found = compare(first, second)
    assert found.where == NAME
    assert found.equal == 1 - 1 / found.elements
    if dtype == "BF16":
        assert 2.9 < found.steps <= 3
        assert found.beyond == 1 / found.elements
        assert 3 * 2**-8 < found.relative < 3 * 2**-7  # a last place is 2^-8 to 2^-7 of the value
    else:
        assert found.steps == 0  # three last places of float32 are within what sums may differ by
        assert found.relative > 0


def test_nan_is_infinitely_far(tmp_path: Path) -> None:
    first = make_models(tmp_path / "one", SMALL, models=["base"])[0]
    second = make_models(tmp_path / "two", SMALL, models=["base"])[0]
    tensors = load_file(second / "model.safetensors")
    tensors[NAME][0, 0] = float("nan")
    save_file(tensors, second / "model.safetensors")
    assert compare(first, second).beyond > 0


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    first = make_models(tmp_path / "one", SMALL, models=["base"])[0]
    second = make_models(tmp_path / "two", SMALL, "F32", models=["base"])[0]
    with pytest.raises(ValueError, match="do not hold the same tensors"):
        compare(first, second)


def test_elements_with_an_excuse_are_counted_apart(tmp_path: Path) -> None:
    first = make_models(tmp_path / "one", SMALL, models=["base"])[0]
    second = make_models(tmp_path / "two", SMALL, models=["base"])[0]
    tensors = load_file(second / "model.safetensors")
    tensors[NAME][0, :2] += 1
    save_file(tensors, second / "model.safetensors")

    def first_element(name: str) -> np.ndarray:
        return np.arange(tensors[name].numel()) == 0

    found = compare(first, second, first_element)
    assert found.excused == found.beyond == 1 / found.elements
    assert found.equal == 1 - 2 / found.elements


def test_balance_of_workers() -> None:
    assert balance([10, 10, 10, 10], 2) == 1
    assert balance([10, 10, 10], 2) == pytest.approx(4 / 3)


def test_where_a_sparse_method_must_choose() -> None:
    delta = np.array([4.0, -3.0, 3.0, 2.0, -1.0, 1.0, 0.5, 0.0])
    assert at_edges([delta], 0.25).tolist() == [
        False,
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]  # 4 is kept, one of the threes with it
    assert kept(delta, 0.25).tolist() == [4, -3, 3, 0, 0, 0, 0, 0]
    assert at_edges([delta], 0.5, outliers=0.125).tolist() == [False, True, True, False, True, True, False, False]
    assert drawn([np.array([0.25, 1]), np.array([-0.5, 1])], (1.0, 0.5)).tolist() == [True, False]
