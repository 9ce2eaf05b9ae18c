"""The table of tasks by name. A new task is one more row."""

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.digits import DigitsTask
from tasks.task import Task

DIGITS_BASE = ("name", "where", "color", "cell", "describe")
"""What the demo's base model can do before the stream begins: the abilities that forgetting hits."""

DIGITS_STREAM = ("parity", "count", "read", "larger", "next")
"""The demo's stages, in order."""

TASKS: dict[str, Task] = {name: DigitsTask(name) for name in DIGITS_BASE + DIGITS_STREAM}


def get_task(name: str) -> Task:
    """The task called `name`; ConfigError with the nearest name where there is none."""
    if name not in TASKS:
        raise ConfigError(unknown("task", name, TASKS))
    return TASKS[name]
