"""Work whose process is killed once, after it was done and before it could be told: what a lost worker looks like."""

import os
import signal
from collections.abc import Callable
from typing import Any


def dying_once(function: Callable[[Any], Any], marker: str) -> Callable[[Any], Any]:
    """`function`, whose process is killed the first time it ends, on whichever worker; the file `marker` tells that it was.

    A closure that names nothing of this module: it travels by value, for the workers do not have the modules of tests.
    """

    def called(item: Any) -> Any:
        outcome = function(item)
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return outcome
        os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    return called
