"""The relative-position table: which row each pair of tokens reads, and its rows for another image size."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.modality_experts.positions import (
    RelativePositions,
    image_index,
    image_rows,
    pair_index,
    resized,
    table_rows,
    text_index,
    window_of,
)
from models.modality_experts.tiny import digits_config


@pytest.mark.parametrize(("image", "rows"), [(224, 1126), (384, 2606), (480, 3878)])
def test_the_table_is_as_long_as_the_published_one(image: int, rows: int) -> None:
    assert table_rows(image // 16) == rows
    assert window_of(torch.empty(rows, 0)) == image // 16


@settings(max_examples=20, deadline=None)
@given(window=st.integers(1, 6), length=st.integers(2, 20))
def test_rows_by_the_definition(window: int, length: int) -> None:
    index = pair_index(length, window).tolist()
    offsets, side = image_rows(window), 2 * window - 1
    for i in range(length + 1 + window**2):
        for j in range(length + 1 + window**2):
            if i < length and j < length:
                row = offsets + 3 + 2 + j - i + 194 if i and j else offsets + 3 + 2 + 389 + (0 if j else 1 if i else 2)
            elif i < length or j < length:
                row = offsets + 3 + (0 if i < length else 1)
            else:
                a, b = i - length - 1, j - length - 1
                down, across = a // window - b // window + window - 1, a % window - b % window + window - 1
                row = down * side + across if a >= 0 and b >= 0 else offsets + (0 if b >= 0 else 1 if a >= 0 else 2)
            assert index[i][j] == row


def test_the_longest_text_has_a_row_for_every_offset() -> None:
    index = text_index(196, 14)
    assert index[1:, 1:].min() == 27**2 + 5
    assert index.max() == table_rows(14) - 1
    assert len(index.unique()) == 389 + 3


def test_each_layer_reads_its_own_columns() -> None:
    positions = RelativePositions(digits_config())
    with torch.no_grad():
        positions.table.copy_(torch.randn(positions.table.shape))
    biases = positions(range(1, 3), text=5, image=True)
    assert [tuple(bias.shape) for bias in biases] == [(1, 4, 22, 22)] * 2
    index = pair_index(5, 4)
    for layer, bias in zip((1, 2), biases, strict=True):
        for head in range(4):
            assert torch.equal(bias[0, head], positions.table[:, layer * 4 + head][index])
    assert torch.equal(positions(range(1, 3), image=True)[0][0, 0], positions.table[:, 4][image_index(4)])


def test_resizing_keeps_all_but_the_patch_offsets() -> None:
    table = torch.randn(table_rows(4), 8)
    assert resized(table, 4) is table or torch.equal(resized(table, 4), table)
    made = resized(table, 6)
    assert made.shape == (table_rows(6), 8)
    assert torch.equal(made[image_rows(6) :], table[image_rows(4) :])


def cubic(old: int, new: int) -> torch.Tensor:
    """Weights [new, old] of Keys's cubic convolution with a = -0.75, borders repeated, pixels aligned by area; in float64."""
    a = -0.75
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - j)
            near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
            weights[i, min(max(j, 0), old - 1)] += near if x <= 1 else far
    return weights


@pytest.mark.parametrize("new", [4, 10])
def test_resizing_is_cubic_convolution(new: int) -> None:
    table = torch.randn(table_rows(7), 2)
    made = resized(table, new)[: image_rows(new)].view(2 * new - 1, 2 * new - 1, 2)
    weights, rows = cubic(13, 2 * new - 1), table[: image_rows(7)].view(13, 13, 2).double()
    for column in range(2):
        assert (made[..., column] - weights @ rows[..., column] @ weights.T).abs().max() < 1e-5  # 16 float32 terms of order one
