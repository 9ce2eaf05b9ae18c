"""Expert routing: every decoder MLP of a language model becomes two experts and a router that weighs them for each token.

The original expert is the MLP as it was and stays so; the tuned expert starts as its copy and learns. On disk a routed model is a plain
checkpoint with the original weights, so `from_pretrained` loads the original without noticing, and two files beside it: `experts.json`
(format, layers, top_k) and `experts.safetensors` (tuned experts and routers, by layer number). `models.load` puts the two together, so a
model is asked with the same top_k it learned with.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from foundation.errors import InputError
from foundation.files import write_json_atomic
from models.parts import LANGUAGE_MODEL, names_of, parameters_of, plain_name

MLP = "language_model.mlp"
"""The selection that becomes experts."""
SETTINGS_FILE = "experts.json"
WEIGHTS_FILE = "experts.safetensors"
FORMAT = 1
ORIGINAL, TUNED = 0, 1
"""The experts' places in the router's scores."""
CHOICES = (1, 2)
"""How many of the two experts a token may be given."""
ROUTER_SPREAD = 0.02
"""Standard deviation of a new router's weights."""
LEARNED = ("tuned.", "router.")


class RoutedMLP(nn.Module):
    """An MLP, its tuned copy, and a router between them; takes its place in a decoder layer.

    Both experts run on every token: choosing one would save at most half of them, and would let the tokens beside a token decide how its
    sums are cut. Gradients go through both to the layers below; freezing the original is the trainer's business.
    """

    def __init__(self, original: nn.Module, layer: int, hidden_size: int, top_k: int) -> None:
        super().__init__()
        self.layer = layer
        weight = next(original.parameters())
        self.original = original
        self.tuned = copy.deepcopy(original)
        self.router = nn.Linear(hidden_size, 2, device=weight.device, dtype=weight.dtype)
        self.top_k = top_k
        self.scores: Tensor | None = None
        self.train(original.training)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The experts' outputs [B, T, hidden], weighed. In training the scores [B, T, 2] float32 are kept until the next pass."""
        scores = self.router(hidden_states).float()
        self.scores = scores if self.training else None
        weights = expert_weights(scores, self.top_k).to(hidden_states.dtype)
        return weights[..., ORIGINAL, None] * self.original(hidden_states) + weights[..., TUNED, None] * self.tuned(hidden_states)

    def __getstate__(self) -> dict[str, object]:
        """Without the scores, which hang on a graph and could not be copied."""
        return self.__dict__ | {"scores": None}


def expert_weights(scores: Tensor, top_k: int) -> Tensor:
    """The softmax over the `top_k` highest of two scores [..., 2]; 0 for the other, so the weights of a token sum to 1.

    With one expert the chosen one weighs 1, a tie going to the original, and the scores' gradient is zero.
    """
    if top_k == len(CHOICES):
        return scores.softmax(dim=-1)
    tuned = scores[..., TUNED] > scores[..., ORIGINAL]
    chosen = torch.stack([~tuned, tuned], dim=-1).to(scores.dtype)
    return chosen + 0 * scores  # adds nothing, but DDP takes a router that no output depends on for one that no loss depends on


