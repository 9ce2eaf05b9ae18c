"""Workers and drivers killed with SIGKILL in the middle of a stage: it goes on inside the stage, and ends with the same bytes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import waiting_task
from free_ports import free_port
from ray import cloudpickle
from test_kill import kill_tree
from waiting_task import WaitingTask

from foundation.errors import ResourceError
from foundation.files import directory_manifest, manifest_digest
from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from pipeline.graph.perform import perform
from pipeline.step import Resources
from pipeline.steps import FineTune, Pretrained
from pipeline.store import Record, Store
from tasks.digits import all_texts
from trainers.spec import TrainSpec

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

cloudpickle.register_pickle_by_value(waiting_task)  # the workers do not have this directory on their path

SPEC = TrainSpec(parts=("language_model.mlp", "projector"), learning_rate=1e-3, samples=64, max_steps=8, batch_size=8, save_steps=2)
AFTER = 8 * 5 + 1
"""The example at which a lone worker stops: the first of step 6, after the checkpoint of step 4."""

PLAIN = """
import os, sys
from pathlib import Path
from tasks.registry import get_task
from test_training_faults import SPEC
from trainers.train import train_stage
train_stage(Path(sys.argv[1]), get_task("parity"), SPEC, Path(sys.argv[2]) / "out", Path(sys.argv[2]) / "work")
os._exit(0)  # the threads of gloo now and then abort a process that ends by itself
"""

DRIVER = """
import sys
from pathlib import Path
from pipeline.graph.cluster import connected
from pipeline.graph.perform import perform
from pipeline.store import Store
from test_training_faults import stage
steps = stage(Path(sys.argv[1]), Path(sys.argv[2]), deaths=1)
with connected(cpus=2):
    for step in steps:
        perform(step, Store(Path(sys.argv[2]) / "store"))
"""

SHORT_OF_MEMORY = """
import time
import ray
from foundation.errors import ResourceError
from pipeline.graph import training
from pipeline.step import Resources
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
training._train_on_worker = lambda settings: time.sleep(60)
try:
    training._alone({}, None, Resources(max_failures=1))
except ResourceError as error:
    print(f"ResourceError: {error}")
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained digits model as a checkpoint."""
    directory = tmp_path_factory.mktemp("checkpoints") / "base"
    save_checkpoint(digits_llava(seed=0), digits_processor(all_texts()), directory)
    return directory


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of what the stage writes without Ray, in this process, which nobody kills."""
    from tasks.registry import get_task
    from trainers.train import train_stage

    place = tmp_path_factory.mktemp("alone")
    train_stage(base, get_task("parity"), SPEC, place / "out", place / "work")
    return manifest_digest(directory_manifest(place / "out"))


def stage(base: Path, workspace: Path, deaths: int, resources: Resources = Resources(), after: int = AFTER) -> list[Pretrained | FineTune]:  # noqa: B008
    """The start and a short stage whose worker waits to be killed `deaths` times."""
    start = Pretrained(source="sha256:untrained", place=str(base))
    return [start, FineTune(start, WaitingTask(str(workspace), deaths, after), SPEC, resources=resources)]  # type: ignore[arg-type]


def trained(base: Path, workspace: Path, deaths: int, **options: object) -> Record:
    """The stage's record, once it is done."""
    workspace.mkdir(exist_ok=True)
    store = Store(workspace / "store")
    steps = stage(base, workspace, deaths, **options)  # type: ignore[arg-type]
    for step in steps:
        perform(step, store)
    record = store.record(steps[-1])
    assert record is not None
    return record


