"""A merge as a user asked for it, whatever they wrote it in: our merge file, mergekit's, or options of the command line.

Making one opens nothing. `open_request` opens what it names and plans the merge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError, InputError
from mergers.checkpoints.checkpoint import Checkpoint
from mergers.checkpoints.header import TensorEntry, read_header
from mergers.checkpoints.resolve import is_hub_id, open_source, split_adapters
from mergers.depth import towers
from mergers.engine.layout import MAX_SHARD_SIZE
from mergers.merger import Merger, Need
from mergers.plan import Plan, plan_merge
from mergers.sources.source import Source
from mergers.sources.views import Identity, View
from mergers.table import method_name

DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""How users call the dtypes that can be written -> how safetensors does."""


@dataclass(frozen=True)
class SourceRequest:
    """One checkpoint to merge: its name in the merge, what names the checkpoint, how it is seen, the file of what was measured on it."""

    name: str
    checkpoint: str
    view: View = field(default_factory=Identity)
    statistics: str | None = None

    def open(self, allow_pickle: bool) -> Source:
        """The source, by its headers. InputError if there is no such checkpoint or statistics, or they are damaged."""
        checkpoint = open_source(self.checkpoint, allow_pickle)
        return Source(self.name, checkpoint, self.view, origin_of(self.checkpoint, checkpoint), self.measured())

    def measured(self) -> dict[str, TensorEntry]:
        """What was measured on it, by tensor."""
        if self.statistics is None:
            return {}
        path = Path(self.statistics).expanduser()
        if not path.is_file():
            raise InputError(
                f"statistics of '{self.name}': there is no file {self.statistics}; name the safetensors file of what was measured on it"
            )
        return read_header(path)


@dataclass(frozen=True)
class MergeRequest:
    """What is to be merged, how, and how the result is to be written. `dtype` is safetensors' name, None for the sources' own.

    `config` holds what the output's config.json says in place of its source's.
    `layers` is the range of layers that a mergekit file takes from its models, to be held against them. `notes` are what the user should
    know about how the request was understood.
    """

    merger: Merger
    sources: tuple[SourceRequest, ...]
    base: SourceRequest | None = None
    files_from: str | None = None
    dtype: str | None = None
    max_shard_size: int = MAX_SHARD_SIZE
    partial: bool = False
    allow_pickle: bool = False
    allow_nonfinite: bool = False
    tokenizer_source: str | None = None
    pad_to_multiple_of: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources, in order."""
        return tuple(source.name for source in self.sources)

    def check(self) -> None:
        """Raise ConfigError for what is wrong whatever the checkpoints hold; opens nothing."""
        self.merger.check(self.names)
        if self.merger.base is Need.REQUIRED and self.base is None:
            raise ConfigError(f"{method_name(self.merger)} measures every source from a base checkpoint; name one as base")


def open_request(request: MergeRequest, output: Path, replace_output: bool = False) -> Plan:
    """The plan of the merge into `output`, every source opened by its headers. Raises ConfigError, InputError, ResourceError."""
    request.check()
    sources = [source.open(request.allow_pickle) for source in request.sources]
    base = request.base.open(request.allow_pickle) if request.base else None
    if request.layers is not None:
        check_layers(request.layers, sources)
    plan = plan_merge(
        request.merger,
        sources,
        output,
        base=base,
        partial=request.partial,
        files_from=request.files_from,
        allow_nonfinite=request.allow_nonfinite,
        replace=replace_output,
        max_shard_size=request.max_shard_size,
        dtype=request.dtype,
        tokenizer_source=request.tokenizer_source,
        pad_to_multiple_of=request.pad_to_multiple_of,
        config=request.config,
    )
    return replace(plan, notes=(*request.notes, *plan.notes))


def check_layers(layers: tuple[int, int], sources: list[Source]) -> None:
    """Raise ConfigError unless `layers` (first, one after the last) are all the layers of a source's longest tower."""
    for source in sources:
        count = max(towers(source.checkpoint.tensors).values(), default=-1) + 1
        if layers != (0, count):
            raise ConfigError(
                f"the slices take layers {layers[0]} to {layers[1]}, source '{source.name}' has {count}; taking some layers and leaving "
                f"out others is not merging and cannot be done here: give layer_range: [0, {count}], or write models in place of slices"
            )


def origin_of(text: str, checkpoint: Checkpoint) -> str:
    """What the model card says of a source: the hub id with its commit, or the directory's name, without where it lies on this machine."""
    first, *adapters = split_adapters(text)
    commit = f" (commit {checkpoint.path.name})" if checkpoint.path.parent.name == "snapshots" else ""
    told = [first + commit if is_hub_id(first) else checkpoint.path.name]
    told += [adapter if is_hub_id(adapter) else Path(adapter).name for adapter in adapters]
    return " + ".join(told)
