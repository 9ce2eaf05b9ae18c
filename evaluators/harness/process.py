"""Run a program as a process group of its own: output to a log, progress read from the log, nothing left behind when we end.

What the program prints is kept whole in the log; of a failure the last lines are told, with the log's place.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from foundation.errors import InputError, ResourceError

OnCount = Callable[[int, int], None]

GUARD = Path(__file__).with_name("guard.py")
LOOK_SECONDS = 0.2
TAIL_BYTES = 16384
TAIL_LINES = 12
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BAR = re.compile(r"(?:Running|Model Responding)[^\r\n]*?(\d+)/(\d+) \[")
_BARE_BAR = re.compile(r"\d+%\||\b\d+it/s\]|\?it/s\]")
_FULL = re.compile(r"out of memory|No space left on device|Cannot allocate memory|MemoryError|OutOfMemoryError", re.IGNORECASE)
_FETCHES = re.compile(
    r"offline mode|OfflineModeIsEnabled|LocalEntryNotFound|Couldn't (reach|find)[^\n]*(Hub|cache)|Failed to resolve|ConnectionError"
)
KILLED = 128 + signal.SIGKILL


def run_logged(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path, what: str, on_count: OnCount | None = None
) -> None:
    """Run `command` in `directory` until it ends. `on_count(done, total)` is called whenever its progress bar has moved.

    InputError where it fails, ResourceError where the machine lacks memory or disk; both with the log's last lines and its place.
    """
    started = time.monotonic()
    with open(log, "wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-I", str(GUARD), *command],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    try:
        seen: tuple[int, int] | None = None
        while process.poll() is None:
            now = progress(log)
            if on_count is not None and now is not None and now != seen:
                on_count(*now)
                seen = now
            time.sleep(LOOK_SECONDS)
    finally:
        _end(process)
    if process.returncode != 0:
        raise failure(log, what, process.returncode, time.monotonic() - started)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of the group and wait for it."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path) -> str:
    """The end of a log without colours."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return _COLOUR.sub("", file.read().decode(errors="replace"))


def progress(log: Path) -> tuple[int, int] | None:
    """(done, total) of the last progress bar over questions in a log."""
    found = _BAR.findall(tail(log))
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def last_lines(log: Path) -> str:
    """What a program said last, without progress bars."""
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", tail(log))]
    told = [line for line in lines if line.strip("^~ ") and not _BARE_BAR.search(line)]
    return "\n".join(told[-TAIL_LINES:])


def failure(log: Path, what: str, code: int | None, seconds: float = 0) -> InputError | ResourceError:
    """The error for a program that failed. `code` is its exit code, None where it ended well but left nothing."""
    said = last_lines(log)
    ended = "ended without results" if code is None else f"failed after {seconds:.0f} s (exit code {code})"
    message = f"{what} {ended}; its log is {log}, which ends:\n{said}"
    if code == KILLED:
        return ResourceError(f"{message}\nIt was killed, most likely for want of memory; give it more, or a smaller batch_size")
    if _FULL.search(said):
        return ResourceError(f"{message}\nThe machine lacks memory or disk; free some, or use a smaller batch_size")
    if _FETCHES.search(tail(log)):
        return InputError(f"{message}\nIt needs data that is not on this machine: set network: true for this harness, or fetch it before")
    return InputError(message)
