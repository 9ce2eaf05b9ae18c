"""Programs run beside us: their log, their progress, how they fail, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from evaluators.harness.process import last_lines, progress, run_logged
from foundation.errors import InputError, MergelineError, ResourceError

SLOWLY = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('up'); time.sleep(60)"
)


def run(code: str, place: Path, **changes: object) -> None:
    run_logged([sys.executable, "-u", "-c", code], dict(os.environ), place, place / "log.txt", "the program", **changes)


def test_the_log_has_all_that_was_printed(tmp_path: Path) -> None:
    run("import sys, os; print('one'); print('two', file=sys.stderr); print(os.getcwd())", tmp_path)
    assert (tmp_path / "log.txt").read_text().splitlines() == ["one", "two", str(tmp_path)]


def test_progress_is_told_as_it_moves(tmp_path: Path) -> None:
    """The program goes on once it was told of, so that however slow we look, no move is missed."""
    told: list[tuple[int, int]] = []
    bar = """
import pathlib, time
for n in (1, 2, 3):
    print(f"\\rRunning x requests: {n}0%|#| {n}/3 [00:00<00:01, 1it/s]", end="")
    while not pathlib.Path(f"told-{n}").exists():
        time.sleep(0.02)
"""

    def hear(done: int, total: int) -> None:
        told.append((done, total))
        (tmp_path / f"told-{done}").touch()

    run(bar, tmp_path, on_count=hear)
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        ("Model Responding:  25%|██▌       | 3/12 [00:00<00:00, 22.1it/s]", (3, 12)),
        ("Running generate_until requests: 100%|██████████| 12/12 [00:00<00:00]\rdone", (12, 12)),
        ("Tokenizing inputs:  50%|█████     | 1/2 [00:00<00:00]", None),
        ("Running loglikelihood requests", None),
    ],
)
def test_which_bars_count_questions(tmp_path: Path, line: str, counted: tuple[int, int] | None) -> None:
    (tmp_path / "log.txt").write_text(line)
    assert progress(tmp_path / "log.txt") == counted


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            "print('a reason'); raise SystemExit(3)",
            InputError,
            r"failed after \d+ s \(exit code 3\); its log is .*log.txt, which ends:\na reason",
        ),
        ("raise RuntimeError('CUDA out of memory')", ResourceError, "lacks memory or disk"),
        ("raise OSError('No space left on device')", ResourceError, "lacks memory or disk"),
        ("import os; os.kill(os.getpid(), 9)", ResourceError, "most likely for want of memory"),
        ("raise ConnectionError('offline mode is enabled')", InputError, "set network: true"),
    ],
)
def test_failures(tmp_path: Path, code: str, kind: type[MergelineError], message: str) -> None:
    with pytest.raises(kind, match=message):
        run(code, tmp_path)


def test_last_lines_leave_out_bars_and_colours(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("  0%| | 0/2 [00:00<?, ?it/s]\r 50%|# | 1/2 [00:00]\n\x1b[31mwrong\x1b[0m\n   ^^^^^\n\nend\n")
    assert last_lines(tmp_path / "log.txt") == "wrong\nend"


def test_children_end_with_the_program(tmp_path: Path) -> None:
    """A program that ends well, but leaves a child behind."""
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    run(code, tmp_path)
    left = int((tmp_path / "log.txt").read_text())
    assert gone(left), f"process {left} outlived its program"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_with_us(tmp_path: Path, how: signal.Signals) -> None:
    code = (
        f"import signal, sys; sys.path[:0] = {sys.path!r}\nfrom pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs are born deaf to it
        f"from test_harness_process import run, SLOWLY\nrun(SLOWLY, Path({str(tmp_path)!r}))"
    )
    ours = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    log = tmp_path / "log.txt"
    until(lambda: log.exists() and "up" in log.read_text())
    theirs = psutil.Process(ours.pid).children(recursive=True)
    assert len(theirs) == 3  # the guard, the program, its child
    ours.send_signal(how)
    ours.wait(timeout=60)
    assert all(gone(process.pid) for process in theirs)


def gone(pid: int, seconds: float = 40) -> bool:
    """Whether a process ends in time; one that has ended and waits to be buried has ended."""

    def ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    try:
        until(ended, seconds)
    except AssertionError:
        return False
    return True


def until(happened: object, seconds: float = 60) -> None:
    """Wait for something to happen; AssertionError where it does not."""
    assert callable(happened)
    for _ in range(int(seconds / 0.05)):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
