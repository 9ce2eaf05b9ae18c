"""The plan of a merge: everything that headers and configs can decide, decided before any work.

`plan_merge` checks the request and the sources, lays out the output files and every tensor's bytes in them, and reads no weights. What it
returns can be printed, pickled, and carried out by `execute.py` with any number of workers to the same bytes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from foundation.sizes import size
from mergers.checkpoints.companions import Companion, choose_companions, enter_values
from mergers.checks import PROCESS_BYTES, SPARE_DISK, check_disk, check_memory, check_output, check_request, working_memory
from mergers.engine.layout import (
    ITEM_OUTPUT_BYTES,
    MAX_SHARD_SIZE,
    Action,
    OutputFile,
    TensorPlan,
    WorkItem,
    bytes_counted,
    cut_items,
    lay_out_files,
)
from mergers.gather import gather
from mergers.match import dtype_notes, main_dtype, partial_notes, plan_tensors
from mergers.merger import Merger
from mergers.sources.inside import check_shared
from mergers.sources.source import Source, all_experts, described
from mergers.table import method_name

CONFIG_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Plan:
    """A merge that has passed every check. `tensors` are the output's, `proofs` the tied heads to be proven redundant, `notes` what a user
    should know."""

    merger: Merger
    sources: tuple[Source, ...]
    base: Source | None
    output: Path
    tensors: tuple[TensorPlan, ...]
    proofs: tuple[TensorPlan, ...]
    files: tuple[OutputFile, ...]
    companions: tuple[Companion, ...]
    notes: tuple[str, ...]
    allow_nonfinite: bool
    replace: bool
    item_bytes: int

    @cached_property
    def items(self) -> tuple[WorkItem, ...]:
        """The work, in pieces of fixed size that no number of workers changes."""
        names = tuple(source.name for source in self.everyone)
        return cut_items((*self.proofs, *self.tensors), self.files, names, self.allow_nonfinite, self.item_bytes)

    @property
    def everyone(self) -> tuple[Source, ...]:
        """The sources, then the base if there is one."""
        return (*self.sources, self.base) if self.base else self.sources

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources, in config order."""
        return tuple(source.name for source in self.sources)

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors of the output."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def rounds(self) -> int:
        """Counting passes over the weights before they are merged, at most."""
        return max((tensor.merger.rounds for tensor in self.tensors), default=0)

    @cached_property
    def bytes_to_read(self) -> int:
        """Bytes of weights and statistics that will be read, over all passes that are to be reckoned with."""
        once = sum(entry.nbytes for tensor in (*self.tensors, *self.proofs) for entry in tensor.reads)
        return once + bytes_counted(self.items)

    @cached_property
    def memory(self) -> int:
        """About how many bytes a worker needs: the process, and the blocks of the most demanding tensor with what is computed on them."""
        return PROCESS_BYTES + max((working_memory(tensor) for tensor in self.tensors), default=0)

    @property
    def bytes_to_move(self) -> int:
        """Bytes to read and to write: what progress is measured in."""
        return self.bytes_to_read + self.bytes_to_write

    @property
    def bytes_to_write(self) -> int:
        """Bytes of the output's weights."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def summary(self) -> str:
        """The plan in a line."""
        copied = sum(tensor.action is Action.COPY for tensor in self.tensors)
        return (
            f"{method_name(self.merger)} of {', '.join(self.source_names)}: {len(self.tensors) - copied} tensors to merge, {copied} to "
            "copy, "
            f"{self.parameters:,} parameters, reads {size(self.bytes_to_read)}, writes {size(self.bytes_to_write)}"
        )

    def describe(self) -> list[str]:
        """The plan in lines: sources and what each counts for, tensors, dtypes, bytes, output files, and what was noted."""
        lines = [f"merge: {self.merger}"]
        for source, role in zip(self.sources, self.merger.roles(self.source_names), strict=True):
            checkpoint = source.checkpoint
            seen = f", seen {described(source)}" if source.view.describe() else ""
            origin = f", {source.origin}" if source.origin else ""
            held = f"{len(checkpoint.tensors)} tensors, {size(checkpoint.nbytes)}"
            lines.append(f"source '{source.name}': {role}; {checkpoint.path} ({held}{seen}{origin})")
        if self.base:
            lines.append(f"base '{self.base.name}': {self.base.checkpoint.path}")
        dtypes = Counter(tensor.dtype for tensor in self.tensors)
        lines.append(self.summary)
        lines.append(
            f"each worker needs about {size(self.memory)} of memory; free disk needed: {size(self.bytes_to_write * SPARE_DISK)}"
            + (f"; at most {self.rounds} counting passes come before the writing pass" if self.rounds else "")
        )
        lines.append(f"dtypes of the output: {', '.join(f'{count} tensors {dtype}' for dtype, count in sorted(dtypes.items()))}")
        lines.append(f"output: {self.output}, in {len(self.items)} work items")
        lines += [f"  {file.name} ({size(file.nbytes)}, {len(file.starts)} tensors)" for file in self.files]
        lines += [f"  {companion.name} (from '{companion.source}')" for companion in self.companions]
        return lines + [f"note: {note}" for note in self.notes]


def plan_merge(
    merger: Merger,
    sources: Sequence[Source],
    output: Path,
    *,
    base: Source | None = None,
    partial: bool = False,
    files_from: str | None = None,
    allow_nonfinite: bool = False,
    replace: bool = False,
    max_shard_size: int = MAX_SHARD_SIZE,
    dtype: str | None = None,
    tokenizer_source: str | None = None,
    pad_to_multiple_of: int = 1,
    config: Mapping[str, Any] | None = None,
    item_bytes: int = ITEM_OUTPUT_BYTES,
) -> Plan:
    """The plan for merging `sources` (in this order) into the directory `output`.

    `files_from` names the source whose config, tokenizer and processor the output carries (default: the merger's choice). `partial` lets
    tensors be merged over the sources that hold them. `replace` allows an existing checkpoint at `output` to be replaced; nothing is
    touched before the new one is complete. `dtype` (a safetensors name, e.g. BF16) is what the output's floats are rounded to, once.
    `tokenizer_source` says how vocabularies that differ are brought together (see `checkpoints/vocabulary.py`). `config` holds keys that
    the output's config.json has other values for than the source it is taken from.

    Raises ConfigError for a request that cannot be honoured, InputError for sources that do not fit, ResourceError for too little disk or
    memory.
    """
    names = [source.name for source in sources]
    check_request(merger, sources, base, files_from, max_shard_size, dtype)
    output = Path(os.path.realpath(output))
    check_output(output, [*sources, base] if base else list(sources), replace)
    gathered = gather(sources, base, partial, tokenizer_source, pad_to_multiple_of)
    everyone, anchor, vocabulary = gathered.everyone, gathered.anchor, gathered.vocabulary
    tensors = plan_tensors(merger, sources, base, gathered.held, anchor, dtype)
    notes = [*gathered.notes, *partial_notes(tensors, names, all_experts(sources))]
    notes += dtype_notes(tensors, [source.name for source in everyone])
    wanted = files_from or merger.files_from(names)
    main = wanted if wanted and (files_from or whole(everyone, wanted)) else anchor.name
    companions, settings, changed = companions_of(everyone, main, tensors, config or {})
    check_shared(sources, settings, [tensor.name for tensor in tensors])
    notes += changed
    companions = vocabulary.companions(companions) if vocabulary else companions
    files = lay_out_files(tensors, max_shard_size)
    check_disk(output, sum(file.nbytes for file in files))
    check_memory(tensors)
    notes += tied_notes(gathered.proofs)
    proofs, told = gathered.proofs, tuple(notes)
    return Plan(merger, tuple(sources), base, output, tensors, proofs, files, companions, told, allow_nonfinite, replace, item_bytes)


def tied_notes(proofs: Sequence[TensorPlan]) -> list[str]:
    """A sentence if an output head is left out."""
    if not proofs:
        return []
    name = proofs[0].name
    return [f"the config ties the output head to the embedding, so '{name}' is left out, once its bytes prove equal to the embedding's"]


def companions_of(
    everyone: Sequence[Source], main: str, tensors: Sequence[TensorPlan], config: Mapping[str, Any]
) -> tuple[tuple[Companion, ...], dict[str, Any], list[str]]:
    """The output's small files, its config, and a sentence on what `config` changes in it."""
    mixed = any(entry.dtype != tensor.dtype for tensor in tensors for entry in tensor.entries)
    return enter_values(choose_companions(everyone, main, CONFIG_DTYPES[main_dtype(tensors)] if mixed else None), config)


def whole(everyone: Sequence[Source], name: str) -> bool:
    """Whether the source of that name is a whole model, whose config can be the output's."""
    return any(source.name == name and source.view.whole for source in everyone)
