"""All that follows from a search's arguments and that a worker must know of it: small, sent once, and the search's identity."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.suite import Suite
from mergers.merger import Merger, Need
from pipeline.search.spec import SearchSpec


@dataclass(frozen=True)
class Setting:
    """What is merged, what the merges are asked and what by. Places are absolute; `suite` asks `spec.samples` of each task.

    `statistics`: the name of a source -> the file of what was measured on it.
    """

    spec: SearchSpec
    sources: tuple[tuple[str, Path], ...]
    base: Path | None
    suite: Suite
    new: str | None
    threads: int = 1
    batch_size: int = 100
    statistics: tuple[tuple[str, Path], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources, in order."""
        return tuple(name for name, _ in self.sources)

    def place_of(self, merger: Merger) -> Path:
        """The checkpoint whose config, tokenizer and processor a merger's output has."""
        wanted = merger.files_from(self.names)
        if wanted is None and self.base is not None and merger.base is not Need.NO:
            return self.base
        return dict(self.sources)[wanted or self.names[0]]

    @property
    def batch(self) -> int:
        """How many samples are asked at a time; with halving at most a quarter of them, because a part consists of whole batches."""
        return min(self.batch_size, max(1, -(-self.suite.samples // 4))) if self.spec.halving else self.batch_size


def setting_of(
    spec: SearchSpec,
    sources: Mapping[str, Path],
    base: Path | None,
    suite: Suite,
    new: str | None,
    threads: int,
    batch_size: int,
    statistics: Mapping[str, Path] | None = None,
) -> Setting:
    """The setting of a search's arguments."""
    places = tuple((name, place.resolve()) for name, place in sources.items())
    asked = replace(suite, samples=spec.samples)
    measured = tuple((name, place.resolve()) for name, place in (statistics or {}).items())
    return Setting(spec, places, base.resolve() if base else None, asked, new, threads, batch_size, measured)
