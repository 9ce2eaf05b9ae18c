"""Which tasks every model of a run is asked, on which split, and how many samples of each.

A suite is a value: it is part of the identity of an evaluation, and making one loads no data.
"""

from collections import Counter
from dataclasses import dataclass

from evaluators.harness.spec import HarnessTask
from foundation.errors import ConfigError
from tasks.task import Split, Task


@dataclass(frozen=True)
class Suite:
    """The tasks of the stream, in the order they are trained, and held-out tasks that are never trained.

    `harness`: tasks of other harnesses, held out too. They are asked for reporting only, so never on the VALIDATION split: what is chosen
    there (an alpha, a learning rate) must not have seen them.
    `samples`: how many of each task's examples are asked (a task that has fewer is asked all it has). Every model is asked the same.
    Raises ConfigError for a suite without tasks, a task that stands twice, or less than one sample.
    """

    stream: tuple[Task, ...]
    held_out: tuple[Task, ...] = ()
    split: Split = Split.TEST
    samples: int = 300
    harness: tuple[HarnessTask, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("the suite has no tasks; name at least one under stream, held_out or harness")
        twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if twice:
            raise ConfigError(
                f"the suite names {', '.join(map(repr, twice))} more than once; name each task once, under stream, held_out or harness"
            )
        if self.samples < 1:
            raise ConfigError(f"the suite asks {self.samples} samples per task; ask at least 1")
        if self.harness and self.split is not Split.TEST:
            raise ConfigError(
                f"the suite asks the {self.split.value} split, but {self.harness[0].name!r} is a task of {self.harness[0].harness.value}, "
                "which is there for reporting only; leave `harness` out, or ask the test split"
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that we ask, in the order of tables and files: held-out, then the stream."""
        return self.held_out + self.stream

    @property
    def held_out_names(self) -> tuple[str, ...]:
        """The held-out columns of tables: our own tasks, then those of other harnesses."""
        return (*(task.name for task in self.held_out), *(task.name for task in self.harness))

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The stream's columns of tables."""
        return tuple(task.name for task in self.stream)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns of tables: held-out, then the stream."""
        return self.held_out_names + self.stream_names
