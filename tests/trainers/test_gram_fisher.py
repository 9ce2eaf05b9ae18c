"""The diagonal Fisher of a modality-expert model: the formula in float64, and the same file as Grams have."""

from pathlib import Path

import pytest
import torch
from gram_models import small_model

from foundation.errors import ConfigError, InputError
from mergers import merge_tensors
from mergers.methods.fisher import Fisher
from models.modality_experts import load, load_processor
from tasks.pairs.digits import DigitsCaptions, DigitsLabels
from tasks.task import Split
from trainers.data.encoding import IGNORED
from trainers.fisher.spec import Labels
from trainers.modality.data.addresses import generator
from trainers.modality.data.masking import mask_words, vocabulary_of
from trainers.modality.spec import Objective
from trainers.modality.statistics.files import read_statistics, write_statistics
from trainers.modality.statistics.fisher import Asking, FisherMeasurement, chosen
from trainers.modality.statistics.spec import FisherSpec
from trainers.modality.statistics.sums import add_parts

CAPTIONS = DigitsCaptions()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the heads that are measured."""
    return small_model(tmp_path_factory.mktemp("fisher") / "model", heads=["itc", "mlm"])


def measurement(checkpoint: Path, **spec: object) -> FisherMeasurement:
    """Five records."""
    return FisherMeasurement(checkpoint, (CAPTIONS,), FisherSpec(**{"samples": 5, "parts": 2, "among": 2, **spec}))  # type: ignore[arg-type]


def test_retrieval_is_the_formula(model: Path) -> None:
    """Answer by answer in float64, with the data's labels: 5 records are groups of 2 and 3, two answers a record.

    Left is float32's rounding of gradients.
    """
    found = measurement(model, labels=Labels.DATA)
    sums = add_parts(map(found.measure, range(2)))
    assert set(sums.counts.values()) == {10}
    assert sums.samples == 5
    exact, processor, records = load(model, torch.float64), load_processor(model), CAPTIONS.records(Split.TRAIN, 5)
    weights = chosen(exact, ("encoder.*",))
    expected = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for group in ((0, 1), (2, 3, 4)):
        texts = processor.texts([records[place].captions[0] for place in group])
        pixels = processor.images([records[place].image() for place in group]).double()
        told, seen = exact.heads["itc"].text(exact.text(**texts)), exact.heads["itc"].image(exact.image(pixels))
        scores = exact.heads["itc"].scale() * seen @ told.T
        for place in range(len(group)):
            for line in (scores[place], scores[:, place]):
                likelihood = line[place] - line.logsumexp(0)
                gradients = torch.autograd.grad(likelihood, list(weights.values()), retain_graph=True, allow_unused=True)
                for name, gradient in zip(weights, gradients, strict=True):
                    expected[name] += 0 if gradient is None else gradient**2 / 10
    values = found.finish(sums)
    assert values.keys() == {name for name in expected if ".vl." not in name}  # those have no part in it: nothing is known of them
    for name, value in ((name, expected[name]) for name in values):
        torch.testing.assert_close(values[name].double(), value, rtol=1e-3, atol=1e-4 * float(value.max()) + 1e-30)


def test_hidden_words_are_asked_with_their_image(model: Path) -> None:
    """The VL experts answer, the text's own words above fusion do not; drawn labels are others than the data's."""
    by_data, by_model = (measurement(model, objective=Objective.MLM, labels=labels) for labels in Labels)
    found = [each.finish(add_parts(map(each.measure, range(2)))) for each in (by_data, by_model)]
    name = "encoder.layers.1.mlp.vl.fc1.weight"
    assert float(found[0][name].max()) > 0
    assert not torch.equal(found[0][name], found[1][name])
    assert "encoder.layers.1.mlp.l.fc1.weight" not in found[0]


def test_one_answer_of_hidden_words(model: Path) -> None:
    """log p is that of the words that were there, summed, by the model run once more on the text with the words hidden."""
    spec = FisherSpec(objective=Objective.MLM, labels=Labels.DATA, masked=0.5)
    loaded, record = load(model), CAPTIONS.records(Split.TRAIN, 1)[0]
    asking = Asking(loaded, load_processor(model), spec, torch.device("cpu"))
    seen: list[torch.Tensor] = []
    loaded.embeddings.word.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vocabulary = vocabulary_of(asking.processor.tokenizer)
    with torch.no_grad():
        (likelihood,) = asking.words([(0, record)])
        texts = asking.processor.texts(record.captions)
        real = int(texts["attention_mask"].sum())
        state = loaded.pair(seen[0], texts["attention_mask"][:, :real], asking.processor.images([record.image()]))
        scores = torch.log_softmax(loaded.heads["mlm"](state[0, :real]), dim=-1)
    ids = texts["input_ids"][0, :real]
    masked, labels = mask_words(ids.numpy(), vocabulary, 0.5, True, generator("modality/0/fisher/0"))
    asked = torch.from_numpy(labels != IGNORED)
    assert torch.equal(seen[0][0], torch.from_numpy(masked))
    assert bool(asked.any())
    assert not bool(asked.all())
    assert float(likelihood) == pytest.approx(float(scores[asked].gather(1, ids[asked][:, None]).sum()), rel=1e-5)


def test_the_file_and_the_merge(model: Path, tmp_path: Path) -> None:
    """The directory that Grams have; the merging library takes it; parts in files or not, the same bytes."""
    found = measurement(model, samples=4)
    about = write_statistics(tmp_path / "fisher", found, add_parts(map(found.measure, range(2))))
    values, read = read_statistics(tmp_path / "fisher", "fisher", model)
    assert about == read
    assert read.how["objective"] == "retrieval"
    assert set(read.tokens.values()) == {8}
    name = "encoder.layers.0.mlp.{}.fc1.weight"
    weights = {expert: {"w": load(model).get_parameter(name.format(expert)).detach()} for expert in ("v", "l")}
    merged = merge_tensors(Fisher(floor=1e-30), weights, statistics={expert: {"w": values[name.format(expert)]} for expert in ("v", "l")})
    pull = {expert: values[name.format(expert)].double().clamp(min=1e-30) for expert in ("v", "l")}
    expected = sum(pull[expert] * weights[expert]["w"] for expert in pull) / sum(pull.values())
    torch.testing.assert_close(merged["w"].double(), expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_measured(model: Path, tmp_path: Path) -> None:
    """Words of the user's, before or at the first look."""
    for spec, words in (
        ({"among": 1}, "among is 1"),
        ({"weights": ()}, "weights is empty"),
        ({"masked": 1.0}, "masked is 1"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ConfigError, match=words):
            FisherSpec(**spec)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="objective"):
        FisherSpec(objective="itm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="labels"):
        FisherMeasurement(model, (DigitsLabels(),))
    with pytest.raises(ConfigError, match=r"no weight of the model is called 'encodr"):
        measurement(model, weights=("encodr.*",)).measure(0)
    with pytest.raises(ConfigError, match=r"retrieval runs through none of the .* weights called .*vl"):
        measurement(model, weights=("encoder.*.vl.*",)).measure(0)
    with pytest.raises(InputError, match="two records"):
        measurement(model, samples=1).measure(0)
    with pytest.raises(InputError, match="no head 'itc'"):
        measurement(small_model(tmp_path / "headless")).measure(0)
