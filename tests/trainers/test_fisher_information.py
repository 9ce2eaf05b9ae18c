"""The Fisher information of a checkpoint: the formula, its file, and both of its readers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from penalised import batch_of, moved_model, tensors
from safetensors import safe_open
from safetensors.torch import load_file

from foundation.errors import ConfigError, InputError
from mergers import Source, execute, plan_merge, read_checkpoint
from mergers.checkpoints.header import read_header
from mergers.methods.fisher import Fisher
from models.load import load_model, load_processor, save_checkpoint
from tasks.registry import get_task
from trainers.fisher.measure import FisherResult, draw, fisher
from trainers.fisher.spec import Labels
from trainers.fisher.statistics import names_on_disk, read_statistic, write_statistic
from trainers.strategies.distillation import predicts_answer

PARTS = ("projector", "language_model.mlp")
NAME = "language_model.model.layers.1.mlp.down_proj.weight"
IN_MEMORY = "model.language_model.layers.1.mlp.down_proj.weight"
Measure = Callable[..., FisherResult]


@pytest.fixture
def measure(base: Path, tmp_path: Path) -> Measure:
    """Measures six examples of "read" and writes tmp_path / name."""

    def run(name: str, checkpoint: Path = base, parts: tuple[str, ...] = PARTS, samples: int = 6, seed: int = 0, **options: Any) -> Any:
        return fisher(checkpoint, get_task("read"), parts, samples, seed, tmp_path / name, **options)

    return run


@pytest.mark.parametrize("labels", list(Labels))
def test_it_is_the_formula(base: Path, measure: Measure, tmp_path: Path, labels: Labels) -> None:
    """Against float64, example by example: what is left is float32's rounding of gradients."""
    steps: list[tuple[int, int]] = []
    result = measure("found", labels=labels, on_progress=lambda *step: steps.append(step))
    found = load_file(tmp_path / "found")
    exact, single, batch = load_model(base, torch.float64), load_model(base, torch.float32), batch_of(base, 6, "read")
    weight = exact.get_parameter(IN_MEMORY)
    expected, tokens = torch.zeros_like(weight), 0
    for index in range(6):
        row = {name: tensor[index : index + 1] for name, tensor in batch.items()}
        answers = predicts_answer(row.pop("labels"))
        scores = torch.log_softmax(exact(**{**row, "pixel_values": row["pixel_values"].double()}).logits[answers], dim=-1)
        if labels is Labels.DATA:
            targets = batch["labels"][index, 1:][answers[0, :-1]]
        else:
            with torch.no_grad():
                targets = draw(torch.log_softmax(single(**row).logits[answers], dim=-1), 0, index)
        gradient = torch.autograd.grad(sum(score[target] for score, target in zip(scores, targets, strict=True)), weight)[0]
        expected, tokens = expected + gradient**2 / 6, tokens + len(targets)
    torch.testing.assert_close(found[NAME].double(), expected.detach(), rtol=1e-3, atol=1e-6 * float(expected.max()))
    assert (result.samples, result.answer_tokens, steps) == (6, tokens, [(done, 6) for done in range(1, 7)])
    assert result.weights == sum(tensor.numel() for tensor in found.values())
    assert result.trace == pytest.approx(sum(float(tensor.double().sum()) for tensor in found.values()))


def test_tokens_are_drawn_as_the_model_says() -> None:
    """40000 draws from one distribution: each frequency within 5 standard deviations."""
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    drawn = draw(chances.log().expand(40_000, 5), 0, 0)
    found = torch.bincount(drawn, minlength=5) / 40_000
    assert bool(((found - chances).abs() <= 5 * (chances * (1 - chances) / 40_000).sqrt()).all())
    rows = chances.log().expand(20, 5)
    assert torch.equal(draw(rows, 3, 7), draw(rows, 3, 7))
    assert not torch.equal(draw(rows, 3, 7), draw(rows, 3, 8))
    assert not torch.equal(draw(rows, 3, 7), draw(rows, 4, 7))


def test_the_file(base: Path, measure: Measure, tmp_path: Path) -> None:
    """Names on disk, for the parts alone, float32, not negative; equal bytes each time; the seed and the labels count."""
    for name, options in {"first": {}, "again": {}, "seed": {"seed": 1}, "data": {"labels": Labels.DATA}}.items():
        measure(name, parts=("projector",), samples=3, **options)
    found = {name: (tmp_path / name).read_bytes() for name in ("first", "again", "seed", "data")}
    assert found["first"] == found["again"]
    assert len({*found.values()}) == 3
    values, held = load_file(tmp_path / "first"), tensors(base)
    assert values.keys() == {name for name in held if name.startswith("multi_modal_projector.")}
    assert all(values[name].shape == held[name].shape and values[name].dtype == torch.float32 for name in values)
    assert all(bool((value >= 0).all()) and bool(value.any()) for value in values.values())
    with safe_open(tmp_path / "first", framework="pt") as file:
        told = json.loads(file.metadata()["about"])
    assert "read" in told.pop("task").lower()
    assert told == {"statistic": "fisher", "samples": 3, "labels": "model", "seed": 0, "parts": ["projector"]}
    assert not list(tmp_path.glob(".*.tmp"))


