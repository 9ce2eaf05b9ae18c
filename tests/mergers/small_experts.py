"""Small checkpoints of a modality-expert transformer, in its names, for every way of sharing; their seed, and Grams of their inputs."""

import torch
from merge_bench import Bench
from safetensors.torch import save_file
from torch import Tensor

from mergers import Source, read_checkpoint
from mergers.checkpoints.checkpoint import Checkpoint
from mergers.checkpoints.header import TensorEntry, read_header
from mergers.experts import EXPERTS

HIDDEN, INNER, LAYERS, FUSION = 4, 6, 3, 2
OWN = {
    "all": ("attention", "norm1", "mlp", "norm2"),
    "attention": ("attention", "norm1"),
    "ffn": ("mlp", "norm2"),
    "layer_norm": ("norm1", "norm2"),
    "shared": (),
}
"""Way of sharing -> the parts of a layer that are an expert's own."""
PARTS = {
    "attention": {
        "qkv.weight": (3 * HIDDEN, HIDDEN), "q_bias": (HIDDEN,), "v_bias": (HIDDEN,),
        "proj.weight": (HIDDEN, HIDDEN), "proj.bias": (HIDDEN,),
    },
    "norm1": {"weight": (HIDDEN,), "bias": (HIDDEN,)},
    "mlp": {"fc1.weight": (INNER, HIDDEN), "fc1.bias": (INNER,), "fc2.weight": (HIDDEN, INNER), "fc2.bias": (HIDDEN,)},
    "norm2": {"weight": (HIDDEN,), "bias": (HIDDEN,)},
}  # fmt: skip
OUTSIDE = {
    "embeddings.word.weight": (11, HIDDEN),
    "embeddings.token_type.weight": (2, HIDDEN),
    "embeddings.text_norm.weight": (HIDDEN,),
    "embeddings.text_norm.bias": (HIDDEN,),
    "embeddings.patch.weight": (HIDDEN, 3, 2, 2),
    "embeddings.patch.bias": (HIDDEN,),
    "embeddings.cls": (1, 1, HIDDEN),
    "relative_positions.table": (9, 2 * LAYERS),
    "norm.weight": (HIDDEN,),
    "norm.bias": (HIDDEN,),
    "pooler.dense.weight": (HIDDEN, HIDDEN),
    "pooler.dense.bias": (HIDDEN,),
    "heads.itc.text_projection.weight": (HIDDEN, HIDDEN),
    "heads.itc.logit_scale": (),
}
MATRICES = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")


def shapes(sharing: str, layers: int = LAYERS, fusion: int = FUSION) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of such a model; vl experts exist from layer `fusion` on."""
    found = dict(OUTSIDE)
    for layer in range(layers):
        experts = EXPERTS if layer >= fusion else EXPERTS[:2]
        found |= {f"encoder.layers.{layer}.{gamma}": (HIDDEN,) for gamma in ("gamma1", "gamma2")}
        for part, tensors in PARTS.items():
            for owner in experts if part in OWN[sharing] else (None,):
                place = ".".join(word for word in (f"encoder.layers.{layer}", part, owner) if word)
                found |= {f"{place}.{name}": shape for name, shape in tensors.items()}
    return found


def tensors_of(sharing: str, seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: int) -> dict[str, Tensor]:
    """Random values."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in sorted(shapes(sharing, **sizes).items())}


def config_of(sharing: str) -> dict[str, object]:
    """What their config.json says."""
    return {
        "model_type": "modality_experts",
        "sharing": sharing,
        "heads": ["itc"],
    }


def saved(bench: Bench, name: str, sharing: str, tensors: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint of these tensors."""
    return read_checkpoint(bench.save(name, tensors, config_of(sharing)))


def seed_of(bench: Bench, tensors: dict[str, Tensor] | None = None) -> Source:
    """A model without experts, for a base."""
    return Source("seed", saved(bench, "seed", "shared", tensors or tensors_of("shared", 7)))


def played(name: str, tensors: dict[str, Tensor], experts: tuple[str, ...] = EXPERTS) -> list[Tensor]:
    """The experts' own tensors that become the output's `name`, in the order of `experts`."""
    parts = name.split(".")
    owned = [".".join([*parts[:4], expert, *parts[4:]]) for expert in experts]
    return [tensors[each] for each in owned if each in tensors]


def grams(bench: Bench, tensors: dict[str, Tensor], experts: tuple[str, ...] = EXPERTS, name: str = "gram") -> dict[str, TensorEntry]:
    """Gram matrices for the matrices of these experts, by the checkpoint's names, as `statistics` of a source."""
    generator = torch.Generator().manual_seed(5)
    found = {}
    for tensor, value in tensors.items():
        if tensor.endswith(MATRICES) and tensor.startswith("encoder.") and set(tensor.split(".")) & set(experts):
            inputs = torch.randn(20, value.shape[1], generator=generator) * torch.rand(value.shape[1], generator=generator)
            gram = inputs.double().T @ inputs.double() / 20
            found[tensor] = ((gram + gram.T) / 2).float()  # symmetric to the bit
    place = bench.root / f"{name}.safetensors"
    save_file(found, place)
    return read_header(place)
