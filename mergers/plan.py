"""The plan of a merge: everything that headers and configs can decide, decided before any work.

`plan_merge` checks the request and the sources, lays out the output files and every tensor's bytes in them, and reads no weights. What it
returns can be printed, pickled, and carried out by `execute.py` with any number of workers to the same bytes.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foundation.errors import ConfigError, ResourceError
from foundation.hints import unknown
from mergers.agreement import check_configs, check_cover, check_names, check_tensor, drop_tied_heads
from mergers.companions import Companion, choose_companions
from mergers.header import FLOATS, TensorEntry
from mergers.layout import (
    ITEM_OUTPUT_BYTES,
    MAX_SHARD_SIZE,
    Action,
    OutputFile,
    TensorPlan,
    WorkItem,
    cut_pieces,
    lay_out_files,
)
from mergers.merger import Merger
from mergers.table import method_name
from mergers.view import Source, unify

SPARE_DISK = 1.1
"""Free disk asked for, as a multiple of what will be written."""
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
        names = self.source_names
        pieces = cut_pieces((*self.proofs, *self.tensors), self.files, self.merger.granularity, self.item_bytes)
        return tuple(WorkItem(index, self.merger, names, part, self.allow_nonfinite) for index, part in enumerate(pieces))

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources, in config order."""
        return tuple(source.name for source in self.sources)

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors of the output."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bytes_to_read(self) -> int:
        """Bytes of weights that the sources (and the base) will be read for."""
        entries = [entry for tensor in (*self.tensors, *self.proofs) for entry in (*tensor.entries, tensor.base) if entry]
        return sum(entry.nbytes for entry in entries)

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
            origin = f", {source.origin}" if source.origin else ""
            lines.append(
                f"source '{source.name}': {role}; {checkpoint.path} ({len(checkpoint.tensors)} tensors, {size(checkpoint.nbytes)}{origin})"
            )
        if self.base:
            lines.append(f"base '{self.base.name}': {self.base.checkpoint.path}")
        dtypes = Counter(tensor.dtype for tensor in self.tensors)
        lines.append(self.summary)
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
    item_bytes: int = ITEM_OUTPUT_BYTES,
) -> Plan:
    """The plan for merging `sources` (in this order) into the directory `output`.

    `files_from` names the source whose config, tokenizer and processor the output carries (default: the merger's choice). `partial` lets
    tensors be merged over the sources that hold them. `replace` allows an existing checkpoint at `output` to be replaced; nothing is
    touched before the new one is complete. Raises ConfigError for a request that cannot be honoured, InputError for sources that do not
    fit, ResourceError for too little disk.
    """
    names = [source.name for source in sources]
    check_request(merger, names, base, files_from, max_shard_size)
    output = Path(os.path.abspath(output))
    check_output(output, [*sources, *([base] if base else [])], replace)
    notes = check_configs([*sources, *([base] if base else [])])
    everyone = [*sources, base] if base else list(sources)
    named, renamed = unify(everyone)
    held, proofs = drop_tied_heads(everyone, named)
    check_cover(everyone, held, partial)
    tensors = plan_tensors(names, held[: len(names)], held[-1] if base else None)
    notes += renamed + partial_notes(tensors, names) + dtype_notes(tensors, names)
    mixed = any(entry.dtype != tensor.dtype for tensor in tensors for entry in tensor.entries)
    dtype = CONFIG_DTYPES[main_dtype(tensors)] if mixed else None
    companions = choose_companions(sources, files_from or merger.files_from(names), dtype)
    files = lay_out_files(tensors, max_shard_size)
    check_disk(output, sum(file.nbytes for file in files))
    proven = tuple(plan_proof(position, head, tied) for position, head, tied in proofs)
    if proven:
        notes.append(
            f"the config ties the output head to the embedding, so '{proven[0].name}' is left out, once its bytes prove equal to the "
            "embedding's"
        )
    return Plan(
        merger, tuple(sources), base, output, tensors, proven, files, companions, tuple(notes), allow_nonfinite, replace, item_bytes
    )


def check_request(merger: Merger, names: Sequence[str], base: Source | None, files_from: str | None, max_shard_size: int) -> None:
    """Raise ConfigError for a request that is wrong whatever the checkpoints hold."""
    method = method_name(merger)
    check_names([*names, *([base.name] if base else [])])
    merger.check(names)
    if merger.needs_base and base is None:
        raise ConfigError(f"{method} measures every source from a base checkpoint; name one as base")
    if base is not None and not merger.needs_base:
        raise ConfigError(f"{method} has no use for a base, but '{base.name}' is given as one; leave it out, or list it among the sources")
    if merger.statistics or merger.rounds:
        raise ConfigError(
            f"{method} needs statistics ({', '.join(merger.statistics) or f'{merger.rounds} counting rounds'}) that plan_merge cannot "
            "supply"
        )
    if files_from is not None and files_from not in names:
        raise ConfigError(f"files_from: {unknown('source', files_from, names)}")
    if max_shard_size <= 0:
        raise ConfigError(f"max_shard_size is {max_shard_size}; it is the largest size of an output file in bytes, e.g. {MAX_SHARD_SIZE}")


