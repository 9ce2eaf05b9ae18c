"""The benchmark's stopwatch: wall and CPU seconds, anonymous memory of a whole process tree, limits, failures."""

import mmap
import os
import sys
from pathlib import Path

import pytest

from benchmarks.contest import Contender, contest, run
from benchmarks.measure import measure

MEGABYTE = 1 << 20
CHILD = "x = bytearray(b'1') * {size}; import sys, time; print('ready', flush=True); time.sleep({seconds})"
LONG = 1.5
"""Seconds for which memory is held once all have it: many times the time between two samples, as a busy machine skips some."""


def python(code: str) -> list[str]:
    """A command for a bare interpreter."""
    return [sys.executable, "-I", "-S", "-c", code]


def test_sleeping_takes_wall_time_and_computing_takes_cpu_time() -> None:
    asleep = measure(python("import time; time.sleep(0.5)"))
    busy = measure(python("import time\nwhile time.process_time() < 0.5: pass"))
    assert asleep.wall >= 0.5
    assert asleep.cpu < 0.3  # a bare interpreter starts in hundredths of a second
    assert busy.cpu >= 0.5


def test_cpu_seconds_of_grandchildren_count() -> None:
    inner = "import time\nwhile time.process_time() < 0.4: pass"
    assert measure(python(f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {inner!r}])")).cpu >= 0.4


def test_anonymous_memory_is_that_of_all_processes_at_once() -> None:
    child = python(CHILD.format(size=60 * MEGABYTE, seconds=60))
    two = (
        f"import subprocess, time; ps = [subprocess.Popen({child!r}, stdout=subprocess.PIPE) for _ in range(2)]; "
        f"[p.stdout.readline() for p in ps]; time.sleep({LONG}); [p.kill() for p in ps]"
    )
    found = measure(python(two)).anonymous
    assert 120 * MEGABYTE <= found <= 180 * MEGABYTE  # 120 in the two arrays, some in three interpreters


def test_mapped_files_are_not_anonymous(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(80 * MEGABYTE))
    code = (
        f"import mmap, time; f = open({str(tmp_path / 'file')!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); "
        f"print(sum(m[::{mmap.PAGESIZE}])); time.sleep({LONG})"
    )
    found = measure(python(code))
    assert found.anonymous < 40 * MEGABYTE
    assert found.file >= 80 * MEGABYTE


def test_a_child_that_outlives_its_parent_is_counted_and_ended() -> None:
    child = python(CHILD.format(size=50 * MEGABYTE, seconds=2 * LONG))
    apart = "stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True"
    code = f"import subprocess, time; p = subprocess.Popen({child!r}, {apart}); print(p.pid); p.stdout.readline(); time.sleep({LONG})"
    found = measure(python(code))
    assert found.anonymous >= 50 * MEGABYTE
    with pytest.raises(ProcessLookupError):
        os.kill(int(found.output), 0)


def test_a_data_limit_binds() -> None:
    large = python(f"bytearray({400 * MEGABYTE})")
    assert measure(large).code == 0
    limited = measure(large, data_limit=200 * MEGABYTE)
    assert limited.code != 0
    assert "MemoryError" in limited.output


def test_contenders_take_turns_and_their_outputs_go(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def contender(name: str) -> Contender:
        code = f"import os, sys; open({str(log)!r}, 'a').write({name!r}); os.mkdir(sys.argv[1])"
        return Contender(name, (*python(code), str(tmp_path / name)), tmp_path / name)

    summaries = contest([contender("a"), contender("b")], [], 3)
    assert log.read_text() == "abbaab"
    assert {name: summary.runs for name, summary in summaries.items()} == {"a": 3, "b": 3}
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_contender_that_fails_or_writes_nothing_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="code 3"):
        run(Contender("broken", tuple(python("raise SystemExit(3)"))), [])
    with pytest.raises(RuntimeError, match="wrote no"):
        run(Contender("idle", tuple(python("pass")), tmp_path / "nothing"), [])


def test_thread_settings_of_the_caller_do_not_reach_a_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(Contender("env", tuple(python("import os; print(os.environ.get('OMP_NUM_THREADS'))"))), []).output.strip() == "None"
