"""MLflow's server killed in the middle of a run, away for the rest of it, slow; the driver killed, the writing process killed.

One real server for the whole file, on SQLite. Afterwards its database holds what an undisturbed one holds, point for point.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from commands import ended
from free_ports import free_port
from mirrored import REPOSITORY, START, TINY, dump, make, open_mirror, work, write

from pipeline.config.experiment import Built, build
from pipeline.store import Store
from pipeline.tracking.tracker import Tracker, already_mirrored, keep_journal
from pipeline.tracking.writing.journal import Kind, journal_file, read_events
from pipeline.tracking.writing.written import read_written

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mlflow server")]


ONE = "tasks=[parity]"
"""One stage: six steps."""


class Server:
    """`mlflow server` on a database that is there, in a process group of its own."""

    def __init__(self, home: Path, database: Path) -> None:
        self.home, self.database, self.port = home, database, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and do not wait until it answers."""
        place = ["--backend-store-uri", f"sqlite:///{self.database}", "--artifacts-destination", str(self.home / "artifacts")]
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with open(self.home / "server.log", "a") as log:
            command = [sys.executable, "-m", "mlflow", "server", *place, *options]
            self._process = subprocess.Popen(command, cwd=self.home, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Until it answers; starts it if it does not run."""
        if self._process is None:
            self.start()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise TimeoutError((self.home / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """kill -9 of the server and all that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server")
    (home / "mlflow.db").write_bytes(empty_database.read_bytes())
    one = Server(home, home / "mlflow.db")
    one.start()
    yield one
    one.kill()


def until(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def writers(of: int | None = None) -> list[psutil.Process]:
    """The living children of a process (this one) that write MLflow."""
    children = psutil.Process(of).children()
    return [child for child in children if not gone(child) and "pipeline.tracking.writing.writer" in child.cmdline()]


def offset(built: Built) -> int:
    written = read_written(built.run_directory)
    return 0 if written is None else written.offset


def undisturbed(built: Built, store: Store, place: Path, empty_database: Path) -> object:
    """What a database that was never away holds of the run."""
    place.write_bytes(empty_database.read_bytes())
    assert write(built, place, whole=True).place is not None
    return dump(open_mirror(built, store, place))


def test_killed_and_restarted_in_the_middle_it_holds_the_same(server: Server, tmp_path: Path, empty_database: Path) -> None:
    server.wait()
    built, store = make(tmp_path / "ws", TINY, f"tracking.uri={server.uri}", "name=restarted", "tracking.wait=300", ONE, steps=0)
    tracker = Tracker(built, store)
    tracker.start()
    for index, step in enumerate(built.steps[:4]):
        work(tracker, store, step, START + 10 * index)
        if index == 2:
            until(lambda: offset(built))
            server.kill()  # while it is written to
    until(lambda: "trouble" in str(read_written(built.run_directory)) and read_written(built.run_directory).trouble)  # type: ignore[union-attr]
    server.start()
    for index, step in enumerate(built.steps[4:], start=4):
        work(tracker, store, step, START + 10 * index)
    tracked = tracker.finish("FINISHED")
    assert tracked.mirrored is not None, tracked.lacking
    assert not tracked.lacking
    assert tracked.mirrored.uri == server.uri
    content = dump(open_mirror(built, store, server.database))
    assert content == undisturbed(built, store, tmp_path / "other.db", empty_database)
    assert len([name for name in content if name.startswith("run ")]) == 9


def test_away_for_the_rest_of_the_run_it_is_left_to_sync(
    server: Server, tmp_path: Path, empty_database: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "never-to-be-seen")
    address = server.uri.replace("://", "://me:never-to-be-seen@")
    server.wait()
    built, store = make(tmp_path / "ws", TINY, f"tracking.uri={address}", "name=away", "tracking.wait=1", ONE, steps=0)
    tracker = Tracker(built, store)
    tracker.start()
    until(lambda: offset(built))
    server.kill()
    for index, step in enumerate(built.steps):
        work(tracker, store, step, START + 10 * index)
    began = time.monotonic()
    tracked = tracker.finish("FINISHED")
    assert time.monotonic() - began < 8  # 1 s that was told, and the end of a thread and a process, on a busy machine
    assert tracked.mirrored is None
    assert f"10 events wait for MLflow at {server.uri} (" in tracked.lacking
    assert tracked.lacking.endswith(f"once it answers: python -m pipeline sync {built.name} --workspace {tmp_path / 'ws'}")
    assert already_mirrored(built) is None
    server.wait()
    told = ended(capsys, "sync", built.name, "--workspace", tmp_path / "ws")
    assert told.code == 0, told.said
    assert f"{built.name}: 8 runs, 3 models" in told.out  # the pipeline's own was made before the server went
    content = dump(open_mirror(built, store, server.database))
    assert content == undisturbed(built, store, tmp_path / "other.db", empty_database)
    for path in (*journal_file(built.run_directory).parent.iterdir(), built.run_directory / "tracking.json"):
        assert b"never-to-be-seen" not in path.read_bytes(), path
    assert "never-to-be-seen" not in told.said + tracked.lacking


DRIVER = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from mirrored import START, TINY, make, work
from pipeline.tracking.tracker import Tracker
built, store = make(Path(sys.argv[1]), TINY, steps=0)
tracker = Tracker(built, store)
tracker.start()
for index, step in enumerate(built.steps[:4]):
    work(tracker, store, step, START + 10 * index)
print("worked", flush=True)
time.sleep(300)
"""


def started(workspace: Path) -> "subprocess.Popen[str]":
    tests = REPOSITORY / "tests"
    command = [sys.executable, "-c", DRIVER, str(workspace), str(tests / "pipeline"), str(tests)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_a_driver_that_is_killed_leaves_its_events_and_no_process(tmp_path: Path, database: Path, empty_database: Path) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "mlflow.db").write_bytes(empty_database.read_bytes())
    driver = started(workspace)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "worked\n"
    built = build(TINY, [f"workspace={workspace}"])
    store = Store(workspace / "store")
    until(lambda: journal_file(built.run_directory).exists() and len(list(read_events(journal_file(built.run_directory)))) == 8)
    (writer,) = writers(driver.pid)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal sends it: the driver dies of it, the process that writes goes by its pipe
    driver.wait(30)
    driver.stdout.close()
    writer.wait(15)
    assert [event.kind for event, _ in read_events(journal_file(built.run_directory))][:2] == [Kind.OPENED, Kind.DONE]
    keep_journal(built, store)  # as `sync` does
    write(built, workspace / "mlflow.db", whole=True)
    content = dump(open_mirror(built, store, workspace / "mlflow.db"))
    last = [event for event, _ in read_events(journal_file(built.run_directory))][-1]
    ((place, *_),) = content[f"run {built.identity[:16]}"]
    assert (place[1], place[3]) == ("KILLED", round(last.time * 1000))
    assert content == undisturbed(built, store, database, empty_database)


def test_the_writing_process_killed_is_started_again(tmp_path: Path, database: Path) -> None:
    built, store = make(tmp_path / "ws", TINY, f"tracking.uri=sqlite:///{database}", "tracking.wait=300", ONE, steps=0)
    tracker = Tracker(built, store)
    tracker.start()
    for index, step in enumerate(built.steps):
        work(tracker, store, step, START + 10 * index)
        if index == 1:
            until(writers)
            (writer,) = writers()
            writer.kill()
            until(partial(gone, writer))
    tracked = tracker.finish("FINISHED")
    assert tracked.mirrored is not None, tracked.lacking
    content = dump(open_mirror(built, store, database))
    assert len([name for name in content if name.startswith("run ")]) == 9


class Slow:
    """A way to a server that takes `seconds` for every answer."""

    def __init__(self, port: int, seconds: float) -> None:
        self.to, self.seconds = port, seconds
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                asked, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(asked,), daemon=True).start()

    def _carry(self, asked: socket.socket) -> None:
        with asked, socket.create_connection(("127.0.0.1", self.to)) as there:
            back = threading.Thread(target=self._copy, args=(there, asked, self.seconds), daemon=True)
            back.start()
            self._copy(asked, there, 0)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, to: socket.socket, wait: float) -> None:
        try:
            while data := source.recv(1 << 16):
                time.sleep(wait)
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other end is gone

    def close(self) -> None:
        self._listening.close()


def test_a_slow_server_holds_nothing_up(server: Server, tmp_path: Path) -> None:
    server.wait()
    slow = Slow(server.port, 5)
    built, store = make(tmp_path / "ws", TINY, f"tracking.uri=http://127.0.0.1:{slow.port}", "name=slow", "tracking.wait=2", ONE, steps=0)
    tracker = Tracker(built, store)
    began = time.monotonic()
    tracker.start()
    for index, step in enumerate(built.steps):
        work(tracker, store, step, START + 10 * index)
    assert time.monotonic() - began < 5  # less than one answer takes; a tenth of a second on a quiet machine
    began = time.monotonic()
    assert "events wait for MLflow" in tracker.finish("FINISHED").lacking
    assert time.monotonic() - began < 6
    slow.close()