def check_output(output: Path, sources: Sequence[Source], replace: bool) -> None:
    """Raise ConfigError if writing to `output` would overwrite something that is not to be replaced."""
    for source in sources:
        path = source.checkpoint.path.resolve()
        if path.is_relative_to(output.resolve()) or output.resolve().is_relative_to(path):
            raise ConfigError(f"output {output} lies at, above or inside source '{source.name}' ({path}); choose another output")
    if not output.exists():
        return
    if not output.is_dir():
        raise ConfigError(f"output {output} is a file; choose a directory")
    content = sorted(entry.name for entry in output.iterdir())
    if content and not replace:
        raise ConfigError(
            f"output {output} exists and is not empty (it holds {content[0]}); choose another output, or allow it to be replaced (replace)"
        )
    if content and "config.json" not in content:
        raise ConfigError(
            f"output {output} is to be replaced, but does not look like a checkpoint (it has no config.json); remove it yourself if it "
            "may go"
        )


def plan_tensors(
    names: Sequence[str], held: Sequence[dict[str, TensorEntry]], base: dict[str, TensorEntry] | None
) -> tuple[TensorPlan, ...]:
    """Every output tensor with its contributors, sorted by name; InputError if they do not fit one another."""
    plans = []
    for name in sorted(set().union(*held)):
        positions = tuple(index for index, found in enumerate(held) if name in found)
        entries = tuple(held[index][name] for index in positions)
        anchor = base.get(name) if base else None
        holders = [names[index] for index in positions] + (["base"] if anchor else [])
        check_tensor(name, holders, [*entries, anchor] if anchor else entries)
        action = Action.MERGE if entries[0].dtype in FLOATS else Action.COPY
        plans.append(TensorPlan(name, entries[0].dtype, entries[0].shape, action, positions, entries, anchor))
    return tuple(plans)


def plan_proof(position: int, head: TensorEntry, embedding: TensorEntry) -> TensorPlan:
    """The comparison of a tied head with its embedding, in one source."""
    return TensorPlan(head.name, head.dtype, head.shape, Action.PROVE_TIED, (position,), (head, embedding))


def partial_notes(tensors: Sequence[TensorPlan], names: Sequence[str]) -> list[str]:
    """A sentence if some tensors are merged over fewer than all sources."""
    part = [tensor for tensor in tensors if len(tensor.positions) < len(names)]
    if not part:
        return []
    holders = ", ".join(f"'{names[position]}'" for position in part[0].positions)
    return [
        f"{len(part)} of {len(tensors)} tensors are merged over the sources that hold them, weights scaled to sum to 1, e.g. "
        f"'{part[0].name}' over {holders}"
    ]


def dtype_notes(tensors: Sequence[TensorPlan], names: Sequence[str]) -> list[str]:
    """A sentence if sources hold tensors in different float dtypes."""
    mixed = [tensor for tensor in tensors if any(entry.dtype != tensor.dtype for entry in tensor.entries)]
    if not mixed:
        return []
    tensor = mixed[0]
    each = ", ".join(f"{entry.dtype} in '{names[position]}'" for position, entry in zip(tensor.positions, tensor.entries, strict=True))
    return [
        f"{len(mixed)} tensors have mixed dtypes, e.g. '{tensor.name}' ({each}); the output takes the first source's, {tensor.dtype}, as "
        "does config.json"
    ]


def main_dtype(tensors: Sequence[TensorPlan]) -> str:
    """The float dtype that most bytes of the output have."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.dtype] += tensor.nbytes if tensor.dtype in FLOATS else 0
    return weights.most_common(1)[0][0]


def check_disk(output: Path, needed: int) -> None:
    """Raise ResourceError if the disk that `output` is to lie on has too little room."""
    place = next(parent for parent in output.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed * SPARE_DISK:
        raise ResourceError(
            f"{place} has {size(free)} free, the merge writes {size(needed)} and asks for {SPARE_DISK} times that; free space or choose "
            "another output"
        )


def size(count: int) -> str:
    """Bytes in a readable unit."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} bytes"
