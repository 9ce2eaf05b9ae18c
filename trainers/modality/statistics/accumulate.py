"""Sums of x x^T for the inputs of linear layers, gathered by hooks while a model runs.

A Gram is symmetric, so only its upper triangle is computed and kept, in pieces: half against half is one matrix product, and the two
triangles beside it are halved again down to LEAF columns: 52 to 56 % of the whole's products (what BLAS calls a symmetric rank-k
update). The products of one batch of tokens are added up in float32 or float64 (`Products`) by one matrix product, and that is added to a
float64 sum, in the order of the batches.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from models.modality_experts.config import Expert
from models.modality_experts.model import ModalityExpertsModel
from trainers.modality.statistics.sums import Sums

LEAF = 128
"""The widest triangle that is computed whole: wide enough for fast products. Part of the algorithm."""

LINEAR = ("qkv", "proj", "fc1", "fc2")
"""The modules whose inputs are measured, by the last component of their names."""


Piece = tuple[int, int, int, int]
"""Rows and columns of a matrix: from row, to row, from column, to column."""


@cache
def pieces(begin: int, end: int) -> tuple[Piece, ...]:
    """What the upper triangle of rows and columns `begin` to `end` is cut into; the triangles on the diagonal are whole squares."""
    if end - begin <= LEAF:
        return ((begin, end, begin, end),)
    middle = begin + (end - begin + 1) // 2
    return (*pieces(begin, middle), (begin, middle, middle, end), *pieces(middle, end))


class GramSum:
    """The sum of x x^T over rows x of width `size`, the pieces of its upper triangle in float64, and how many rows there were."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.pieces = pieces(0, size)
        self.sums = [torch.zeros(to - at, stop - start, dtype=torch.float64, device=device) for at, to, start, stop in self.pieces]
        self.tokens = 0

    def add(self, rows: Tensor) -> None:
        """Add rows [N, size], whose products are taken in their dtype."""
        for (at, to, start, stop), summed in zip(self.pieces, self.sums, strict=True):
            summed += rows[:, at:to].T @ rows[:, start:stop]
        self.tokens += len(rows)

    def named(self, weight: str) -> dict[str, Tensor]:
        """The pieces on the CPU, by "weight@row,column" of their first element."""
        return {f"{weight}@{at},{start}": summed.cpu() for (at, _, start, _), summed in zip(self.pieces, self.sums, strict=True)}


class Collector:
    """Adds up what enters the encoder's linear layers while `counting` is on.

    With it, the caller says which of a batch's tokens count: for modules of an expert and for shared ones, since where text and image run
    joined each expert sees its own run of the tokens and a shared module sees all.
    """

    def __init__(self, model: ModalityExpertsModel, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.device = device
        self.dtype = dtype
        self.sums: dict[str, GramSum] = {}
        self.chosen: dict[str, Tensor | None] | None = None
        found = [(name, module) for name, module in model.named_modules() if name.startswith("encoder.") and name.split(".")[-1] in LINEAR]
        self.handles = [module.register_forward_pre_hook(self._hook(name)) for name, module in found]

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self.handles:
            handle.remove()

    @contextmanager
    def counting(self, shared: Tensor | None, text: Tensor | None, image: Tensor | None) -> Iterator[None]:
        """Count while this lasts. Each is [B, N] bool over the tokens that a shared, an L and a V module sees; None: all of them."""
        self.chosen = {Expert.LANGUAGE.value: places(text), Expert.VISION.value: places(image), "": places(shared)}
        try:
            yield
        finally:
            self.chosen = None

    def total(self) -> Sums:
        """What has been added up, on the CPU: pieces by weight and place, tokens by weight."""
        values = {place: piece for name, found in self.sums.items() for place, piece in found.named(name).items()}
        return Sums(values, {name: found.tokens for name, found in self.sums.items()})

    def _hook(self, module_name: str) -> Any:
        weight, expert = f"{module_name}.weight", module_name.split(".")[-2]

        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if self.chosen is None:
                return
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            chosen = self.chosen[expert if expert in self.chosen else ""]
            if chosen is not None:
                rows = rows.index_select(0, chosen)
            if weight not in self.sums:
                self.sums[weight] = GramSum(rows.shape[-1], self.device)
            self.sums[weight].add(rows.to(self.dtype))

        return add


def places(chosen: Tensor | None) -> Tensor | None:
    """The numbers of the rows that are chosen, None for all."""
    return None if chosen is None else chosen.flatten().nonzero()[:, 0]


def grams(sums: Sums, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The mean of x x^T per token for each weight, [in, in], exactly symmetric. Takes the pieces out of `sums` as it goes."""
    found: dict[str, dict[tuple[int, int], Tensor]] = {}
    for place in list(sums.values):
        name, first = place.rsplit("@", 1)
        row, column = map(int, first.split(","))
        found.setdefault(name, {})[row, column] = sums.values.pop(place)
    return {name: whole(found.pop(name)).div_(max(1, sums.counts[name])).to(dtype) for name in sorted(found)}


def whole(pieces: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """The matrix of which these are the upper triangle, float64; the half below is the half above, to the bit."""
    size = max(column + piece.shape[1] for (_, column), piece in pieces.items())
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for (row, column), piece in pieces.items():
        matrix[row : row + piece.shape[0], column : column + piece.shape[1]] = piece
    above = matrix.triu_(1).T.clone()
    diagonals = {row: piece.diagonal() for (row, column), piece in pieces.items() if row == column}
    matrix += above
    matrix.diagonal().copy_(torch.cat([diagonals[row] for row in sorted(diagonals)]))
    return matrix
