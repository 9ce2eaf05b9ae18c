"""Nearest neighbours between two sets of features, in blocks of bounded memory: at which rank the first right answer stands.

Scores are float64 products of float32 features, rounded to float32, so the size of a block and the order of a sum do not show in them
(but where a product lies within 1e-16 of the middle between two float32 values).
**Ties are broken against the model**: a wrong candidate that scores the same as a right one stands before it, so a model that gives the
same features to everything finds nothing. Knows nothing of images or texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 22
"""Scores that are looked at together: 32 MiB of them in float64, and a few times that while they are ordered."""

INDEX = (1 << 31) - 1
"""The highest index a candidate can have."""


@dataclass(frozen=True)
class Ranking:
    """Of every query: the rank of its first right candidate, 1 the best, and the index of whatever stands first; both [Q] int64."""

    rank: Tensor
    first: Tensor


def ranking(scores: Tensor, right: Tensor, weights: Tensor) -> Ranking:
    """Where the first right candidate of each query stands.

    `scores` [Q, C]; `right` [Q, C] bool; `weights` [C] or [Q, C] int64, how many candidates a column stands for. The rank is one more than
    the weight of the wrong candidates that score at least as much as the best right one; without a right one, one more than all.
    Among equals the lower index is `first`, wrong ones before right ones.
    """
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    before = ~right & (scores >= best)
    rank = 1 + (before * weights).sum(1)
    leading = torch.where((rank > 1)[:, None], ~right, right)
    return Ranking(rank, scores.masked_fill(~leading, -torch.inf).argmax(1))


def rank_all(queries: Tensor, candidates: Tensor, right: Sequence[Sequence[int]], weights: Tensor | None = None) -> Ranking:
    """The ranking of every query among all candidates by the product of their features.

    `queries` [Q, H] and `candidates` [C, H] float32; `right[q]`: the candidates that answer query q, at least one; `weights` [C] int64
    (None: all 1). Memory: the features once more in float64, and a block.
    """
    counts = torch.ones(len(candidates), dtype=torch.int64) if weights is None else weights
    parts = [ranking(scores, answers, counts.to(scores.device)) for scores, answers in _blocks(queries, candidates, right)]
    return Ranking(torch.cat([part.rank for part in parts]).cpu(), torch.cat([part.first for part in parts]).cpu())


def nearest_candidates(queries: Tensor, candidates: Tensor, right: Sequence[Sequence[int]], count: int) -> Tensor:
    """The `count` best candidates of every query, best first: [Q, min(count, C)] int64. Arguments as of `rank_all`.

    Among equals the wrong ones come first, then the lower index, so that this agrees with the ranks.
    """
    kept = [_order(scores, answers).topk(min(count, len(candidates)))[0].cpu() for scores, answers in _blocks(queries, candidates, right)]
    return INDEX - torch.cat(kept) % (INDEX + 1)


def rank_again(before: Ranking, chosen: Tensor, scores: Tensor, right: Sequence[Sequence[int]], weights: Tensor) -> Ranking:
    """The ranking after the candidates `chosen` (of `nearest_candidates`, [Q, K]) were ordered anew by `scores` [Q, K].

    They stay before all others, so a query with no right candidate among them keeps its rank. `weights` [C] int64.
    """
    among = torch.tensor([[candidate in wanted for candidate in row] for row, wanted in zip(chosen.tolist(), map(set, right), strict=True)])
    anew = ranking(scores, among, weights[chosen])
    first = chosen.gather(1, anew.first[:, None])[:, 0]
    return Ranking(torch.where(among.any(1), anew.rank, before.rank), first)


def _order(scores: Tensor, right: Tensor) -> Tensor:
    """Integers [B, C] int64, no two of a row equal, that stand as the candidates do: by score, then wrong ones, then the lower index.

    From high to low bits: the score's bits as an integer of the same order, 1 if wrong, INDEX less the index.
    """
    bits = (scores + 0.0).view(torch.int32).long()  # adding 0 makes one zero of two
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (rising << 32) + ((~right).long() << 31) + (INDEX - torch.arange(scores.shape[1], device=scores.device))


def _blocks(queries: Tensor, candidates: Tensor, right: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of queries: scores [B, C] float32, right [B, C] bool, all on the device of the features."""
    rows = max(1, BLOCK_ELEMENTS // len(candidates))
    columns = candidates.double().T
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        answers = torch.zeros(len(block), len(candidates), dtype=torch.bool)
        pairs = [(row, candidate) for row, wanted in enumerate(right[start : start + rows]) for candidate in wanted]
        answers[tuple(torch.tensor(pairs).T)] = True
        yield (block.double() @ columns).float(), answers.to(block.device)
