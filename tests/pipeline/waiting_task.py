"""A task whose training worker stops in the middle of a stage, tells its process id, and waits there to be killed."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tasks.registry import get_task
from tasks.task import Example, Split

LONGEST_SECONDS = 300


@dataclass(frozen=True)
class WaitingTask:
    """Parity, with a worker that waits `deaths` times before it reads its process's example number `after`, and says so in `place`."""

    place: str
    deaths: int
    after: int
    version: ClassVar[int] = 1
    name: ClassVar[str] = "parity"
    max_new_tokens: ClassVar[int] = 4

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        """Those of parity."""
        return Waiting(get_task("parity").examples(split, count), self)

    def score(self, response: str, example: Example) -> float:
        """As parity does."""
        return get_task("parity").score(response, example)


class Waiting(Sequence):
    """The examples, counted as they are read; one process at a time waits."""

    def __init__(self, examples: Sequence[Example], task: WaitingTask) -> None:
        self.examples = examples
        self.task = task
        self.read = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        self.read += 1
        if self.read == self.task.after:
            self.wait()
        return self.examples[index]

    def wait(self) -> None:
        """Claim a death that is still to be died, if there is one, and wait for it."""
        for number in range(self.task.deaths):
            path = Path(self.task.place, f"death-{number}")
            try:
                file = open(path, "x")  # noqa: SIM115 (closed below; open files decide who is first)
            except FileExistsError:
                continue
            with file:
                file.write(f"{os.getpid()}\n")
            time.sleep(LONGEST_SECONDS)
            raise TimeoutError("nobody killed this process")
