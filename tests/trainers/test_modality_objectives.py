"""Every objective against its formula written naively in float64, and against a model that shares no forward pass.

Float32 sums of at most some hundred numbers of size 1 to 10 agree with float64 to 1e-5 relative.
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modality_stages import ALL, batch_of, model_of
from torch import Tensor

from models.modality_experts.heads import patch_pixels
from trainers.modality.loop import cut
from trainers.modality.loss import Learner, counting, shares, targets
from trainers.modality.objectives.contrastive import contrastive
from trainers.modality.objectives.masked_image import hidden_patches
from trainers.modality.objectives.matching import hard_negatives, matching, negatives
from trainers.modality.objectives.mlm import masked_words
from trainers.modality.objectives.passes import Passes
from trainers.modality.objectives.table import OBJECTIVES
from trainers.modality.objectives.vqa import soft_answers
from trainers.modality.spec import ModalitySpec, Objective
from trainers.spec import TrainSpec

CLOSE = {"rel": 1e-5, "abs": 1e-6}
seeds = st.integers(0, 2**31)


def drawn(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def entropy(scores: list[float], right: int) -> float:
    """-log softmax(scores)[right]."""
    return math.log(math.fsum(math.exp(score) for score in scores)) - scores[right]


@given(seeds, st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_contrastive(seed: int, pairs: int) -> None:
    similarities = drawn(seed, pairs, pairs)
    rows, columns = similarities.double().tolist(), similarities.T.double().tolist()
    naive = sum((entropy(rows[i], i) + entropy(columns[i], i)) / 2 for i in range(pairs)) / pairs
    assert float(contrastive(similarities)) == pytest.approx(naive, **CLOSE)


@given(seeds, st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_masked_words(seed: int, words: int) -> None:
    logits, labels = drawn(seed, words, 11), torch.randint(11, (words,), generator=torch.Generator().manual_seed(seed))
    naive = sum(entropy(row, label) for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True)) / 4
    assert float(masked_words(logits, labels, 0.25)) == pytest.approx(naive, **CLOSE)


@given(seeds, st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_soft_answers(seed: int, questions: int, answers: int) -> None:
    logits, scores = drawn(seed, questions, answers), torch.rand(questions, answers, generator=torch.Generator().manual_seed(seed))
    naive = 0.0
    for z, y in zip(logits.double().flatten().tolist(), scores.double().flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        naive -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / questions
    assert float(soft_answers(logits, scores)) == pytest.approx(naive, **CLOSE)


@given(seeds, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_hidden_patches(seed: int, patches: int) -> None:
    predicted, pixels = drawn(seed, patches, 12), drawn(seed + 1, patches, 12)
    naive = 0.0
    for guess, patch in zip(predicted.double().tolist(), pixels.double().tolist(), strict=True):
        mean = math.fsum(patch) / 12
        spread = math.sqrt(math.fsum((x - mean) ** 2 for x in patch) / 12 + 1e-6)
        naive += math.fsum((g - (x - mean) / spread) ** 2 for g, x in zip(guess, patch, strict=True)) / 12
    assert float(hidden_patches(predicted, pixels, 1 / patches)) == pytest.approx(naive / patches, **CLOSE)


def test_matching() -> None:
    logits = drawn(0, 6, 2)
    rows = logits.double().tolist()
    naive = math.fsum(entropy(row, right) for row, right in zip(rows, [1, 1, 0, 0, 0, 0], strict=True)) / 6
    assert float(matching(logits)) == pytest.approx(naive, **CLOSE)


def test_negatives_are_drawn_by_the_softmax_without_their_own() -> None:
    """Each place as often as the softmax says: 4000 evenly spaced draws count it to one in 4000."""
    count = 4000
    scores = torch.tensor([0.0, 1.0, 2.0, 5.0, -1.0])
    alike = torch.tensor([False, False, False, False, True])
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found = hard_negatives(scores.expand(count, 5), alike.expand(count, 5), torch.full((count,), 3), draws)
    weights = [1.0, math.e, math.e**2, 0.0, 0.0]
    for place, weight in enumerate(weights):
        assert abs(int((found == place).sum()) - count * weight / sum(weights)) <= 1


@given(seeds, st.integers(2, 6), st.sampled_from([0.0, 0.3, 1 - 2**-53]))
@settings(max_examples=40, deadline=None)
def test_a_negative_is_never_what_it_must_not_be(seed: int, pairs: int, draw: float) -> None:
    similarities = 40 * drawn(seed, pairs, pairs)
    alike = torch.rand(pairs, pairs, generator=torch.Generator().manual_seed(seed)) < 0.6
    own = torch.arange(pairs)
    found = hard_negatives(similarities, alike, own, torch.full((pairs,), draw, dtype=torch.float64))
    for row, place in enumerate(found.tolist()):
        allowed = [other for other in range(pairs) if other != row and not alike[row, other]]
        assert place in (allowed or [other for other in range(pairs) if other != row])


@pytest.mark.parametrize("streams", ["separate", "joint"])
@pytest.mark.parametrize("sharing", ["shared", "all"])
@torch.no_grad()
def test_losses_are_those_of_passes_that_share_nothing(streams: str, sharing: str) -> None:
    model = model_of(ALL, streams=streams, sharing=sharing)
    batch = batch_of(model)
    modality = ModalitySpec(TrainSpec(parts=("glob:*",), learning_rate=1.0), tuple((name, 2.0) for name in ALL))
    counted = dict(zip(counting(modality), targets(modality, batch), strict=True))
    total, losses = Learner(model, modality)(batch, shares(modality, counted, parts=1))
    naive = {name: value(model, batch) for name, value in NAIVE.items()}
    assert losses.tolist() == pytest.approx([float(naive[name]) for name in ALL], **CLOSE)
    assert float(total) == pytest.approx(2 * float(losses.sum()), **CLOSE)


def alone(model: Any, batch: dict[str, Tensor], head: str, text: str, image: str) -> Tensor:
    found = model.heads[head]
    texts = found.text(model.text(batch["input_ids"], batch["attention_mask"], through=text)).double()
    images = found.image(model.image(batch["pixel_values"], through=image)).double()
    return found.scale().double() * images @ texts.T


def itc(model: Any, batch: dict[str, Tensor]) -> Tensor:
    pure, fused = alone(model, batch, "itc", "l", "v"), alone(model, batch, "itc_vl", "vl", "vl")
    parts = [side.log_softmax(dim=1).diagonal().mean() for each in (pure, fused) for side in (each, each.T)]
    return -sum(parts) / 4  # type: ignore[return-value]


def itm(model: Any, batch: dict[str, Tensor]) -> Tensor:
    images, texts = negatives(Passes(model, batch))
    losses = []
    for row in range(len(images)):
        for text, image, right in ((row, row, 1), (row, int(images[row]), 0), (int(texts[row]), row, 0)):
            ids, mask, pixels = batch["input_ids"][[text]], batch["attention_mask"][[text]], batch["pixel_values"][[image]]
            logits = model.heads["itm"](model.pool(model.pair(ids, mask, pixels))).double()
            losses.append(-logits.log_softmax(dim=1)[0, right])
    return torch.stack(losses).mean()


def words(hidden: Tensor, labels: Tensor, model: Any) -> Tensor:
    scores = model.heads["mlm"](hidden[:, : labels.shape[1]]).double().log_softmax(dim=-1)
    return -torch.stack([scores[row, place, labels[row, place]] for row, place in (labels >= 0).nonzero().tolist()]).mean()


def mim(model: Any, batch: dict[str, Tensor]) -> Tensor:
    found = model.heads["mim"](model.image(batch["image_pixels"], batch["masked_patches"])[:, 1:]).double()
    pixels = patch_pixels(batch["image_pixels"], model.config.patch_size).double()
    wanted = (pixels - pixels.mean(2, keepdim=True)) / (pixels.var(2, keepdim=True, correction=0) + 1e-6).sqrt()
    return (found - wanted).square().mean(2)[batch["masked_patches"]].mean()


NAIVE = {
    Objective.ITC: itc,
    Objective.ITM: itm,
    Objective.MLM: lambda m, b: words(m.pair(b["masked_ids"], b["attention_mask"], b["pixel_values"]), b["masked_labels"], m),
    Objective.TEXT_MLM: lambda m, b: words(m.text(b["text_ids"], b["text_mask"]), b["text_labels"], m),
    Objective.MIM: mim,
}


@torch.no_grad()
def test_fine_tuning_objectives() -> None:
    objectives = (Objective.VQA, Objective.NLVR2, Objective.CLASSIFICATION, Objective.RETRIEVAL)
    model = model_of(objectives, answers=["one", "two", "three"], classes=["a", "b"], token_types=3)
    batch = batch_of(model) | {"targets": torch.rand(6, 3)}
    found = {name: float(OBJECTIVES[name].loss(Passes(model, batch))) for name in objectives}
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    first = model.pool(model.pair(ids, mask, batch["pixel_values"]))
    second = model.pool(model.pair(ids, mask, batch["other_pixels"], image_type=2))
    chosen = model.heads["vqa"](first).double().sigmoid()
    score = batch["targets"].double()
    truth = model.heads["nlvr2"](torch.cat((first, second), dim=1)).double().log_softmax(dim=1)
    kind = model.heads["classification"](model.image(batch["pixel_values"])).double().log_softmax(dim=1)
    pure = alone(model, batch, "itc", "l", "v")
    naive = {
        Objective.VQA: -(score * chosen.log() + (1 - score) * (1 - chosen).log()).sum(dim=1).mean(),
        Objective.NLVR2: -truth.gather(1, labels[:, None]).mean(),
        Objective.CLASSIFICATION: -kind.gather(1, labels[:, None]).mean(),
        Objective.RETRIEVAL: -(pure.log_softmax(1).diagonal() + pure.T.log_softmax(1).diagonal()).mean() / 2,
    }
    assert found == pytest.approx({name: float(value) for name, value in naive.items()}, **CLOSE)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_hard_negatives_of_what_is_no_number_are_rows_that_exist(value: float) -> None:
    """So the step ends, and the loop says that its loss is no number, instead of an index that is out of range."""
    draws = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64)
    found = hard_negatives(torch.full((3, 3), value), torch.zeros(3, 3, dtype=torch.bool), torch.arange(3), draws)
    assert bool(((found >= 0) & (found < 3)).all())


def test_negatives_belong_to_the_showing() -> None:
    """Not to any global random number; and the same words are no negative."""
    model = model_of((Objective.ITC, Objective.ITM))
    batch = batch_of(model)
    images, texts = negatives(Passes(model, batch))
    torch.rand(7)
    again = negatives(Passes(model, batch))
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], texts)
    for row in (0, 1):  # these two say the same
        assert int(images[row]) > 1
        assert int(texts[row]) > 1
    others = [negatives(Passes(model, batch | {"showings": batch["showings"] + 6 * epoch})) for epoch in range(1, 5)]
    assert any(not torch.equal(images, other) for other, _ in others)


def test_a_batch_without_targets_adds_nothing() -> None:
    model = model_of((Objective.MLM,))
    batch = batch_of(model)
    batch["masked_labels"] = torch.full_like(batch["masked_labels"], -100)
    modality = ModalitySpec(TrainSpec(parts=("glob:*",), learning_rate=1.0), ((Objective.MLM, 1.0),))
    total, _ = Learner(model, modality)(batch, shares(modality, {Objective.MLM: 0}, parts=1))
    total.backward()
    assert total.item() == 0.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


@torch.no_grad()
def test_cutting_texts_to_the_longest_changes_no_loss() -> None:
    model = model_of(ALL)
    batches = [batch_of(model, seed=seed) for seed in range(2)]
    for batch in batches:
        shorter = (torch.arange(24) < batch["attention_mask"].sum(dim=1, keepdim=True) // 2).long()
        batch |= {"attention_mask": shorter, "text_mask": shorter}
        batch |= {name: batch[name].masked_fill(shorter == 0, -100) for name in ("masked_labels", "text_labels")}
    modality = ModalitySpec(TrainSpec(parts=("glob:*",), learning_rate=1.0), tuple((name, 1.0) for name in ALL))
    learner, one = Learner(model, modality), dict.fromkeys(ALL, 0.1)
    less = cut(batches, torch.device("cpu"))
    longest = max(int(batch["attention_mask"].sum(dim=1).max()) for batch in batches)
    assert {batch[name].shape[1] for batch in less for name in ("input_ids", "masked_labels", "text_ids")} == {longest}
    for batch, short in zip(batches, less, strict=True):
        assert learner(short, one)[1].tolist() == pytest.approx(learner(batch, one)[1].tolist(), **CLOSE)
