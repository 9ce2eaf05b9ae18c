"""Random checkpoints that fit one another or do not: a merge has exactly the tensors of its base, or says which tensor is the matter.

`MERGELINE_FUZZ` is how many pairs are merged (default 150; `make chaos` takes thousands, others each time).
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.errors import InputError
from mergers import Source, WeightedAverage, execute, plan_merge, read_checkpoint

CASES = int(os.environ.get("MERGELINE_FUZZ", "150"))
FIRST = random.SystemRandom().randrange(10**9) if "MERGELINE_FUZZ" in os.environ else 0
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Tensors = dict[str, Tensor]


def base_of(chance: Random) -> Tensors:
    """One to eight tensors of odd shapes, the first a matrix; among them buffers of whole numbers and truths."""
    tensors: Tensors = {"layer.0.weight": torch.randn(chance.randint(2, 5), chance.randint(2, 5))}
    for number in range(1, chance.randint(1, 8)):
        shape = [chance.choice([1, 2, 3, 7]) for _ in range(chance.randint(0, 3))]
        kind = chance.choice([*FLOATS, torch.int64, torch.bool])
        tensors[f"layer.{number}.{chance.choice(['weight', 'bias', 'buffer'])}"] = (torch.randn(shape) * 3).to(kind)
    return tensors


def a_name(tensors: Tensors, chance: Random, floating: bool = True) -> str:
    return chance.choice([name for name, tensor in sorted(tensors.items()) if tensor.is_floating_point() == floating])


def dropped(tensors: Tensors, chance: Random) -> str:
    name = chance.choice(sorted(tensors))
    if len(tensors) == 1:
        return added(tensors, chance)  # nothing would be left
    tensors.pop(name)
    return name


def added(tensors: Tensors, chance: Random) -> str:
    tensors["extra.weight"] = torch.ones(chance.randint(1, 3))
    return "extra.weight"


def reshaped(tensors: Tensors, chance: Random) -> str:
    name = a_name(tensors, chance)
    tensors[name] = tensors[name].reshape(1, *tensors[name].shape)
    return name


def broadcast(tensors: Tensors, _: Random) -> str:
    """One row where there should be several: arithmetic would go through without a word."""
    tensors["layer.0.weight"] = tensors["layer.0.weight"][:1].clone()
    return "layer.0.weight"


def counted(tensors: Tensors, chance: Random) -> str:
    """A buffer of whole numbers that is another one in this checkpoint."""
    whole = [name for name, tensor in sorted(tensors.items()) if tensor.dtype == torch.int64]
    if not whole:
        return added(tensors, chance)
    name = chance.choice(whole)
    tensors[name] = tensors[name] + 1
    return name


def of_another_kind(tensors: Tensors, chance: Random) -> str:
    """Whole numbers where there should be weights."""
    name = a_name(tensors, chance)
    tensors[name] = tensors[name].to(torch.int64)
    return name


def broken(tensors: Tensors, _: Random) -> str:
    tensors["layer.0.weight"][0, 0] = float("nan")
    return "layer.0.weight"


FAULTS: dict[str, Callable[[Tensors, Random], str]] = {
    "a tensor is lacking": dropped,
    "a tensor more": added,
    "another shape": reshaped,
    "one row for all": broadcast,
    "another buffer": counted,
    "whole numbers for weights": of_another_kind,
    "not a number": broken,
}


def tuned(base: Tensors, chance: Random) -> Tensors:
    """The base with its weights moved, some of them of another float dtype, in another order; buffers as they are."""
    moved = {name: tensor + 0.5 if tensor.is_floating_point() else tensor.clone() for name, tensor in base.items()}
    for name, tensor in moved.items():
        if tensor.is_floating_point() and chance.random() < 0.3:
            moved[name] = tensor.to(chance.choice(FLOATS[:3]))
    return dict(chance.sample(sorted(moved.items()), len(moved)))


def merged(room: Path, base: Tensors, other: Tensors) -> Tensors:
    """The average, as it was written."""
    sources = []
    for name, tensors in (("base", base), ("tuned", other)):
        (room / name).mkdir()
        save_file(tensors, room / name / "model.safetensors", metadata={"format": "pt"})
        (room / name / "config.json").write_text('{"model_type": "llama"}')
        sources.append(Source(name, read_checkpoint(room / name)))
    execute(plan_merge(WeightedAverage(), sources, room / "out", item_bytes=64))
    return load_file(room / "out" / "model.safetensors")


def test_a_merge_has_the_tensors_of_its_base_or_names_what_does_not_fit(tmp_path: Path) -> None:
    met = Counter[str]()
    for seed in range(FIRST, FIRST + CASES):
        chance = Random(seed)
        torch.manual_seed(seed)
        base = base_of(chance)
        other = tuned(base, chance)
        kind = chance.choice(["nothing", *FAULTS])
        name = FAULTS[kind](other, chance) if kind in FAULTS else ""
        room = tmp_path / "room"
        room.mkdir()
        try:
            found = merged(room, base, other)
            told = ""
        except InputError as error:
            told = str(error)
        assert bool(told) == (kind in FAULTS), (seed, kind, told)
        if told:
            assert name in told, (seed, kind, told)
            assert not (room / "out").exists(), (seed, kind)
        else:
            assert {key: (tensor.shape, tensor.dtype) for key, tensor in found.items()} == {
                key: (tensor.shape, tensor.dtype) for key, tensor in base.items()
            }, seed
            assert all(torch.equal(found[key], tensor) for key, tensor in base.items() if not tensor.is_floating_point()), seed
        met[kind] += 1
        shutil.rmtree(room)
    print(f"state dicts: {CASES} pairs; {dict(met)}")
    assert len(met) == len(FAULTS) + 1
