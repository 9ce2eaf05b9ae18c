"""What is refused before any work, whatever the tensors: a request that makes no sense, an output in the way, too little disk or memory."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from foundation.errors import ConfigError, ResourceError
from foundation.hints import unknown
from foundation.sizes import size
from mergers.checkpoints.header import FLOATS, ITEM_BYTES
from mergers.engine.layout import MAX_SHARD_SIZE, TensorPlan, block_elements
from mergers.merger import Merger, Need
from mergers.sources.agreement import check_names
from mergers.sources.source import Source
from mergers.table import method_name

PROCESS_BYTES = 250_000_000
"""Memory of a worker that has loaded its libraries and done nothing yet."""
SPARE_DISK = 1.1
"""Free disk asked for, as a multiple of what will be written."""


def check_request(
    merger: Merger, sources: Sequence[Source], base: Source | None, files_from: str | None, max_shard_size: int, dtype: str | None
) -> None:
    """Raise ConfigError for a request that is wrong whatever the checkpoints hold."""
    method = method_name(merger)
    names = [source.name for source in sources]
    everyone = [*names, *([base.name] if base else [])]
    check_names(everyone)
    merger.check(names)
    if merger.base is Need.REQUIRED and base is None:
        raise ConfigError(f"{method} measures every source from a base checkpoint; name one as base")
    if base is not None and merger.base is Need.NO:
        raise ConfigError(f"{method} has no use for a base, but '{base.name}' is given as one; leave it out, or list it among the sources")
    measured = [source.name for source in sources if source.statistics]
    if merger.statistic is None and measured:
        raise ConfigError(f"{method} uses no statistics, but '{measured[0]}' comes with some; leave them out, or choose a method that does")
    if merger.statistic is not None and not measured:
        raise ConfigError(
            f"{method} needs the {merger.statistic.name} of its sources; name the file that holds it for each source (statistics)"
        )
    if files_from is not None and files_from not in everyone:
        raise ConfigError(f"files_from: {unknown('source', files_from, everyone)}")
    if max_shard_size <= 0:
        raise ConfigError(f"max_shard_size is {max_shard_size}; it is the largest size of an output file in bytes, e.g. {MAX_SHARD_SIZE}")
    if dtype is not None and dtype not in FLOATS:
        raise ConfigError(f"dtype: {unknown('dtype', dtype, FLOATS)}")


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


def check_disk(output: Path, needed: int) -> None:
    """Raise ResourceError if the disk that `output` is to lie on has too little room."""
    place = next(parent for parent in output.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed * SPARE_DISK:
        raise ResourceError(
            f"{place} has {size(free)} free, the merge writes {size(needed)} and asks for {SPARE_DISK} times that; free space or choose "
            "another output"
        )


def check_memory(tensors: Sequence[TensorPlan]) -> None:
    """Raise ResourceError if a single worker needs more memory than this machine has."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    largest = max(tensors, key=working_memory)
    needed = PROCESS_BYTES + working_memory(largest)
    if needed > there:
        raise ResourceError(
            f"merging tensor '{largest.name}' {largest.shape} takes about {size(needed)} of memory, this machine has {size(there)}; "
            f"use a machine with more, or a method that works on parts of a tensor ({method_name(largest.merger)} needs the whole)"
        )


def working_memory(tensor: TensorPlan) -> int:
    """About how many bytes merging a tensor takes at one time: its blocks as read, as many again in float64 and a few more, and statistics
    that are read whole."""
    block = min(tensor.elements, block_elements(tensor.merger.granularity, tensor.shape))
    entries = (*tensor.entries, *([tensor.base] if tensor.base else []))
    as_read = sum(ITEM_BYTES[entry.dtype] for entry in entries)
    whole = [entry for entry in tensor.statistics if entry and not (tensor.merger.statistic and tensor.merger.statistic.per_element)]
    factors = [factor for entry in entries for added in entry.added for factor in (added.up, added.down)]
    return block * (as_read + 8 * (len(entries) + 3)) + sum(entry.nbytes + 8 * entry.elements for entry in (*whole, *factors))
