"""A PEFT LoRA adapter on its base, as one checkpoint: the base's tensors with low-rank matrices noted on top. Nothing is written or merged
beforehand; whoever reads a tensor adds scale * up @ down to it (Hu et al. 2021, "LoRA", section 4.1: W + (alpha / r) B A).

What an adapter may hold besides A and B: whole tensors that take the base's place (modules_to_save, trained biases), and rows of an
embedding (trainable tokens). They keep the base's dtype. Where PEFT rounds the product to the adapter's dtype and the sum to the base's,
here both stay in float32 until the merge's own single rounding. Variants that are no W + scale * B A (DoRA, aLoRA, ...), or that were
trained on a changed base (PiSSA, LoftQ, ...), are refused, and so is every tensor of the adapter that finds no place in the base.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from mergers.checkpoints.checkpoint import PICKLES, SAFETENSORS, Checkpoint, holds, inside, read_json
from mergers.checkpoints.header import FLOATS, LowRank, Rows, TensorEntry, read_header
from mergers.checkpoints.pickles import ALLOW, read_pickle
from mergers.sources.names import modern, steps_of

CONFIG = "adapter_config.json"
SINGLE = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."
PAIRS = (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B"))
TOKENS = "token_adapter.trainable_tokens_delta"
ROLES = (*PAIRS[0], *PAIRS[1], TOKENS)
"""What a tensor of an adapter may be to its module. All others are parameters of the module itself, whose place they take."""
OTHERWISE = "merge this adapter with PEFT (merge_and_unload), save the model, and name that"
READ = frozenset({
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "trainable_token_indices",
    "init_lora_weights", "base_model_name_or_path", "revision",
})  # fmt: skip
NO_EFFECT = frozenset({
    "auto_mapping", "bias", "corda_config", "eva_config", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save",
    "peft_version", "qalora_group_size", "runtime_config", "target_modules", "task_type",
})  # fmt: skip
"""Keys of adapter_config.json that do not change what its tensors mean. Any other that is set is refused."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to start A and B that leave the base as it was."""


def is_adapter(path: Path) -> bool:
    """Whether a directory holds a PEFT adapter and no whole model."""
    return (path / CONFIG).is_file() and not (holds(path, SAFETENSORS) or holds(path, PICKLES))


