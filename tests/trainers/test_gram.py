"""Grams of a modality-expert model: the formula, which tokens count, and the bytes whoever measures which part."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from gram_models import Naive, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foundation.errors import ConfigError, InputError
from mergers import merge_tensors
from mergers.methods.regmean import RegMean
from models.modality_experts import load, load_processor
from tasks.pairs.digits import DigitsCaptions, DigitsComparisons, DigitsLabels, DigitsQuestions
from tasks.pairs.records import PairSet
from trainers.modality.statistics import gram
from trainers.modality.statistics.accumulate import LEAF, GramSum, grams
from trainers.modality.statistics.gram import GramMeasurement
from trainers.modality.statistics.spec import GramSpec, Passage
from trainers.modality.statistics.sums import Sums, add_parts, read_sums, write_sums
from trainers.modality.statistics.units import Records, units_of

CAPTIONS = DigitsCaptions(captions=2)
TOLERANCE = 2e-6
"""Of the largest entry: products of at most a thousand tokens are added in float32 here, which rounds by up to 6e-8 each time, and the
model's own activations are float32 ones of other batches."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without any sharing."""
    return small_model(tmp_path_factory.mktemp("gram") / "all")


def measured(checkpoint: Path, sets: tuple[PairSet, ...] = (CAPTIONS,), **spec: object) -> tuple[dict[str, Tensor], dict[str, int]]:
    """All parts in order: the Grams, and the tokens."""
    measurement = GramMeasurement(checkpoint, sets, GramSpec(**{"samples": 7, "parts": 3, **spec}))  # type: ignore[arg-type]
    sums = add_parts(measurement.measure(part) for part in range(measurement.parts))
    return measurement.finish(sums), sums.counts


def naively(checkpoint: Path, sets: tuple[PairSet, ...], passages: tuple[Passage, ...]) -> Naive:
    """One text, image or pair at a time, cut to its own words; with all passages, pairs count above the fusion layer alone."""
    model, processor = load(checkpoint), load_processor(checkpoint)
    naive = Naive(model)
    records = Records.of(sets, 7)
    with torch.no_grad():
        for passage in passages:
            for number, record in records.part(0, 1):
                for unit in units_of(number, record, passage):
                    texts = processor.texts([unit.text])
                    real = int(texts["attention_mask"].sum())
                    ids, mask = texts["input_ids"][:, :real], texts["attention_mask"][:, :real]
                    if passage is Passage.TEXT:
                        model.text(ids, mask)
                    elif passage is Passage.IMAGE:
                        model.image(processor.images([unit.image()]), image_type=1)
                    else:
                        model.pair(ids, mask, processor.images([unit.image()]))
    return naive


@pytest.mark.parametrize("sharing", ["all", "shared", "attention", "ffn", "layer_norm"])
@pytest.mark.parametrize("streams", ["separate", "joint"])
@pytest.mark.parametrize("passages", [(Passage.TEXT, Passage.IMAGE), (Passage.PAIR,)])
def test_it_is_the_mean_over_real_tokens(tmp_path: Path, sharing: str, streams: str, passages: tuple[Passage, ...]) -> None:
    """Against the formula in float64, where padding has never been made: of experts and of shared parts, the latter over all tokens."""
    checkpoint = small_model(tmp_path / "model", sharing=sharing, streams=streams)
    found, tokens = measured(checkpoint, passages=passages)
    naive = naively(checkpoint, (CAPTIONS,), passages)
    assert tokens == naive.tokens
    assert found.keys() == naive.sums.keys()
    for name, expected in naive.means().items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], found[name].T)
        assert float((found[name].double() - expected).abs().max()) <= TOLERANCE * float(expected.abs().max()), name