def waiting(path: Path, seconds: float = 300) -> int:
    """The id of the process that waits for this death."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.02)
    raise TimeoutError(f"no process came to wait at {path}")


def sealed(workspace: Path, step: int) -> None:
    """Wait until the checkpoint of this step is whole: the first worker may still write it when another one comes to wait."""
    deadline = time.time() + 60
    while not list((workspace / "store").rglob(f"checkpoint-{step}/manifest.json")):
        if time.time() > deadline:
            raise TimeoutError(f"no whole checkpoint of step {step} in {workspace}")
        time.sleep(0.02)


@contextmanager
def killing(workspace: Path, deaths: int, after: int | None = 4) -> Iterator[list[int]]:
    """While within, sends SIGKILL to each worker that waits, once the checkpoint of step `after` is whole; gives their ids."""
    killed: list[int] = []

    def kill() -> None:
        for number in range(deaths):
            killed.append(waiting(workspace / f"death-{number}"))
            if after is not None:
                sealed(workspace, after)
            os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    yield killed
    killer.join(5)


@contextmanager
def undisturbed(base: Path, place: Path, workers: int) -> Iterator[Callable[[], str]]:
    """The same stage without Ray, in processes that nobody kills, beside what happens within; gives a function for its output's digest."""
    shared = {**environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(workers)}
    command = [sys.executable, "-c", PLAIN, str(base), str(place)]
    processes = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.DEVNULL)
        for rank in range(workers)
    ]

    def digest() -> str:
        assert [process.wait(300) for process in processes] == [0] * workers
        return manifest_digest(directory_manifest(place / "out"))

    try:
        yield digest
    finally:
        for process in processes:
            process.kill()


def environment() -> dict[str, str]:
    """That of processes which import this file."""
    ours = {**os.environ, "PYTHONPATH": os.pathsep.join(str(place) for place in Path(__file__).parents[:3])}
    ours.pop("RAY_ADDRESS", None)
    return ours


def test_a_killed_worker_is_replaced_and_goes_on(ray_cluster: None, base: Path, alone: str, tmp_path: Path) -> None:
    with killing(tmp_path, 1) as killed:
        record = trained(base, tmp_path, 1)
    assert record.digest == alone
    assert len(killed) == 1
    assert record.metrics["resumed_from_step"] == 4


def test_one_of_two_workers_is_killed(ray_cluster: None, base: Path, tmp_path: Path) -> None:
    """Each reads half of a batch, so that either of them may be the one that stops in step 6."""
    with undisturbed(base, tmp_path / "plain", 2) as digest, killing(tmp_path, 1) as killed:
        record = trained(base, tmp_path, 1, resources=Resources(workers=2), after=AFTER // 2 + 1)
        assert record.digest == digest()
    assert len(killed) == 1
    assert (record.metrics["resumed_from_step"], record.metrics["workers"]) == (4, 2)


def test_a_worker_that_dies_too_often_is_an_error_with_its_last_words(ray_cluster: None, base: Path, tmp_path: Path) -> None:
    message = r"failed more often than max_failures allows; the last one said: .+"
    with killing(tmp_path, 1, after=None), pytest.raises(ResourceError, match=message):
        trained(base, tmp_path, 1, resources=Resources(max_failures=0), after=1)


def test_a_worker_killed_for_want_of_memory_is_not_started_without_end(tmp_path: Path) -> None:
    """A cluster of its own, whose memory monitor finds any use too much. Ray's own retries would never end there."""
    limits = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    command = [sys.executable, "-c", SHORT_OF_MEMORY]
    done = subprocess.run(command, env={**environment(), **limits}, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert "ResourceError: training workers failed" in done.stdout, done.stdout[-1000:] + done.stderr[-3000:]
    assert "low on memory" in done.stdout


def test_a_killed_driver_goes_on_inside_the_stage(ray_cluster: None, base: Path, alone: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(base), str(tmp_path)]
    with open(tmp_path / "log", "w") as log:
        driver = subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            waiting(tmp_path / "death-0")
            sealed(tmp_path, 4)
        finally:
            kill_tree(driver)
        assert driver.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()[-3000:]
    record = trained(base, tmp_path, 1)
    assert record.digest == alone
    assert record.metrics["resumed_from_step"] == 4
