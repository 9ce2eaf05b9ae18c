"""Runs a command and ends it, with all its children, when the process that started this one is gone. Run as a program, never imported.

    python guard.py COMMAND …        (the leader of a process group of its own; standard input is a pipe that its starter holds)

However the starter ends (also by SIGKILL), its end of the pipe closes, and the whole group is killed. Knows only the standard library.
"""

import os
import signal
import subprocess
import sys
import threading


def _end_with_starter() -> None:
    """Wait until the pipe closes; then kill the group, this process with it."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the command; end as it ends (128 + signal where a signal ended it)."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_starter, daemon=True).start()
    code = child.wait()
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
