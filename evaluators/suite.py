"""Which tasks every model of a run is asked, on which split, and how many samples of each.

A suite is a value: it is part of the identity of an evaluation, and making one loads no data.
"""

from collections import Counter
from dataclasses import dataclass

from foundation.errors import ConfigError
from tasks.task import Split, Task


@dataclass(frozen=True)
class Suite:
    """The tasks of the stream, in the order they are trained, and held-out tasks that are never trained.

    `samples`: how many of each task's examples are asked (a task that has fewer is asked all it has). Every model is asked the same.
    Raises ConfigError for a suite without tasks, a task that stands twice, or less than one sample.
    """

    stream: tuple[Task, ...]
    held_out: tuple[Task, ...] = ()
    split: Split = Split.TEST
    samples: int = 300

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError("the suite has no tasks; name at least one under stream or held_out")
        twice = sorted(name for name, count in Counter(task.name for task in self.tasks).items() if count > 1)
        if twice:
            raise ConfigError(
                f"the suite names {', '.join(map(repr, twice))} more than once; name each task once, under stream or under held_out"
            )
        if self.samples < 1:
            raise ConfigError(f"the suite asks {self.samples} samples per task; ask at least 1")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks in the order of tables and files: held-out, then the stream."""
        return self.held_out + self.stream
