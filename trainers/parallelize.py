"""Distribution and memory saving, applied to a model from outside: the math never asks where it runs.

`parallelize` changes the model in place, in this order: recompute activations, compile, shard. Sharding is torch's own `fully_shard`
(FSDP2), applied by us to each decoder layer of the language model and then to the whole, on any backend; the Trainer is told to leave such
a model alone, because accelerate makes plain DDP of FSDP on a CPU without a word. `check_sharded` makes sure of what came out. Without
sharding the Trainer wraps the model in DDP.

Workers that share out weights must all do the same at the same time, but not every batch shows an image. So what runs for images alone is
gathered with the root, which every forward runs; its gradients are summed as soon as one worker shows an image (see `StageTrainer`), and
backward reaches the first layer for every batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import distribute_tensor
from transformers import PreTrainedModel

from foundation.errors import ConfigError, InputError, ResourceError
from models.parts import LANGUAGE_MODEL, names_of, plain_name
from trainers.checkpoints.resume import is_sharded, whole
from trainers.spec import Precision, Sharding, TrainSpec

COMPUTED_IN = {Precision.BFLOAT16: torch.bfloat16}
"""The dtype in which sharded weights travel and count, where that is not float32. Gradients are always summed in float32."""

VERSIONS = "use the versions of torch, transformers and accelerate in constraints.txt"


def check_parallel(spec: TrainSpec, gpu: bool) -> None:
    """ConfigError or ResourceError for a distribution or precision that cannot be honoured here; before any weight is read."""
    if spec.precision is Precision.FLOAT16 and not gpu:
        raise ResourceError("training: precision float16 needs a GPU, and this worker has none; set bfloat16 or float32")
    if spec.precision is Precision.FLOAT16 and spec.sharding is not Sharding.NONE:
        raise ConfigError("training: precision float16 scales the loss by what all gradients show, which sharding hides; set bfloat16")
    if spec.compile:
        check_compiler(gpu)


def check_compiler(gpu: bool) -> None:
    """ResourceError where `torch.compile` would find no C++ compiler; on a GPU torch brings what it needs."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        if not gpu:
            get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ResourceError(
            "training: compile needs a C++ compiler on a CPU, and none is found; install g++ or set compile: false"
        ) from error


def parallelize(model: PreTrainedModel, spec: TrainSpec, device: torch.device) -> None:
    """Make `model` (float32, whole, the same on every worker) run as `spec` says.

    Sharded, every parameter is a DTensor of which each worker holds a piece: `sharding: full` gives a block's weights back after it has
    run, `gradients` keeps them from forward to backward and shares only gradients and optimizer state beyond that. Raises InputError for a
    model that cannot recompute its activations.
    """
    if spec.gradient_checkpointing:
        if not getattr(model, "supports_gradient_checkpointing", True):
            raise InputError(f"{type(model).__name__} cannot recompute its activations; set gradient_checkpointing: false")
        model.activation_checkpointing_enable({"use_reentrant": False})
    if spec.compile:
        for block in blocks_of(model):
            block.compile(dynamic=True)
    if spec.sharding is not Sharding.NONE:
        shard(model, spec, device)


def shard(model: PreTrainedModel, spec: TrainSpec, device: torch.device) -> None:
    """Share out the weights of `model` among all workers: each decoder layer by itself, and all else with the root."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    options: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": spec.sharding is Sharding.FULL}
    if spec.precision in COMPUTED_IN:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=COMPUTED_IN[spec.precision], reduce_dtype=torch.float32)
    if spec.cpu_offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=device.type != "cpu")
    if Uses.of(model).some_for_images:
        model.enable_input_require_grads()  # or layers would sum their gradients in another order for a batch without images
    for layer in decoder_layers(model):
        fully_shard(layer, **options)
    fully_shard(model, **options)
    for module in model.modules():
        if isinstance(module, PreTrainedModel):  # also inside an adapter's model
            module._is_distributed_loading_by_transformers = True  # the Trainer's word for: place, wrap and shard it no further


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of every stack in `model` (a ModuleList of one class), outermost stacks only, in the model's order."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and module not in inside and len({type(block) for block in module}) == 1:
            found.extend(module)
            inside.update(below for block in module for below in block.modules())
    return found


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The blocks of `model` that every batch runs: those of the language model."""
    parts = names_of(model).parts
    of_language = {weight for name, weight in model.named_parameters() if parts[plain_name(name)] == LANGUAGE_MODEL}
    return [block for block in blocks_of(model) if of_language.issuperset(block.parameters())]


def check_sharded(model: nn.Module, wrapped: nn.Module) -> None:
    """ResourceError unless each worker holds a piece of every trained parameter and nothing has wrapped the model."""
    plain = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad and not is_sharded(parameter))
    if plain:
        raise ResourceError(f"sharding was asked for, but {len(plain)} trained parameters are whole, e.g. {plain[0]!r}; {VERSIONS}")
    if wrapped is not model:
        raise ResourceError(f"sharding was asked for, but the model is inside {type(wrapped).__name__}; {VERSIONS}")


def looks_for_unused(model: PreTrainedModel, workers: int, device: torch.device) -> bool:
    """Whether DDP must search every backward pass for weights that took no part.

    It must where something besides the language model is trained (a batch without images, an expert that is not chosen). With more than two
    workers on CPUs it does so in any case: without the search DDP orders its sums anew after the first step, also after the first one of a
    resumed stage, and sums of three numbers depend on their order.
    """
    return Uses.of(model).seldom or (workers > 2 and device.type == "cpu")


@dataclass(frozen=True)
class Uses:
    """Whether some trained weights run for images alone, whether all do, and whether some are experts, which not every batch chooses."""

    some_for_images: bool
    all_for_images: bool
    experts: bool

    @classmethod
    def of(cls, model: nn.Module) -> "Uses":
        """Of `model`, as its parameters are frozen now."""
        parts = names_of(model).parts
        trained = {plain_name(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
        for_images = [parts[name] != LANGUAGE_MODEL for name in trained]
        return cls(any(for_images), all(for_images), any("expert" in name for name in trained))

    @property
    def seldom(self) -> bool:
        """Whether some trained weights may take no part in a batch."""
        return self.some_for_images or self.experts


def whole_optimizer_state(optimizer: Any) -> dict[str, Any]:
    """The optimizer's `state_dict` with every tensor whole and on the CPU, as it is without sharding. All workers call this."""
    state = optimizer.state_dict()
    kept = {index: {name: _on_cpu(value) for name, value in values.items()} for index, values in state["state"].items()}
    return {**state, "state": kept}


def load_whole_optimizer_state(optimizer: Any, state: dict[str, Any]) -> None:
    """Put a whole `state_dict` into an optimizer of sharded parameters; each worker keeps its pieces."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = {index: {name: _as(value, parameters[index]) for name, value in values.items()} for index, values in state["state"].items()}
    optimizer.load_state_dict({**state, "state": kept})


def _on_cpu(value: Any) -> Any:
    return whole(value).cpu() if isinstance(value, torch.Tensor) else value


def _as(value: Any, parameter: Any) -> Any:
    """`value` shared out as `parameter` is, where it has a number for each of its."""
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape or not is_sharded(parameter):
        return value
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements).to(parameter.device)
