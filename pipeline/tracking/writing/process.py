"""The driver's end of the process that writes MLflow: starts it, again if it dies, waits for it no longer than told, and ends it."""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pipeline.tracking.backend import ONCE, QUIET, REASON, without_secrets
from pipeline.tracking.writing.written import Job, Written, read_written

STARTS = 4
"""A process that dies this often is left to `sync`."""
SECONDS_TO_END = 5.0
LOOK_SECONDS = 0.05
"""Between two looks at how far it is, while it is waited for."""


class WriterProcess:
    """One process, with one run at a time to write."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._errors: IO[bytes] | None = None
        self._starts = 0

    def write(self, run_directory: Path, uri: str | None = None, whole: bool = False) -> None:
        """Have it write a run, from where an earlier writer was or as a `whole`; `uri` in place of the configured address."""
        self._job = Job(str(run_directory), uuid.uuid4().hex, uri, whole)
        self._starts = 0
        if self.alive:
            self._send(self._job.line())
        else:
            self._start()

    def keep_alive(self) -> None:
        """Start it again if it died, a few times. What was written is not written again."""
        if self._job is not None and not self.alive and self._starts < STARTS:
            self._start()

    def hurry(self) -> None:
        """Have it look now, also where it waits before it tries again."""
        self._send(b"\n")

    @property
    def written(self) -> Written | None:
        """How far it is with its run; None where it has not said so yet."""
        told = None if self._job is None else read_written(Path(self._job.run_directory))
        return told if told is not None and self._job is not None and told.session == self._job.session else None

    def wait(self, seconds: float) -> bool:
        """Wait until all is written, at most so long; whether it is. False too where the process does not stay alive."""
        deadline = time.monotonic() + seconds
        while (told := self.written) is None or told.place is None:
            self.keep_alive()
            if time.monotonic() >= deadline or not self.alive:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def end(self, at_once: bool = False) -> None:
        """Let it go: it ends by itself, and if it does not, or is to end `at_once`, it is killed; no other process is."""
        process, self._process, self._job = self._process, None, None
        if process is None:
            return
        if at_once:
            process.kill()
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def trouble(self) -> str:
        """What keeps it from writing, in one line; empty where nothing is known."""
        if (told := self.written) is not None and told.trouble:
            return told.trouble
        if self._process is not None and self._process.poll() is not None and self._errors is not None:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            return f"the tracking process ended with {self._process.returncode}" + (
                f": {without_secrets(lines[-1])[:REASON]}" if lines else ""
            )
        return ""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        self._starts += 1
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": self._errors}
        command = [sys.executable, "-m", "pipeline.tracking.writing.writer"]
        self._process = subprocess.Popen(command, env=environment(), start_new_session=True, **pipes)
        if self._job is not None:
            self._send(self._job.line())

    def _send(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError, ValueError):  # it died, which `keep_alive` sees
                self._process.stdin.write(line)
                self._process.stdin.flush()


def environment() -> dict[str, str]:
    """Ours, quiet, with this very package at hand and one thread for what computes little."""
    place = str(Path(__file__).parents[3])
    search = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH", ""))))
    quiet = {name: os.environ.get(name, value) for name, value in QUIET.items()}
    return {**os.environ, **quiet, **ONCE, "PYTHONPATH": search, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