@dataclass(frozen=True)
class NewRouter:
    """How routers start: weights N(0, 0.02) drawn for (seed, layer), biases (-bias, +bias) for the original and the tuned expert."""

    seed: int
    bias: float = 0.0

    def start(self, router: nn.Linear, layer: int) -> None:
        """Set the weights of the router of one layer."""
        address = sha256(f"router/{self.seed}/{layer}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(address[:8]) >> 1)
        with torch.no_grad():
            router.weight.copy_(torch.empty(router.weight.shape).normal_(0.0, ROUTER_SPREAD, generator=generator))
            router.bias.copy_(torch.tensor([-self.bias, self.bias]))


def decoder_mlps(model: PreTrainedModel) -> dict[int, str]:
    """Layer number -> name in memory of every decoder MLP of the language model; InputError where it has none."""
    places = names_of(model).layers(LANGUAGE_MODEL)
    found = {}
    for name in map(plain_name, parameters_of(model, MLP)):
        layer, rest = places[name]
        found[layer] = name.removesuffix(rest) + rest.split(".")[0]
    return dict(sorted(found.items()))


def routed_mlps(model: nn.Module) -> dict[int, RoutedMLP]:
    """Layer number -> the routed MLP there; empty for a model without experts."""
    return {module.layer: module for module in model.modules() if isinstance(module, RoutedMLP)}


def add_experts(model: PreTrainedModel, top_k: int, routers: NewRouter) -> dict[int, RoutedMLP]:
    """Make every decoder MLP of `model` a routed one, in place; the tuned experts are copies. Leaves torch's random state as it was."""
    hidden_size = model.config.get_text_config().hidden_size
    with torch.random.fork_rng(devices=[]):
        for layer, path in decoder_mlps(model).items():
            mlp = RoutedMLP(model.get_submodule(path), layer, hidden_size, top_k)
            routers.start(mlp.router, layer)
            model.set_submodule(path, mlp)
    return routed_mlps(model)


def refuse_trained_originals(model: nn.Module) -> None:
    """InputError where an original expert would learn: a routed model's weights on disk are those of the original, and stay so."""
    for layer, mlp in routed_mlps(model).items():
        if any(parameter.requires_grad for parameter in mlp.original.parameters()):
            raise InputError(
                f"the start has expert routing, and this stage would train the original MLP of layer {layer}, which has to stay as it is; "
                "use strategy routing, leave the language model's MLPs out of the parts, or start from a model without experts"
            )


@contextmanager
def experts_set_aside(model: PreTrainedModel) -> Iterator[None]:
    """Within it, `model` is the original again, under its own tensor names; nothing changes for a model without experts."""
    routed = {path: module for path, module in model.named_modules() if isinstance(module, RoutedMLP)}
    for path, mlp in routed.items():
        model.set_submodule(path, mlp.original)
    try:
        yield
    finally:
        for path, mlp in routed.items():
            model.set_submodule(path, mlp)


def has_experts(directory: Path) -> bool:
    """Whether a checkpoint holds experts, or a part of them."""
    return (directory / SETTINGS_FILE).exists() or (directory / WEIGHTS_FILE).exists()


def expert_files(directory: Path) -> list[Path]:
    """The files beside a routed checkpoint's own weights; none where there are no experts."""
    return [directory / name for name in (SETTINGS_FILE, WEIGHTS_FILE)] if has_experts(directory) else []


def save_experts(model: PreTrainedModel, directory: Path) -> None:
    """Write the experts of a routed model beside its weights, in the dtype they have in memory."""
    mlps = routed_mlps(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learned_tensors(mlps).items()}
    save_file(tensors, directory / WEIGHTS_FILE, {"format": "pt"})
    top_k = next(iter(mlps.values())).top_k
    write_json_atomic(directory / SETTINGS_FILE, {"format": FORMAT, "layers": list(mlps), "top_k": top_k})


def attach_experts(model: PreTrainedModel, directory: Path) -> None:
    """Put the experts in `directory` into `model`, in place, in the dtype of the MLPs they stand beside.

    Raises InputError where a file is missing or damaged, is of another format, or does not fit the model's layers or shapes.
    """
    top_k, layers = read_settings(directory)
    held = list(decoder_mlps(model))
    if layers != held:
        raise InputError(
            f"{directory / SETTINGS_FILE} has experts for layers {shown(layers)}, the model has MLPs in layers {shown(held)}; "
            "the experts belong to another model: copy the checkpoint again"
        )
    try:
        stored = load_file(directory / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{directory / WEIGHTS_FILE} cannot be read: {error}; copy the checkpoint again, whole") from error
    wanted = learned_tensors(add_experts(model, top_k, NewRouter(seed=0)))
    for name in sorted(wanted.keys() | stored.keys()):
        sizes = [str(list(tensors[name].shape)) if name in tensors else "absent" for tensors in (stored, wanted)]
        if sizes[0] != sizes[1]:
            raise InputError(f"{directory / WEIGHTS_FILE}: {name!r} is {sizes[0]}, the model needs {sizes[1]}; copy the checkpoint again")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])


def learned_tensors(mlps: dict[int, RoutedMLP]) -> dict[str, Tensor]:
    """The tuned experts' and routers' tensors by their names in the file."""
    return {
        f"layers.{number}.mlp.{name}": tensor
        for number, mlp in mlps.items()
        for name, tensor in mlp.state_dict(keep_vars=True).items()
        if name.startswith(LEARNED)
    }


def read_settings(directory: Path) -> tuple[int, list[int]]:
    """top_k and the layer numbers; InputError unless they say what they must."""
    path = directory / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text())
        found, top_k, layers = settings["format"], settings["top_k"], settings["layers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as the settings of experts ({error!r}); copy the checkpoint again, whole") from error
    if found != FORMAT:
        raise InputError(f"{path}: format {found!r} is not {FORMAT}, which this version reads; use the version that wrote it")
    if top_k not in CHOICES or not isinstance(layers, list):
        raise InputError(f"{path}: top_k is {top_k!r} and layers {layers!r}; they must be 1 or 2 and a list of numbers")
    return top_k, layers


def shown(layers: list[int]) -> str:
    """Layer numbers for a message."""
    if len(layers) > 1 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(str(layer) for layer in layers) or "none"
