"""A step for tests of a mirrored store, and a store on the disk of one machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.objects.marker import mark
from pipeline.step import Outcome, Step, Work
from pipeline.store import Store


@dataclass(frozen=True, eq=False, repr=False)
class Write(Step):
    """Writes a checkpoint of two files, from its inputs' text and its own, and a history beside it."""

    kind: ClassVar[str] = "write"
    text: str
    inputs_: tuple[Step, ...] = ()

    def run(self, work: Work) -> Outcome:
        below = "".join((work.checkpoint_of(step) / "text").read_text() for step in self.inputs_)
        output = work.directory / "checkpoint"
        output.mkdir(exist_ok=True)
        (output / "text").write_text(below + self.text)
        (output / "large").write_bytes(b"0123" * 500_000)
        (work.directory / "history.jsonl").write_text("{}\n")
        return Outcome(output, metrics={"length": len(below + self.text)})


def opened(place: Path, uri: str) -> Store:
    mark(place / "store", uri)
    return Store(place / "store")
