"""The optimizer's parameter groups: a learning rate of its own for a part, no weight decay for biases and norms.

    optimizer = torch.optim.AdamW(parameter_groups(model, spec), lr=spec.learning_rate, ...)

What is trained is told by `requires_grad`, so this runs after the strategy has prepared the model. The model may be wrapped (DDP, FSDP2,
compile, PEFT): a selection in `spec.learning_rates` is looked up by the names of the plain model, and an adapter's weights count as the
weights they adapt. FSDP1 flattens weights and thereby hides which are biases: make the groups before wrapping.
"""

from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from models.parts import selected

if TYPE_CHECKING:
    from torch import nn

    from trainers.spec import TrainSpec

REST = "rest"
"""The name of the groups that learn at the stage's own rate."""


def parameter_groups(model: "nn.Module", spec: "TrainSpec") -> list[dict[str, Any]]:
    """Groups for torch's AdamW: {name, params, lr, weight_decay}, the stage's own rate first, then `spec.learning_rates` in their order.

    Each is split into "NAME, decay" and "NAME, no decay"; empty groups are left out; parameters keep the model's order. Every trained
    parameter is in exactly one group. Raises InputError where nothing is trained, where a part with a rate matches no trained parameter,
    or where two rates want the same one.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise InputError(f"{type(model).__name__} has no parameter that is trained; choose parts that it has in mm_tunable_parts")
    owners = {name: part for part, names in rated_parameters(model, spec, trained.keys()).items() for name in names}
    exempt = without_decay(model)
    groups = []
    for part, rate in ((REST, spec.learning_rate), *spec.learning_rates):
        mine = {name: parameter for name, parameter in trained.items() if owners.get(name, REST) == part}
        for label, decays, decay in (("decay", True, spec.weight_decay), ("no decay", False, 0.0)):
            chosen = [parameter for parameter in mine.values() if (id(parameter) not in exempt) == decays]
            if chosen:
                groups.append({"name": f"{part}, {label}", "params": chosen, "lr": rate, "weight_decay": decay})
    return groups


def rated_parameters(model: "nn.Module", spec: "TrainSpec", trained: Any) -> dict[str, list[str]]:
    """The trained parameters that each part with a learning rate of its own takes."""
    if not spec.learning_rates:
        return {}
    taken = selected(model, [part for part, _ in spec.learning_rates])  # refuses two that overlap
    found = {part: [name for name in names if name in trained] for part, names in taken.items()}
    for part, names in found.items():
        if not names:
            raise InputError(
                f"part {part!r} has a learning rate of its own, but none of its {len(taken[part])} parameters is trained "
                f"(trained: {', '.join(spec.parts)}); leave the rate out, or train the part"
            )
    return found


def without_decay(model: "nn.Module") -> set[int]:
    """The ids of parameters that no weight decay pulls to zero: biases, all of every norm, and other vectors and scalars.

    A norm is a module whose class says so (LayerNorm, Qwen2RMSNorm, GroupNorm, ...). Vectors are scales and offsets, such as layer scales
    and LLaVA's `image_newline`, and single tokens [1, 1, H], such as a CLS token. A table of biases by relative position is one too.
    Embeddings do decay, as in the AdamW set-ups of transformers.
    """
    exempt = set()
    for path, module in model.named_modules():
        norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            vector = parameter.ndim < 2 or (parameter.ndim > 2 and parameter.numel() == parameter.shape[-1])
            bias = name == "bias" or name.endswith("_bias") or "relative_position" in f"{path}.{name}"
            if norm or vector or bias:
                exempt.add(id(parameter))
    return exempt
