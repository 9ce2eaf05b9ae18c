"""Several checkpoints become one."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mergers.merger import Merger
from mergers.table import hyperparameters, method_name
from pipeline.step import Outcome, Step, Work, execution
from pipeline.steps.learning import FISHER_FILE


@dataclass(frozen=True, eq=False, repr=False)
class Merging(Step):
    """A step that makes one checkpoint out of several, or out of several parts of one, by so many actors (0: in its own process)."""

    _: KW_ONLY
    actors: int = execution(2)

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0 if self.actors else 1}

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": 1}


@dataclass(frozen=True, eq=False, repr=False)
class Merge(Merging):
    """Several checkpoints become one. `sources` are named; the base, else the first, gives names, dtypes, config and tokenizer."""

    kind: ClassVar[str] = "merge"
    loads: ClassVar[tuple[str, ...]] = ("mergers.engine.shard", "mergers.kernels.ready")
    merger: Merger
    sources: Mapping[str, Step]
    base: Step | None = None
    statistics: Mapping[str, Step] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """As of any step; without a base or statistics as it was before there could be any, so that what is stored stays known."""
        whole = super().identity
        fields = {name: value for name, value in whole["fields"].items() if name not in ("base", "statistics") or value}
        return {**whole, "fields": fields}

    def run(self, work: Work) -> Outcome:
        based = {"base": self.base.key} if self.base else {}
        details = {"method": method_name(self.merger), **based, **hyperparameters(self.merger)}
        return write_merge(work, self.merger, self.sources, self.base, self.actors, details, self.statistics)


def write_merge(
    work: Work,
    merger: Merger,
    sources: Mapping[str, Step],
    base: Step | None,
    actors: int,
    details: Mapping[str, Any],
    statistics: Mapping[str, Step] | None = None,
) -> Outcome:
    """Merge what the named steps made into the checkpoint of the step at `work`; its details tell each source's role beside `details`.

    `statistics`: the name of a source -> the step that measured it, for methods that read it.
    """
    from pipeline.graph.actors import merge_step

    def opened(step: Step) -> tuple[Path, str]:
        return work.checkpoint_of(step), f"{step.key}, sha256:{work.digest_of(step)}"

    places = {name: opened(step) for name, step in sources.items()}
    measured = {name: work.directory_of(step) / FISHER_FILE for name, step in (statistics or {}).items()}
    output = work.directory / "checkpoint"
    outcome = merge_step(merger, places, opened(base) if base else None, output, actors, work.progress, measured)
    roles = dict(zip(sources, merger.roles(tuple(sources)), strict=True))
    return replace(outcome, details={"sources": roles, **details})
