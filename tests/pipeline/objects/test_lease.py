"""A lock in an object store: one holder, takeover of those that are gone, holders that learn of it. Seconds are a fraction of the usual."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from filelock import Timeout
from objects_server import Fault, Objects, Proxy, clean_environment, proxied, variables

from foundation.errors import ResourceError
from pipeline.objects import asking as questions
from pipeline.objects import lease as leases
from pipeline.objects.bucket import Bucket, open_bucket
from pipeline.objects.lease import FREE, Pace, held

REPOSITORY = Path(__file__).parents[3]
QUICK = Pace(renew=0.2, takeover=1.5, ask=0.05)
NAME = "locks/step"
HOLDER = """
import sys
from pipeline.objects.bucket import open_bucket
from pipeline.objects.lease import Pace, held

with held(open_bucket(sys.argv[1]), "locks/step", pace=Pace(0.2, 1.5, 0.05)) as lease:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            lease.check()
            print("still held", flush=True)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
"""


@contextmanager
def holder(uri: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, and says so again for every line that it is given."""
    command = [sys.executable, "-c", HOLDER, uri]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def asked(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process cannot tell whether others live, as on another machine."""
    monkeypatch.setattr(leases, "_processes", lambda: "another boot")


def test_one_at_a_time(objects: str) -> None:
    bucket, inside, most, turns = open_bucket(objects), [], [], []

    def work(number: int) -> None:
        for _ in range(3):
            with held(bucket, NAME, pace=QUICK) as lease:
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.02)
                lease.check()
                inside.remove(number)
                turns.append(number)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert max(most) == 1
    assert len(turns) == 15
    found = bucket.read(NAME)
    assert found is not None
    assert found.content == FREE


def test_who_does_not_wait_is_told(objects: str) -> None:
    bucket = open_bucket(objects)
    with held(bucket, NAME, pace=QUICK):
        time.sleep(1.3 * QUICK.takeover)  # it is renewed
        with pytest.raises(Timeout), held(bucket, NAME, wait=False, pace=QUICK):
            pass
        with held(bucket, "locks/other", wait=False, pace=QUICK):
            pass
    with held(bucket, NAME, wait=False, pace=QUICK):
        pass


def test_it_is_given_up_when_the_work_fails(objects: str) -> None:
    with pytest.raises(KeyError), held(open_bucket(objects), NAME, pace=QUICK):
        raise KeyError
    with held(open_bucket(objects), NAME, wait=False, pace=QUICK):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease")]


@pytest.mark.usefixtures("elsewhere")
def test_a_holder_that_was_killed_is_followed_in_time(objects: str) -> None:
    with holder(objects) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        with held(open_bucket(objects), NAME, pace=QUICK) as lease:
            seconds = time.monotonic() - began
            lease.check()
    assert QUICK.takeover < seconds < 4 * QUICK.takeover
    assert Pace().takeover + Pace().renew + Pace().ask < 60


def test_on_the_same_machine_it_is_followed_at_once(objects: str) -> None:
    with holder(objects) as process:
        with pytest.raises(Timeout), held(open_bucket(objects), NAME, wait=False, pace=QUICK):
            pass  # it lives
        process.send_signal(signal.SIGKILL)
        process.wait()
        with held(open_bucket(objects), NAME, wait=False, pace=QUICK):
            pass


def test_a_child_that_was_killed_and_not_waited_for_is_gone_too(objects: str) -> None:
    with holder(objects) as process:
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with held(open_bucket(objects), NAME, wait=False, pace=QUICK):
            pass


def test_a_holder_of_another_user_that_is_hidden_lives(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc is mounted with hidepid, a process of another user can be asked for by its number alone."""

    def hidden(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    with holder(objects) as process:
        monkeypatch.setattr(psutil, "Process", hidden)
        with pytest.raises(Timeout), held(open_bucket(objects), NAME, wait=False, pace=QUICK):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with held(open_bucket(objects), NAME, wait=False, pace=QUICK):
            pass


@pytest.mark.usefixtures("elsewhere")
def test_who_waits_and_was_paused_looks_for_the_whole_time_again(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it did not look, the holder may have been unable to renew, as it is where the store was away."""
    bucket, waiting = open_bucket(objects), Pace(renew=0.2, takeover=1.0, ask=0.05)
    bucket.write(NAME, b"a holder's\n")
    woke: list[float] = []

    def sleep(seconds: float) -> None:
        time.sleep(seconds if woke else 2 * waiting.takeover)
        woke.append(time.monotonic())

    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    with held(bucket, NAME, pace=waiting):
        assert time.monotonic() - woke[0] > waiting.takeover


def test_a_holder_that_was_paused_finds_it_lost(objects: str) -> None:
    with holder(objects) as process:
        assert asked(process) == "still held\n"
        process.send_signal(signal.SIGSTOP)
        with held(open_bucket(objects), NAME, pace=QUICK) as lease:
            process.send_signal(signal.SIGCONT)
            said = asked(process)
            assert said.startswith("ResourceError: s3://")
            assert "another one took over; run the same command again" in said
            assert asked(process) == said
            lease.check()  # it did not take it back
        process.stdin.close()  # type: ignore[union-attr]
        process.wait(20)
        with held(open_bucket(objects), NAME, wait=False, pace=QUICK):
            pass  # nor did it write anything when it ended


def test_a_holder_whose_lock_was_removed_has_lost_it(objects: str) -> None:
    bucket = open_bucket(objects)
    with held(bucket, NAME, pace=Pace(renew=60)) as lease:
        bucket.remove([NAME])
        with pytest.raises(ResourceError, match="another one took over"):
            lease.check()
    assert bucket.sizes() == {}


@pytest.fixture
def behind(objects_server: Objects, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, Bucket]]:
    """A proxy, and a bucket behind it that has answered once."""
    clean_environment(monkeypatch)
    uri = objects_server.uri()
    monkeypatch.setattr(questions, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(leases, "FREEING_SECONDS", 0.1)
    with proxied(objects_server.endpoint) as proxy:
        for name, value in variables(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        through = open_bucket(uri)
        through.sizes()
        yield proxy, through


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.ERROR, Fault.CUT])
def test_a_store_that_is_away_takes_it_from_nobody(behind: tuple[Proxy, Bucket], fault: Fault) -> None:
    proxy, bucket = behind
    waited = threading.Event()

    def wait() -> None:
        with held(bucket, NAME, pace=QUICK):
            waited.set()

    with held(bucket, NAME, pace=QUICK) as lease:
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(3 * QUICK.ask)
        proxy.always(fault)
        time.sleep(1.5 * QUICK.takeover)
        proxy.always(None)
        time.sleep(QUICK.takeover / 2)
        lease.check()
        assert not waited.is_set()
    waiting.join(20)
    assert waited.is_set()


def test_lost_answers_lose_nothing(behind: tuple[Proxy, Bucket]) -> None:
    proxy, bucket = behind
    proxy.once(Fault.LOST, "PUT")
    with held(bucket, NAME, wait=False, pace=QUICK) as lease:
        proxy.once(Fault.LOST, "PUT")
        lease.check()
        proxy.once(Fault.LOST, "PUT", times=3)
        time.sleep(4 * QUICK.renew)  # the keeper's own, which is not asked again at once
        lease.check()
        proxy.once(Fault.LOST, "PUT")
    with held(bucket, NAME, wait=False, pace=QUICK):
        pass


def test_it_is_given_up_in_time_where_the_store_is_away(behind: tuple[Proxy, Bucket]) -> None:
    proxy, bucket = behind
    with held(bucket, NAME, pace=QUICK):
        proxy.always(Fault.ERROR)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    proxy.always(None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease")]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'{"pid": "x"}', b"\xff"])
@pytest.mark.usefixtures("elsewhere")
def test_whatever_lies_there_is_taken_over_in_time(objects: str, content: bytes) -> None:
    bucket = open_bucket(objects)
    bucket.write(NAME, content)
    with pytest.raises(Timeout), held(bucket, NAME, wait=False, pace=QUICK):
        pass
    with held(bucket, NAME, pace=Pace(renew=0.1, takeover=0.3, ask=0.05)):
        pass
