"""N checkpoints -> one: merge methods, and the machinery that applies them to checkpoint directories by byte range.

    sources = [Source(name, read_checkpoint(resolve_checkpoint(text))) for name, text in ...]
    plan = plan_merge(WiseFT(alpha=0.5), sources, output)      # every check; reads headers and configs only
    result = execute(plan, InProcess(threads=4))               # the same bytes with any executor

Importing this package loads no torch; the math does when it runs.
"""

from mergers.checkpoints.checkpoint import Checkpoint, read_checkpoint
from mergers.checkpoints.resolve import open_source, resolve_checkpoint
from mergers.engine.execute import Executor, InProcess, MergeResult, execute
from mergers.engine.layout import WorkItem
from mergers.engine.memory import merge_tensors
from mergers.engine.outcome import ItemOutcome
from mergers.merger import Granularity, Inputs, Merger, Need
from mergers.methods.linear import WeightedAverage, WiseFT
from mergers.plan import Plan, plan_merge
from mergers.sources.source import Source, View
from mergers.table import MERGERS, merger_class, method_name

__all__ = [
    "MERGERS",
    "Checkpoint",
    "Executor",
    "Granularity",
    "InProcess",
    "Inputs",
    "ItemOutcome",
    "MergeResult",
    "Merger",
    "Need",
    "Plan",
    "Source",
    "View",
    "WeightedAverage",
    "WiseFT",
    "WorkItem",
    "execute",
    "merge_tensors",
    "merger_class",
    "method_name",
    "open_source",
    "plan_merge",
    "read_checkpoint",
    "resolve_checkpoint",
]
