"""mergekit's per-model `density` (and gamma, epsilon), with gradients and filters, merged and held against a naive computation.

The first file has the shape of the TIES example in mergekit's handbook: three models, each with a density and a weight of its own, one
of them a gradient, another a list of filters.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foundation.errors import ConfigError
from mergers.engine.memory import merge_tensors
from mergers.methods.breadcrumbs import Breadcrumbs
from mergers.methods.dare import DareLinear
from mergers.methods.della import Della
from mergers.methods.ties import TiesPerTensor
from pipeline.config.merge_request import MergeRequest
from pipeline.config.merge_source import request_from_file

Asked = Callable[..., MergeRequest]
LAYERS = 5
NAMES = ["model.embed_tokens.weight", "model.norm.weight"] + [
    f"model.layers.{layer}.{part}.weight" for layer in range(LAYERS) for part in ("mlp.up_proj", "self_attn.q_proj")
]
TIES = """\
models:
  - model: org/chat
    parameters: {density: [1, 0.7, 0.1], weight: 1.0}
  - model: org/code
    parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}
  - model: org/math
    parameters:
      density: 0.33
      weight:
        - {filter: mlp, value: 0.5}
        - value: 0.25
merge_method: ties
base_model: org/base
parameters: {normalize: true, int8_mask: true}
dtype: float16
"""


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """The request of a file with this text."""

    def read(text: str) -> MergeRequest:
        (tmp_path / "m.yml").write_text(text)
        return request_from_file(tmp_path / "m.yml")

    return read


def models(names: tuple[str, ...]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Sources and a base whose changes are multiples of 1/64, so that sums are exact and many changes are of one size."""
    generator = torch.Generator().manual_seed(0)

    def made() -> dict[str, Tensor]:
        return {name: torch.randint(-64, 65, (9, 11), generator=generator) / 64 for name in NAMES}

    base = made()
    return {name: {tensor: base[tensor] + change for tensor, change in made().items()} for name in names}, base


def along(gradient: list[float], tensor: str) -> float:
    """A gradient's value for a tensor: linear over the layers, the first outside them."""
    layer = int(tensor.split(".")[2]) if ".layers." in tensor else 0
    place = layer / (LAYERS - 1) * (len(gradient) - 1)
    index = min(int(place), len(gradient) - 2)
    return gradient[index] + (gradient[index + 1] - gradient[index]) * (place - index)


def trimmed(change: Tensor, density: float) -> list[float]:
    """The largest share of the changes, and all that equal the last of them; the rest 0."""
    values = change.double().view(-1).tolist()
    least = sorted(map(abs, values), reverse=True)[max(1, int(density * len(values))) - 1]
    return [value if abs(value) >= least else 0.0 for value in values]


def naive_ties(changes: list[Tensor], densities: list[float], weights: list[float]) -> Tensor:
    """Trim, elect and take the weighted mean of those that agree, one element after the other."""
    thinned = [trimmed(change, density) for change, density in zip(changes, densities, strict=True)]
    merged = []
    for column in zip(*thinned, strict=True):
        vote = sum(weight * value for weight, value in zip(weights, column, strict=True))
        agreeing = [(weight, value) for weight, value in zip(weights, column, strict=True) if weight > 0 and value * vote > 0]
        merged.append(sum(w * v for w, v in agreeing) / sum(w for w, _ in agreeing) if agreeing and abs(vote) > 1e-9 else 0.0)
    return torch.tensor(merged).view(changes[0].shape)


def test_the_ties_example_of_the_handbook(asked: Asked) -> None:
    request = asked(TIES)
    request.check()
    assert request.names == ("chat", "code", "math")
    assert request.dtype == "F16"
    sources, base = models(request.names)
    merged = merge_tensors(request.merger, sources, base)
    for name in NAMES:
        densities = [along([1, 0.7, 0.1], name), 0.5, 0.33]
        weights = [1.0, along([0, 0.3, 0.7, 1], name), 0.5 if "mlp" in name else 0.25]
        changes = [tensors[name] - base[name] for tensors in sources.values()]
        expected = base[name] + naive_ties(changes, densities, weights)
        torch.testing.assert_close(merged[name], expected, rtol=0, atol=1e-6)  # a few roundings in float32 of values around 1
    assert request.merger.roles(request.names)[1].startswith("weight 0, largest 0.5 of its changes in each tensor or weight 0.3,")


def test_a_density_may_be_a_list_of_filters_at_one_model(asked: Asked) -> None:
    own = "[{filter: self_attn, value: 0.2}, {filter: layers.0, value: 1}, {value: [0.4, 0.8]}]"
    text = "merge_method: ties\nbase_model: base\nparameters: {weight: 1, density: 0.5}\nmodels:\n"
    request = asked(f"{text}  - {{model: a, parameters: {{density: {own}}}}}\n  - {{model: b}}\n")
    sources, base = models(request.names)
    merged = merge_tensors(request.merger, sources, base)
    for name in NAMES:
        own_density = 0.2 if "self_attn" in name else 1.0 if "layers.0" in name else along([0.4, 0.8], name)
        expected = base[name] + naive_ties([tensors[name] - base[name] for tensors in sources.values()], [own_density, 0.5], [1, 1])
        torch.testing.assert_close(merged[name], expected, rtol=0, atol=1e-6)  # as above


MODELS = "models:\n  - {model: a, parameters: {weight: 1, %s}}\n  - {model: b, parameters: {weight: 2, %s}}\n"


@pytest.mark.parametrize(
    ("method", "own", "merger"),
    [
        ("ties", ("density: 1", "density: 0.5"), TiesPerTensor((1.0, 0.5), (1, 2))),
        ("ties", ("density: 0.5", "density: 0.5"), TiesPerTensor(0.5, (1, 2))),
        ("dare_linear", ("density: 0.25", "density: 1"), DareLinear((0.25, 1.0), (1, 2))),
        ("breadcrumbs", ("density: 0.5, gamma: 0.1", "density: 0.5, gamma: 0"), Breadcrumbs(0.5, (0.1, 0.0), (1, 2))),
        ("della", ("density: 0.5, epsilon: 0.1", "density: 0.4, epsilon: 0.2"), Della((0.5, 0.4), (0.2, 0.4), (1, 2))),
    ],
)
def test_what_differs_between_models_is_one_number_per_source(asked: Asked, method: str, own: tuple[str, str], merger: object) -> None:
    request = asked(f"merge_method: {method}\nbase_model: base\n{MODELS % own}")
    assert request.merger == merger
    request.check()


def test_a_density_that_makes_no_sense_is_named_with_its_model(asked: Asked) -> None:
    with pytest.raises(ConfigError, match=r"density of 'b' is 0\.0; it is the share"):
        asked("merge_method: ties\nbase_model: base\n" + MODELS % ("density: 1", "density: 0")).check()
    with pytest.raises(ConfigError, match=r"where '\*' matches: density of 'b' is 1\.5"):
        asked("merge_method: ties\nbase_model: base\n" + MODELS % ("density: 1", "density: [0.5, 1.5]")).check()
