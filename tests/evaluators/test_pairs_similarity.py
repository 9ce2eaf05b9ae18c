"""Ranks against a sort written naively, ties, re-ranking, and that the size of a block does not show."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.pairs import similarity
from evaluators.pairs.gallery import gallery
from evaluators.pairs.retrieval import retrieve
from evaluators.pairs.similarity import nearest_candidates, rank_again, rank_all, ranking

GRID = [-1.0, -0.5, 0.0, 0.5, 1.0]  # few values: many ties


@st.composite
def asked(draw, weighted: bool = False):
    """A score matrix with ties, what is right for each row, and how many candidates each column stands for."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    scores = torch.tensor(draw(st.lists(st.lists(st.sampled_from(GRID), min_size=columns, max_size=columns), min_size=rows, max_size=rows)))
    right = [sorted(draw(st.sets(st.integers(0, columns - 1), min_size=1))) for _ in range(rows)]
    weights = torch.tensor([draw(st.integers(1, 3)) if weighted else 1 for _ in range(columns)])
    return scores, right, weights


def naive(scores, right, weights) -> list[tuple[int, int]]:
    """(rank, first) of each row, by sorting the candidates: best first, wrong before right among equals, then by index."""
    result = []
    for row, wanted in zip(scores.tolist(), right, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c in wanted, c))
        ahead = order[: next(place for place, candidate in enumerate(order) if candidate in wanted)]
        result.append((1 + sum(int(weights[candidate]) for candidate in ahead), order[0]))
    return result


def one_hot(scores):
    """Features whose products are exactly `scores`."""
    return scores, torch.eye(scores.shape[1])


@given(asked(weighted=True))
@settings(max_examples=150, deadline=None)
def test_ranks_are_those_of_a_sort(drawn) -> None:
    scores, right, weights = drawn
    found = rank_all(*one_hot(scores), right, weights)
    assert list(zip(found.rank.tolist(), found.first.tolist(), strict=True)) == naive(scores, right, weights)


@given(asked(), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_nearest_candidates_agree_with_the_ranks(drawn, count) -> None:
    scores, right, weights = drawn
    chosen = nearest_candidates(*one_hot(scores), right, count).tolist()
    for row, wanted, kept, (rank, first) in zip(scores.tolist(), right, chosen, naive(scores, right, weights), strict=True):
        assert kept == sorted(range(len(row)), key=lambda c: (-row[c], c in wanted, c))[:count]
        assert kept[0] == first
        assert (rank <= count) == bool(set(kept) & set(wanted))


@given(asked(weighted=True), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_ranking_again_is_a_sort_of_the_chosen(drawn, count, random) -> None:
    scores, right, weights = drawn
    before = rank_all(*one_hot(scores), right, weights)
    chosen = nearest_candidates(*one_hot(scores), right, count)
    anew = torch.tensor([[random.choice(GRID) for _ in row] for row in chosen.tolist()])
    after = rank_again(before, chosen, anew, right, weights)
    for row, wanted in enumerate(right):
        kept = chosen[row].tolist()
        order = sorted(range(len(kept)), key=lambda p: (-anew[row, p].item(), kept[p] in wanted, p))
        places = [place for place, at in enumerate(order) if kept[at] in wanted]
        expected = 1 + sum(int(weights[kept[at]]) for at in order[: places[0]]) if places else before.rank[row].item()
        assert after.rank[row] == expected
        assert after.first[row] == kept[order[0]]


def test_block_size_does_not_show(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.nn.functional.normalize(torch.randn(n, 24, generator=generator), dim=1) for n in (37, 53))
    right = [[row % 53, (7 * row) % 53] for row in range(37)]
    whole = rank_all(queries, candidates, right)
    chosen = nearest_candidates(queries, candidates, right, 5)
    for elements in (1, 53, 500):
        monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", elements)
        again = rank_all(queries, candidates, right)
        assert torch.equal(again.rank, whole.rank)
        assert torch.equal(again.first, whole.first)
        assert torch.equal(nearest_candidates(queries, candidates, right, 5), chosen)


def test_a_model_that_sees_no_difference_finds_nothing() -> None:
    features = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    found = rank_all(features, features, [[row] for row in range(8)])
    assert found.rank.tolist() == [8] * 8
    assert found.first.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_rank_without_a_right_candidate_is_past_the_end() -> None:
    found = ranking(torch.tensor([[0.1, 0.3]]), torch.zeros(1, 2, dtype=torch.bool), torch.tensor([2, 3]))
    assert (found.rank.item(), found.first.item()) == (6, 1)


def test_gallery_ties_equal_texts_to_all_their_images() -> None:
    among = gallery([("a cat", "a dog"), ("a dog",), ("a cat", "a cat", "a bird")])
    assert among.texts == ("a cat", "a dog", "a bird")
    assert among.counts == (3, 2, 1)
    assert among.captions == ((0, 1), (1,), (0, 0, 2))
    assert among.texts_of == ((0, 1), (1,), (0, 2))
    assert among.images_of == ((0, 2), (0, 1), (2,))


def test_equal_captions_take_a_place_each_when_wrong() -> None:
    """Image 2 likes "a", which two captions say, more than its own text, which is therefore third."""
    found = retrieve(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.5]]), torch.eye(2), gallery([("a",), ("a",), ("b",)]))
    assert found.texts.rank.tolist() == [1, 1, 3]
    assert found.images.rank.tolist() == [2, 1]  # "a": image 2 ties with its own two, and stands before them


@pytest.mark.parametrize("rerank", [1, 2, 3, 9])
def test_every_pair_is_matched_once_and_sorted_by_image(rerank) -> None:
    generator = torch.Generator().manual_seed(rerank)
    images, texts = torch.randn(5, 3, generator=generator), torch.randn(7, 3, generator=generator)
    among = gallery([("0", "1"), ("2",), ("3", "4"), ("5",), ("6",)])
    truth = torch.randn(5, 7, generator=generator)
    seen: list[tuple[int, int]] = []

    def match(rows, columns):
        seen.extend(zip(rows.tolist(), columns.tolist(), strict=True))
        return truth[rows, columns]

    found = retrieve(images, texts, among, rerank, match)
    assert seen == sorted(set(seen))
    if rerank == 9:  # all pairs are matched: the first stage no longer matters
        assert len(seen) == 35
        assert torch.equal(found.texts.rank, rank_all(*one_hot(truth), among.texts_of).rank)
        assert torch.equal(found.images.rank, rank_all(*one_hot(truth.T), among.images_of).rank)
    if rerank == 1:  # one candidate keeps its place
        assert torch.equal(found.texts.rank, retrieve(images, texts, among).texts.rank)