def base_of(path: Path) -> str:
    """What the adapter in a directory says its base is: a path or a hub id with revision. InputError if it does not say."""
    config = read_json(path, CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise InputError(f"{path / CONFIG} does not name the base model; write the source as base+{path}")
    return f"{base}@{revision}" if isinstance(revision, str) and revision and not Path(base).exists() else base


def open_adapter(path: Path, base: Checkpoint, allow_pickle: bool = False) -> Checkpoint:
    """`base` with the LoRA adapter in the directory `path` on it: the same names, shapes, dtypes and small files.

    Raises InputError for an adapter of another kind, one that does not fit the base, and one that changes the size of a tensor.
    """
    path = Path(os.path.abspath(path))
    config = read_json(path, CONFIG)
    check_kind(path, config)
    places = Places(path, base)
    changed: dict[str, TensorEntry] = {}
    for module, roles in parts_of(path, adapter_tensors(path, allow_pickle)).items():
        changed |= {entry.name: entry for entry in changes(path, config, places, module, roles)}
    refuse_ambiguous(path, config, changed.values())
    return replace(base, tensors={name: changed.get(name, entry) for name, entry in base.tensors.items()})


def check_kind(path: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError unless the config describes plain LoRA."""
    where = path / CONFIG
    if config.get("peft_type") != "LORA":
        raise InputError(f"{where}: peft_type is {config.get('peft_type')!r}; only LORA adapters are merged on the fly; {OTHERWISE}")
    start = config.get("init_lora_weights")
    if not any(start is known or start == known for known in PLAIN_STARTS):
        raise InputError(
            f"{where}: init_lora_weights is {start!r}, which changes the base's own weights before training; convert the adapter to plain "
            "LoRA (PEFT's path_initial_model_for_weight_conversion), or merge it with PEFT"
        )
    unknown = sorted(key for key, value in config.items() if value and key not in READ | NO_EFFECT)
    if unknown:
        raise InputError(
            f"{where}: {unknown[0]} is {config[unknown[0]]!r}; that is not plain LoRA (weight + scale * B A), and merging it as if it were "
            f"would be wrong; {OTHERWISE}"
        )


def adapter_tensors(path: Path, allow_pickle: bool) -> dict[str, TensorEntry]:
    """The tensors of an adapter directory."""
    if (path / SINGLE).exists():
        found = read_header(inside(path, SINGLE))
    elif not (path / PICKLE).exists():
        raise InputError(f"{path} holds {CONFIG} but no {SINGLE}; copy or download it again")
    elif not allow_pickle:
        raise InputError(
            f"{path} holds its weights in {PICKLE} only; pickles can run code, so they are read only where you allow it: {ALLOW}"
        )
    else:
        found = read_pickle(inside(path, PICKLE))
    if not found:
        raise InputError(f"{path / SINGLE} holds no tensors")
    return found


def parts_of(path: Path, tensors: Mapping[str, TensorEntry]) -> dict[str, dict[str, TensorEntry]]:
    """Module -> role -> tensor, where a role is one of PAIRS, TOKENS, or the name of a parameter whose place the tensor takes."""
    found: dict[str, dict[str, TensorEntry]] = defaultdict(dict)
    for name, entry in sorted(tensors.items()):
        if not name.startswith(PREFIX):
            raise InputError(
                f"{path}: tensor '{name}' does not begin with {PREFIX}, as PEFT's adapters do; save the adapter with PEFT again"
            )
        if entry.dtype not in FLOATS:
            raise InputError(f"{path}: tensor '{name}' has dtype {entry.dtype}; an adapter's are {', '.join(FLOATS)}")
        module, role = split(name.removeprefix(PREFIX))
        if role in found[module] or (role not in ROLES and re.search(r"\b(lora_|token_adapter)", name)):
            raise InputError(
                f"{path}: tensor '{name}' {entry.shape} has no place in plain LoRA (a DoRA magnitude, a bias of B, an adapter on experts, "
                f"...); {OTHERWISE}"
            )
        found[module][role] = entry
    return found


def split(parameter: str) -> tuple[str, str]:
    """The module and the role of a tensor's name. `base_layer` is the module itself, beneath what PEFT put around it."""
    parameter = parameter.replace(".base_layer.", ".")
    role = next((role for role in ROLES if parameter.endswith(f".{role}")), parameter.rpartition(".")[2])
    return parameter.removesuffix(role).removesuffix("."), role


class Places:
    """Where a base keeps the parameters that an adapter names: the adapter's names are those in memory, the base's those on disk."""

    def __init__(self, adapter: Path, base: Checkpoint) -> None:
        self.adapter, self.base = adapter, base
        self.steps = steps_of(base.config)
        self.disk = {modern(name, self.steps): name for name in base.tensors}

    def find(self, parameter: str, tensor: TensorEntry) -> TensorEntry:
        """The base's tensor that is the parameter of this name; InputError, naming the adapter's `tensor`, if there is none."""
        name = self.disk.get(modern(parameter, self.steps))
        if name is None:
            tied = " (it has no output head of its own: it is tied to the embedding)" if parameter.endswith("lm_head.weight") else ""
            raise InputError(
                f"{self.adapter}: tensor '{tensor.name}' belongs on '{parameter}', which the base {self.base.path} does not hold{tied}; "
                "name the base that the adapter was trained on"
            )
        return self.base.tensors[name]


def changes(path: Path, config: Mapping[str, Any], places: Places, module: str, roles: Mapping[str, TensorEntry]) -> list[TensorEntry]:
    """The base's entries that the adapter's tensors for one module change, as they become."""
    changed = {}
    for role in sorted(roles.keys() - set(ROLES)):
        changed[role] = in_place_of(path, places.find(f"{module}.{role}", roles[role]), roles[role])
    for names in PAIRS:
        pair = [roles[name] for name in names if name in roles]
        if len(pair) == 1:
            raise InputError(f"{path}: tensor '{pair[0].name}' has no counterpart, LoRA needs both A and B; copy or save the adapter again")
        if pair:
            weight = changed.get("weight") or places.find(f"{module}.weight", pair[0])
            changed["weight"] = with_low_rank(path, config, module, weight, *pair)
    if TOKENS in roles:
        weight = changed.get("weight") or places.find(f"{module}.weight", roles[TOKENS])
        changed["weight"] = with_tokens(path, config, module, weight, roles[TOKENS])
    return list(changed.values())


def in_place_of(path: Path, old: TensorEntry, new: TensorEntry) -> TensorEntry:
    """An adapter's whole tensor under the base's name and dtype; InputError if it has another shape."""
    if new.shape != old.shape:
        raise InputError(
            f"{path}: tensor '{new.name}' {new.shape} takes the place of '{old.name}', which is {old.shape} in the base; an adapter that "
            f"changes sizes (a resized vocabulary) is not merged on the fly; {OTHERWISE}"
        )
    if new.dtype == old.dtype or not new.shape:
        return replace(new, name=old.name)
    return replace(new, name=old.name, dtype=old.dtype, rows=Rows.of((new,), ((0, row) for row in range(new.shape[0]))))


def with_low_rank(
    path: Path, config: Mapping[str, Any], module: str, weight: TensorEntry, down: TensorEntry, up: TensorEntry
) -> TensorEntry:
    """`weight` with scale * up @ down on it; InputError if the three do not fit."""
    if len(down.shape) != 2 or len(up.shape) != 2 or len(weight.shape) != 2:
        raise InputError(
            f"{path}: '{down.name}' {down.shape} and '{up.name}' {up.shape} on a weight of shape {weight.shape}: only matrices are merged "
            f"on the fly, not convolutions; {OTHERWISE}"
        )
    rank, scale = scaling(path, config, module)
    shape = (up.shape[0], down.shape[1])
    embedding = down.name.endswith(".lora_embedding_A")
    transposed = embedding or weight.shape != shape or (shape[0] == shape[1] and bool(config.get("fan_in_fan_out")))
    if (rank, rank) != (down.shape[0], up.shape[1]) or weight.shape != (shape[::-1] if transposed else shape):
        raise InputError(
            f"{path}: '{down.name}' {down.shape} and '{up.name}' {up.shape} do not fit a weight of shape {weight.shape} at rank {rank} (as "
            f"{CONFIG} gives it); name the base that the adapter was trained on"
        )
    return replace(weight, added=(*weight.added, LowRank(up, down, scale, transposed)))


def scaling(path: Path, config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """(rank, scale) of a module: alpha / rank, or alpha / sqrt(rank) where the adapter is rank-stabilized (Kalajdzievski 2023).

    A pattern is a regular expression for a module's whole name, or for the end of it after a dot; the first that fits counts.
    """
    found: list[Any] = []
    for key, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        table = config.get(patterns) or {}
        try:
            found.append(next((value for text, value in table.items() if re.match(rf"(.*\.)?({text})$", module)), config.get(key)))
        except (re.error, AttributeError) as error:
            raise InputError(f"{path / CONFIG}: {patterns} is {table!r}, not a table of regular expressions ({error})") from None
    rank, alpha = found
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise InputError(
            f"{path / CONFIG}: module '{module}' has rank {rank!r} and alpha {alpha!r}; expected a whole number >= 1 and a number"
        )
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def with_tokens(path: Path, config: Mapping[str, Any], module: str, weight: TensorEntry, trained: TensorEntry) -> TensorEntry:
    """An embedding some of whose rows, those of trainable_token_indices, are replaced by the rows of `trained`."""
    said = config.get("trainable_token_indices")
    if isinstance(said, dict):
        said = next((value for key, value in said.items() if module == key or module.endswith(f".{key}")), None)
    fits = isinstance(said, list) and all(type(index) is int and 0 <= index < weight.shape[0] for index in said)
    if not fits or len(set(said)) != len(said) or trained.shape != (len(said), *weight.shape[1:]):  # type: ignore[arg-type]
        raise InputError(
            f"{path}: '{trained.name}' {trained.shape} does not fit the {weight.shape} of the base and trainable_token_indices "
            f"{str(said)[:80]}; name the base that the adapter was trained on"
        )
    new_row = {index: position for position, index in enumerate(said)}  # type: ignore[arg-type]
    places = ((1, new_row[row]) if row in new_row else (0, row) for row in range(weight.shape[0]))
    return replace(weight, added=(), rows=Rows.of((weight, trained), places))


def refuse_ambiguous(path: Path, config: Mapping[str, Any], changed: Iterable[TensorEntry]) -> None:
    """Raise InputError if it cannot be told whether a square weight is stored as [out, in] or [in, out].

    The adapter says so in one flag for all its modules, true of the last that PEFT saw; other shapes tell it themselves.
    """
    flag = bool(config.get("fan_in_fan_out"))
    linear = [entry for entry in changed if entry.added and not entry.added[-1].down.name.endswith(".lora_embedding_A")]
    square = next((entry for entry in linear if entry.shape[0] == entry.shape[1]), None)
    contrary = next((entry for entry in linear if entry.shape[0] != entry.shape[1] and entry.added[-1].transposed != flag), None)
    if square and contrary:
        raise InputError(
            f"{path / CONFIG}: fan_in_fan_out is {flag}, but '{contrary.name}' is stored the other way round, so how '{square.name}' "
            f"{square.shape} is stored cannot be told; {OTHERWISE}"
        )