def test_each_task_runs_what_it_uses(model: Path) -> None:
    """Retrieval measures V and L experts to the top; questions the VL experts above the fusion layer; labels the V experts alone."""
    experts = {
        kind: {tuple(name.split(".")[i] for i in (2, 4)) for name in measured(model, (each,))[1]}
        for kind, each in (("captions", CAPTIONS), ("questions", DigitsQuestions()), ("labels", DigitsLabels()))
    }
    assert experts["captions"] == {("0", "v"), ("0", "l"), ("1", "v"), ("1", "l")}
    assert experts["questions"] == {("0", "v"), ("0", "l"), ("1", "vl")}
    assert experts["labels"] == {("0", "v"), ("1", "v")}


def test_lower_streams_are_counted_once(model: Path) -> None:
    """With texts, images and pairs, what runs below the fusion layer in pairs is what runs there alone: it is not measured twice."""
    alone, alone_tokens = measured(model)
    every, every_tokens = measured(model, passages=tuple(Passage))
    assert {name: every_tokens[name] for name in alone_tokens} == alone_tokens
    assert all(torch.equal(alone[name], every[name]) for name in alone)
    pairs, pair_tokens = measured(model, passages=(Passage.PAIR,))
    fused = [name for name in every if ".vl." in name]
    assert len(fused) == 4
    assert all(torch.equal(every[name], pairs[name]) and every_tokens[name] == pair_tokens[name] for name in fused)


def test_two_images_are_both_measured(model: Path) -> None:
    """A comparison is two pairs, of one sentence with each image; a model with no row for second images takes the last there is."""
    tokens = measured(model, (DigitsComparisons(),), samples=3)[1]
    records = list(Records.of((DigitsComparisons(),), 3).part(0, 1))
    words = sum(int(load_processor(model).texts([record.sentence])["attention_mask"].sum()) for _, record in records)  # type: ignore[union-attr]
    assert tokens["encoder.layers.1.mlp.vl.fc2.weight"] == 2 * words + 6 * 17
    assert tokens["encoder.layers.0.mlp.v.fc1.weight"] == 6 * 17


def test_padding_counts_for_nothing(model: Path) -> None:
    """A batch's longest text decides the padding of the others; measured one record at a time there is less of it, and the same Gram."""
    together, tokens = measured(model, parts=1)
    apart, apart_tokens = measured(model, parts=7)
    assert tokens == apart_tokens
    for name, value in together.items():
        assert float((value - apart[name]).abs().max()) <= TOLERANCE * float(value.abs().max())


@pytest.mark.parametrize("every", [2, 5])
def test_every_kth_token(model: Path, every: int) -> None:
    """About a k-th of the tokens is counted, each position equally often: over k images of 17 tokens each position exactly once."""
    found, tokens = measured(model, (DigitsLabels(),), samples=every, parts=1, every=every)
    assert set(tokens.values()) == {17}
    whole, all_tokens = measured(model, (DigitsLabels(),), samples=every, parts=1)
    assert set(all_tokens.values()) == {17 * every}
    name = "encoder.layers.0.mlp.v.fc2.weight"
    assert not torch.equal(found[name], whole[name])
    assert float(found[name].trace()) == pytest.approx(float(whole[name].trace()), rel=0.2)


def test_products_in_float64(model: Path) -> None:
    """Kept in float64, and not as rough as those in float32: no eigenvalue below what float64 rounds, where no direction varies."""
    single, double = (measured(model, samples=40, products=products)[0] for products in ("float32", "float64"))
    name = "encoder.layers.0.mlp.l.fc2.weight"  # wider than there are different tokens
    least = {each.dtype: float(torch.linalg.eigvalsh(each.double())[0] / each.diagonal().mean()) for each in (single[name], double[name])}
    assert least[torch.float64] > -1e-12
    assert -1e-5 < least[torch.float32] < -1e-9
    torch.testing.assert_close(single[name].double(), double[name], rtol=1e-5, atol=TOLERANCE * float(double[name].max()))


