"""Work whose process is killed at some moment while an item is in work: before, in the middle of, or after its writing."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def killed_within(function: Callable[[Any], Any], deaths: Mapping[int, float], place: str) -> Callable[[Any], Any]:
    """`function` of items that have an `index`; where `deaths` has it, the process dies so many seconds after it began, once.

    Every beginning is noted as a line in `place/begun`, every death as a file `place/died-<index>`. A closure that names nothing of this
    module: it travels by value, for the workers do not have the modules of tests.
    """

    def called(item: Any) -> Any:
        descriptor = os.open(f"{place}/begun", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{item.index}\n".encode())
        os.close(descriptor)
        dies = item.index in deaths
        if dies:
            try:
                os.close(os.open(f"{place}/died-{item.index}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                dies = False
        if dies:
            threading.Timer(deaths[item.index], os.kill, (os.getpid(), signal.SIGKILL)).start()
        outcome = function(item)
        if dies:
            time.sleep(60)
        return outcome

    return called


def chosen(items: Sequence[int], count: int, longest: float, seed: int) -> dict[int, float]:
    """`count` of the items, spread over all, each with a moment of up to `longest` seconds."""
    chance = random.Random(seed)
    picked = [items[chance.randrange(len(items) * each // count, len(items) * (each + 1) // count)] for each in range(count)]
    return {index: chance.uniform(0, longest) for index in picked}