def test_fisher_weighted_merging_reads_it(base: Path, measure: Measure, tmp_path: Path) -> None:
    """Two checkpoints, each with its own file: measured tensors by the formula, the others by the mean."""
    other = tmp_path / "other"
    save_checkpoint(moved_model(base), load_processor(base), other)
    places = {"one": base, "two": other}
    for name, place in places.items():
        measure(f"{name}.safetensors", checkpoint=place)
    sources = [
        Source(name, read_checkpoint(place), statistics=read_header(tmp_path / f"{name}.safetensors")) for name, place in places.items()
    ]
    execute(plan_merge(Fisher(floor=1e-12), sources, tmp_path / "merged"))
    weights, merged = [tensors(place) for place in places.values()], tensors(tmp_path / "merged")
    pulls = [load_file(tmp_path / f"{name}.safetensors") for name in places]
    assert pulls[0].keys() == pulls[1].keys() < merged.keys()
    for name, tensor in merged.items():
        first, second = (each[name].double() for each in weights)
        of_first, of_second = (each[name].double().clamp(min=1e-12) if name in each else torch.ones(()) for each in pulls)
        expected = (of_first * first + of_second * second) / (of_first + of_second)
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)  # float32's rounding


def test_names_in_memory_and_back(base: Path, measure: Measure, tmp_path: Path) -> None:
    measure("found")
    model = load_model(base)
    weights = dict(model.named_parameters())
    assert names_on_disk(model, {IN_MEMORY: weights[IN_MEMORY]}) == {IN_MEMORY: NAME}
    assert set(names_on_disk(model, weights).values()) == set(tensors(base))
    stored = load_file(tmp_path / "found")
    assert torch.equal(read_statistic(tmp_path / "found", model, {IN_MEMORY: weights[IN_MEMORY]})[IN_MEMORY], stored[NAME])


def test_names_follow_the_checkpoint(base: Path, measure: Measure, tmp_path: Path) -> None:
    """A checkpoint saved under its names in memory has a Fisher under these, with the same values."""
    new_style = tmp_path / "new_style"
    save_checkpoint(load_model(base), load_processor(base), new_style)
    (new_style / "model.safetensors").unlink()
    load_model(base).save_pretrained(new_style, save_original_format=False)
    for name, place in (("old", base), ("new", new_style)):
        measure(name, checkpoint=place, samples=2, parts=("language_model.mlp",))
    assert torch.equal(load_file(tmp_path / "old")[NAME], load_file(tmp_path / "new")[IN_MEMORY])


def test_tied_weights_are_measured_once(base: Path, tmp_path: Path) -> None:
    """Embeddings and head are one tensor: one Fisher, of both uses together, under the one name on disk."""
    tied = load_model(base)
    tied.config.tie_word_embeddings = tied.config.text_config.tie_word_embeddings = True
    tied.tie_weights()
    save_checkpoint(tied, load_processor(base), tmp_path / "tied")
    assert "lm_head.weight" not in tensors(tmp_path / "tied")
    fisher(tmp_path / "tied", get_task("parity"), ("language_model",), 2, 0, tmp_path / "found")
    found = load_file(tmp_path / "found")
    assert "language_model.model.embed_tokens.weight" in found
    assert found.keys() == {name for name in tensors(tmp_path / "tied") if name.startswith("language_model.")}


def test_what_does_not_fit_is_refused(base: Path, measure: Measure, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    model = load_model(base)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    save_checkpoint(model, load_processor(base), broken)
    with pytest.raises((InputError, RuntimeError), match=r"no numbers|nan"):
        measure("never", checkpoint=broken)
    with pytest.raises(InputError, match=r"would be saved as .* but the checkpoint holds \[96\]|would be saved as"):
        write_statistic(tmp_path / "never", model, base, {IN_MEMORY: torch.zeros(2, 2)}, {})
    for options, said in (
        ({"samples": 0}, "samples is 0"),
        ({"labels": "mdoel"}, "'model'"),
        ({"seed": -1}, "seed is -1"),
        ({"parts": ()}, "parts"),
    ):
        with pytest.raises(ConfigError, match=said):
            measure("never", **options)
    assert not (tmp_path / "never").exists()