def test_parts_in_any_order_by_anyone(model: Path, tmp_path: Path) -> None:
    """Measured in any order, kept in files, added in theirs: the same bytes; more parts than records leave some empty."""
    measurement = GramMeasurement(model, (CAPTIONS,), GramSpec(samples=2, parts=3))
    expected = measurement.finish(add_parts(measurement.measure(part) for part in range(3)))
    for order in list(permutations(range(3)))[1::2]:
        for part in order:
            write_sums(tmp_path / str(part), measurement.measure(part), "same")
        found = measurement.finish(add_parts(read_sums(tmp_path / str(part)) for part in range(3)))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5 * LEAF), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_pieces_make_the_whole_matrix(size: int, batches: list[int], seed: int) -> None:
    """The pieces of the upper triangle, mirrored, is x^T x: any width, any batches. 5 products of float32 at most, so 5 roundings."""
    generator = torch.Generator().manual_seed(seed)
    summed, rows = GramSum(size, torch.device("cpu")), [torch.randn(count, size, generator=generator) for count in batches]
    for each in rows:
        summed.add(each)
    found = grams(Sums(summed.named("w"), {"w": summed.tokens}))["w"].double()
    stacked = torch.cat(rows).double()
    expected = stacked.T @ stacked / len(stacked)
    assert torch.equal(found, found.T)
    assert float((found - expected).abs().max()) <= 5 * 2**-23 * float(expected.abs().max())


def test_regmean_reads_them(model: Path) -> None:
    """Through the merging library: outputs on the experts' own inputs change less than with the plain mean, by the formula's measure."""
    found, _ = measured(model, samples=40)
    weights = {name: load(model).get_parameter(name).detach() for name in found if ".0.attention." in name}
    seen = {expert: {name.replace(f".{expert}.", "."): name for name in weights if f".{expert}." in name} for expert in ("v", "l")}
    sources = {expert: {name: weights[own] for name, own in names.items()} for expert, names in seen.items()}
    statistics = {expert: {name: found[own] for name, own in names.items()} for expert, names in seen.items()}
    merged = merge_tensors(RegMean(off_diagonal=1.0), sources, statistics=statistics)
    assert len(merged) == 2

    def loss(name: str, weight: Tensor) -> float:
        steps = [(sources[expert][name] - weight).double() for expert in sources]
        return sum(float(((step @ statistics[expert][name].double()) * step).sum()) for expert, step in zip(sources, steps, strict=True))

    for name, weight in merged.items():
        assert loss(name, weight) < 0.9 * loss(name, (sources["v"][name] + sources["l"][name]) / 2)


def test_hooks_go_and_threads_come_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement leaves no hook on its model and the process as it was."""
    kept = []
    monkeypatch.setattr(gram, "load", lambda checkpoint: kept.append(load(checkpoint)) or kept[-1])
    threads = torch.get_num_threads()
    GramMeasurement(model, (CAPTIONS,), GramSpec(samples=1, parts=1)).measure(0)
    assert not any(module._forward_pre_hooks for module in kept[0].modules())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": 0}, "parts is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"every": 0}, "every is 0"),
        ({"products": "half"}, "products"),
        ({"passages": ("pairs",)}, "pair"),
    ],
)
def test_values_that_cannot_be(changes: dict[str, object], words: str) -> None:
    """Refused before anything is read."""
    with pytest.raises(ConfigError, match=words):
        GramSpec(**changes)  # type: ignore[arg-type]


def test_sets_that_cannot_be(model: Path) -> None:
    """No set, two kinds, texts of labels, a set twice, a set without records."""
    for sets, passages, words in (
        ((), None, "no sets"),
        ((CAPTIONS, DigitsLabels()), None, "captions and labels"),
        ((DigitsLabels(),), (Passage.TEXT,), "no texts"),
    ):
        with pytest.raises(ConfigError, match=words):
            GramMeasurement(model, sets, GramSpec(passages=passages))
    with pytest.raises(ConfigError, match="twice"):
        GramMeasurement(model, (CAPTIONS, replace(CAPTIONS)), GramSpec(samples=2, parts=1)).measure(0)


def test_an_empty_set(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, not passed over."""
    monkeypatch.setattr(DigitsCaptions, "records", lambda *_: ())
    with pytest.raises(InputError, match="digits_captions"):
        GramMeasurement(model, (CAPTIONS,)).measure(0)
