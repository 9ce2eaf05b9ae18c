"""Several tasks learned together: the examples of one after another, as one task. The upper bound of a stream is trained on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from foundation.errors import ConfigError, InputError
from tasks.joined import Joined
from tasks.task import Example, Split, Task


@dataclass(frozen=True)
class MixedTask:
    """The examples of several tasks in turn. Each key begins with its task's name, so an answer is scored by the task that asked.

    Raises ConfigError without tasks, and where two names are equal or one begins another up to a slash, because keys would be ambiguous.
    """

    tasks: tuple[Task, ...]
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names:
            raise ConfigError("a mixture has no tasks; name at least one")
        for place, name in enumerate(names):
            for other in names[place + 1 :]:
                if f"{name}/".startswith(f"{other}/") or f"{other}/".startswith(f"{name}/"):
                    raise ConfigError(f"a mixture holds tasks named {name!r} and {other!r}, whose examples would share keys; rename one")

    @property
    def name(self) -> str:
        """The names of the tasks, joined."""
        return "+".join(task.name for task in self.tasks)

    @property
    def max_new_tokens(self) -> int:
        """Room for the longest answer of any task."""
        return max(task.max_new_tokens for task in self.tasks)

    def examples(self, split: Split, count: int | None = None) -> Sequence[Example]:
        """The first `count` examples of each task (None: each task's usual number), one task after another.

        Prefix-stable within each task; as a whole only for one `count`, because every task gives so many.
        """
        return Joined([task.examples(split, count) for task in self.tasks], [task.name for task in self.tasks])

    def score(self, response: str, example: Example) -> float:
        """How right `response` is, by the task that the example's key begins with. Raises InputError for an example of no task here."""
        for task in self.tasks:
            if example.key.startswith(f"{task.name}/"):
                return task.score(response, replace(example, key=example.key.removeprefix(f"{task.name}/")))
        raise InputError(f"example {example.key!r} is of none of the tasks {', '.join(task.name for task in self.tasks)}; ask its own task")
