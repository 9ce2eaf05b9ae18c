"""Llama-shaped checkpoints for benchmarks: a base and fine-tunes of it, from a seed; or headers alone, for models of any size.

The weights are random but shaped like the real thing: N(0, 0.02) for the base's matrices, and each fine-tune is the base plus a change of
N(0, 0.002), half of whose variance all fine-tunes share (a cosine of 0.5), so that signs, magnitudes and angles mean something to TIES,
model stock and their kin. All bytes depend on the shape and the seed only.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from foundation.files import write_json_atomic
from mergers.checkpoints.header import ITEM_BYTES, build_header

MODELS = ("base", "a", "b")
BASE_SPREAD, TUNED_SPREAD = 0.02, 0.002
BLOCK_ELEMENTS = 1 << 20
MAX_FILE_BYTES = 5_000_000_000
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {"BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}
CONFIG_DTYPES = {"BF16": "bfloat16", "F32": "float32"}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama: `layers` blocks of width `hidden`, untied output head."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor, in the order of the model."""
        narrow = self.hidden // self.heads * self.kv_heads
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            yield prefix + "input_layernorm.weight", (self.hidden,)
            yield prefix + "mlp.down_proj.weight", (self.hidden, self.intermediate)
            yield prefix + "mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield prefix + "mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield prefix + "post_attention_layernorm.weight", (self.hidden,)
            yield prefix + "self_attn.k_proj.weight", (narrow, self.hidden)
            yield prefix + "self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield prefix + "self_attn.q_proj.weight", (self.hidden, self.hidden)
            yield prefix + "self_attn.v_proj.weight", (narrow, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(prod(shape) for _, shape in self.tensors())

    def config(self, dtype: str) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": BASE_SPREAD,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 2048,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": CONFIG_DTYPES[dtype],
            "use_cache": True,
            "vocab_size": self.vocabulary,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }


SHAPES = {
    "tiny": Shape(128, 4, 4, 2, 352, 512),
    "50m": Shape(512, 8, 8, 2, 1408, 32000),
    "1.1b": Shape(2048, 22, 32, 4, 5632, 32000),
    "70b": Shape(8192, 80, 64, 8, 28672, 128256),
    "405b": Shape(16384, 126, 128, 8, 53248, 128256),
}
"""Name -> sizes. 1.1b is TinyLlama's shape, 70b and 405b are Llama 3's."""


@dataclass(frozen=True)
class Placed:
    """One tensor of a file that is to be written: `number` counts the model's tensors and addresses its random values."""

    number: int
    name: str
    shape: tuple[int, ...]
    start: int


def make_models(directory: Path, shape: Shape, dtype: str = "BF16", seed: int = 0, models: Sequence[str] = MODELS) -> list[Path]:
    """The directories of `models` (the first is the base), made unless the same ones lie there already."""
    recipe = {"shape": asdict(shape), "dtype": dtype, "seed": seed, "models": list(models)}
    paths = [directory / model for model in models]
    marker = directory / "recipe.json"
    if marker.exists() and json.loads(marker.read_text()) == recipe:
        return paths
    marker.unlink(missing_ok=True)
    placed = [lay_out(path, shape, dtype) for path in paths]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [
            pool.submit(fill_block, files, dtype, seed, start)
            for files in zip(*placed, strict=True)
            for start in range(0, prod(files[0][1].shape), BLOCK_ELEMENTS)
        ]
        for job in jobs:
            job.result()
    write_json_atomic(marker, recipe)
    return paths


def make_headers(directory: Path, shape: Shape, models: Sequence[str] = MODELS) -> list[Path]:
    """The directories of checkpoints in bfloat16 that hold headers and, in place of weights, holes: any size, hardly any disk."""
    paths = [directory / model for model in models]
    for path in paths:
        lay_out(path, shape, "BF16")
    return paths


def lay_out(path: Path, shape: Shape, dtype: str) -> list[tuple[Path, Placed]]:
    """Write config, index and weight files at full size with their headers; gives each tensor's file and place."""
    path.mkdir(parents=True, exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    groups = files_of(shape, dtype)
    places: list[tuple[Path, Placed]] = []
    weight_map: dict[str, str] = {}
    for index, group in enumerate(groups, start=1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{index:05d}-of-{len(groups):05d}.safetensors"
        header, starts = build_header((tensor, dtype, size) for _, tensor, size in group)
        with open(path / name, "wb") as file:
            file.write(header)
            file.truncate(len(header) + sum(prod(size) for _, _, size in group) * ITEM_BYTES[dtype])
        places += [(path / name, Placed(number, tensor, size, starts[tensor])) for number, tensor, size in group]
        weight_map |= {tensor: name for _, tensor, _ in group}
    if len(groups) > 1:
        total = shape.parameters * ITEM_BYTES[dtype]
        write_json_atomic(path / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json_atomic(path / "config.json", shape.config(dtype))
    return places


def files_of(shape: Shape, dtype: str) -> list[list[tuple[int, str, tuple[int, ...]]]]:
    """The tensors (number, name, shape) of each weight file."""
    groups: list[list[tuple[int, str, tuple[int, ...]]]] = [[]]
    room = MAX_FILE_BYTES
    for number, (name, size) in enumerate(shape.tensors()):
        nbytes = prod(size) * ITEM_BYTES[dtype]
        if groups[-1] and nbytes > room:
            groups.append([])
            room = MAX_FILE_BYTES
        groups[-1].append((number, name, size))
        room -= nbytes
    return groups


def fill_block(files: Sequence[tuple[Path, Placed]], dtype: str, seed: int, start: int) -> None:
    """Write elements from `start` on of one tensor in every model: the base's values, and these plus each fine-tune's own change."""
    tensor = files[0][1]
    count = min(BLOCK_ELEMENTS, prod(tensor.shape) - start)
    base = normal(seed, 0, tensor.number, start, count) * np.float32(BASE_SPREAD)
    if len(tensor.shape) == 1:  # the scale of a norm
        base += np.float32(1)
    shared = normal(seed, 1, tensor.number, start, count)
    for model, (path, placed) in enumerate(files, start=1):
        own = normal(seed, model, tensor.number, start, count) if model > 1 else None
        values = base if own is None else base + (shared + own) * np.float32(TUNED_SPREAD / sqrt(2))
        data = to_bfloat16(values) if dtype == "BF16" else values
        with open(path, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data.tobytes(), placed.start + start * ITEM_BYTES[dtype])


def normal(seed: int, model: int, tensor: int, start: int, count: int) -> Array:
    """`count` standard normal values in float32, addressed by their place."""
    return np.random.default_rng([seed, model, tensor, start]).standard_normal(count, dtype=np.float32)


def to_bfloat16(values: Array) -> Array:
    """The bits of float32 `values` rounded to bfloat16, to nearest, ties to even (finite values)."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
