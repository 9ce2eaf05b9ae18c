"""Several checkpoints become one."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mergers.merger import Merger
from mergers.table import hyperparameters, method_name
from pipeline.step import Outcome, Step, Work, execution


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
    merger: Merger
    sources: Mapping[str, Step]
    base: Step | None = None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """As of any step; without a base as it was before there could be one, so that what is stored stays known."""
        whole = super().identity
        fields = {name: value for name, value in whole["fields"].items() if name != "base" or value is not None}
        return {**whole, "fields": fields}

    def run(self, work: Work) -> Outcome:
        from pipeline.graph.actors import merge_step

        def opened(step: Step) -> tuple[Path, str]:
            return work.checkpoint_of(step), f"{step.key}, sha256:{work.digest_of(step)}"

        places = {name: opened(step) for name, step in self.sources.items()}
        base = opened(self.base) if self.base else None
        roles = dict(zip(self.sources, self.merger.roles(tuple(self.sources)), strict=True))
        outcome = merge_step(self.merger, places, base, work.directory / "checkpoint", self.actors, work.progress)
        based = {"base": self.base.key} if self.base else {}
        details = {"method": method_name(self.merger), "sources": roles, **based, **hyperparameters(self.merger)}
        return replace(outcome, details=details)
