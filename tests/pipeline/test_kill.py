"""`kill -9` at random times, of the whole process tree or of Ray's own processes below the command: the same command again ends with the
same bytes and the same MLflow content. Where Ray is gone, the command itself says so and ends, in under a minute.

`MERGELINE_KILLS` kills of the whole tree (default 10; `make chaos` does 100) strike runs of a stage, its merge and their evaluations, each
killed and started again some ten times before it may end: a kill for every phase, at a random moment in it, and one at any moment. Each
run's random numbers come from `MERGELINE_KILL_SEED` and its number; both are printed. `MERGELINE_KILL_SLOTS` runs go at one time.
"""

import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest
from forking import Forked, Forking
from tiny_run import TINY, records, tracked

from foundation.files import directory_manifest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

KILLS = int(os.environ.get("MERGELINE_KILLS", "10"))
SLOTS = int(os.environ.get("MERGELINE_KILL_SLOTS", "1"))
SEED = int(os.environ.get("MERGELINE_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
PARTS = ("raylet", "gcs_server")
PHASES = ("any", "start", "pretrain", "pretrain-", "finetune", "finetune", "finetune-", "merge", "evaluate", "report")
"""The kills of one run, in this order: at any moment, while Ray starts, in a step of this kind, between such a step's record and what
MLflow is told of it (`-`), and when all steps are stored."""
EARLY = 2
"""Of the six steps, so many may be stored by the kill at any moment, which comes first: something is to be left for the others."""
LONGEST_SECONDS = 400
LONGEST_END = 60
PROGRAM = "import os; os.setsid(); from pipeline.cli import main; main()"
STARTING = threading.Lock()  # of all runs: they share what they are forked from
OPTIONS = ("tasks=[parity]", "held_out=[]", "tracking.wait=300", "--cpus", "2")


@dataclass
class Command:
    """One run of the experiment in a workspace, as often as it is started."""

    forks: Forking
    workspace: Path
    process: Forked = field(init=False)
    began: float = 0.0

    def start(self) -> None:
        self.began = time.time()
        with STARTING:
            self.process = self.forks(PROGRAM, ["run", str(TINY), f"workspace={self.workspace}", *OPTIONS], dict(os.environ))

    def finish(self) -> None:
        self.start()
        ended = self.process.wait(LONGEST_SECONDS)
        assert ended == 0, "".join(self.process.communicate())[-3000:]

    def stored(self) -> set[str]:
        return set(records(self.workspace))

    def in_work(self, kind: str) -> bool:
        """Whether a step of this kind was begun since the command was started, and is not done: a killed one left its directory too."""
        places = [place for place in (self.workspace / "store").glob(f"{kind}-*") if not (place / "record.json").exists()]
        return any(changed(place) > self.began for place in places)

    def is_near_its_end(self) -> bool:
        """Whether it writes its report: this run may be faster than the undisturbed one was."""
        return any((self.workspace / "runs").glob("*/report"))


def changed(place: Path) -> float:
    """When something in this directory, itself included, was last changed."""
    latest = 0.0
    for each in (place, *place.glob("*")):
        with suppress(FileNotFoundError):
            latest = max(latest, each.stat().st_mtime)
    return latest


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: what it left, and how many seconds it took in all, to start Ray, for each kind of step, and for the end."""

    workspace: Path
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def whole(forks: Forking, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    began = time.time()
    command = Command(forks, tmp_path_factory.mktemp("undisturbed") / "whole")
    command.finish()
    ended = time.time()
    made = records(command.workspace)
    seconds = {key.split("-")[0]: float(record["seconds"]) for key, record in made.items()}
    first, last = min(one["started"] for one in made.values()), max(one["finished"] for one in made.values())
    return Whole(command.workspace, {**seconds, "any": ended - began, "start": first - began, "report": 0.7 * (ended - last)})


@pytest.fixture(autouse=True)
def room_for_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A temporary directory of its own: what is killed does not tidy up. Short, for Ray makes sockets in it."""
    with tempfile.TemporaryDirectory(prefix="kill", dir="/tmp", ignore_cleanup_errors=True) as place:
        monkeypatch.setenv("TMPDIR", place)
        yield


def kill_tree(process: Popen[Any] | Forked) -> int:
    """SIGKILL the process and everything below it; how many that were. All are stopped first, so that nothing starts a child meanwhile."""
    tree = [psutil.Process(process.pid)]
    for parent in tree:  # grows while it is walked
        with suppress(psutil.NoSuchProcess):
            parent.suspend()
            tree += [child for child in parent.children() if child not in tree]
    for member in tree:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(30)
    return len(tree)


def name_of(process: psutil.Process) -> str:
    """Its program's name; empty if it ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def until_moment(command: Command, whole: Whole, phase: str, chance: random.Random) -> bool:
    """Wait for a random moment of the phase, or at once where it is over; False if the command ended before."""
    kind, before = phase.removesuffix("-"), command.stored()
    every = records(whole.workspace).keys()
    wanted = {key for key in every if key.startswith(f"{kind}-")}
    over = wanted <= before

    def reached() -> bool:
        if kind == "report":
            return command.stored() == every
        return wanted <= command.stored() or (bool(command.stored() & wanted - before) if phase != kind else command.in_work(kind))

    while not reached():
        if command.process.poll() is not None:
            return False
        time.sleep(0.005)
    share = chance.random()
    moment = time.monotonic() + share * (0.3 if phase != kind else whole.seconds["start" if over and wanted else kind])
    while time.monotonic() < moment and (kind == "report" or not command.is_near_its_end()):
        if kind == "any" and len(command.stored()) > EARLY:
            break
        if command.process.poll() is not None:
            return False
        time.sleep(0.005)
    return command.process.poll() is None


def disturbed(command: Command, whole: Whole, phases: tuple[str, ...], chance: random.Random) -> list[tuple[str, float, int]]:
    """Run the experiment, kill it in each of the phases, then let it end: the phase, after how many seconds, with how many steps stored."""
    deaths = []
    for phase in phases:
        began = time.monotonic()
        command.start()
        if not until_moment(command, whole, phase, chance):
            assert command.process.wait() == 0, "".join(command.process.communicate())[-3000:]
            break  # it was done before it could be killed: what remains is for another run
        kill_tree(command.process)
        deaths.append((phase, round(time.monotonic() - began, 1), len(command.stored())))
    command.finish()
    return deaths


def final_bytes(workspace: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files of the merged checkpoint."""
    (place,) = (workspace / "runs").glob("*/checkpoints/wise_ft_after_parity")
    return directory_manifest(place.resolve(strict=True))


def assert_same(killed: Path, whole: Path) -> None:
    """The same bytes, the same content of MLflow, nothing lost and nothing doubled, and nothing left behind."""
    assert "model.safetensors" in final_bytes(whole)
    assert final_bytes(killed) == final_bytes(whole)
    ours, theirs = records(killed), records(whole)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key]["outputs"]["digest"] == theirs[key]["outputs"]["digest"], key
    found, expected = tracked(killed), tracked(whole)
    for what in expected:
        ours_here, theirs_here = Counter(found[what]), Counter(expected[what])  # type: ignore[arg-type]
        assert not theirs_here - ours_here, f"{what} lost"
        assert not ours_here - theirs_here, f"{what} doubled"
    assert not list((killed / "store").glob("*/work"))
    assert not list((killed / "store").glob("*/.*.tmp"))


def kill_often(forks: Forking, whole: Whole, room: Path, number: int, kills: int) -> int:
    """Runs, one after the other, until so many kills were done; all end as the undisturbed one did. How many kills."""
    chance, killed, attempt = random.Random(f"{SEED}/{number}"), 0, 0
    while killed < kills:
        command = Command(forks, room / f"killed-{number}-{attempt}")
        deaths = disturbed(command, whole, PHASES[: kills - killed] if attempt == 0 else PHASES[-(kills - killed) :], chance)
        print(f"seed {SEED}, run {number}: killed (phase, after seconds, steps stored) {deaths}", flush=True)
        assert_same(command.workspace, whole.workspace)
        killed, attempt = killed + len(deaths), attempt + 1
        assert attempt < 3 + kills
    return killed


@pytest.mark.timeout(LONGEST_SECONDS * (KILLS + 3))
def test_killed_anywhere_it_goes_on_to_the_same_bytes(whole: Whole, forks: Forking, tmp_path: Path) -> None:
    began, each = time.monotonic(), len(PHASES)
    shares = [min(each, KILLS - done) for done in range(0, KILLS, each)]
    with ThreadPoolExecutor(SLOTS) as slots:
        counts = list(slots.map(lambda item: kill_often(forks, whole, tmp_path, *item), enumerate(shares)))
    assert sum(counts) == KILLS
    print(
        f"seed {SEED}: {KILLS} of {KILLS} kills of a run of {whole.seconds['any']:.0f} s ended with the same bytes, "
        f"0 of MLflow's runs lost or doubled, in {time.monotonic() - began:.0f} s"
    )


def kill_part(command: Command, name: str) -> float:
    """SIGKILL the part of Ray that is called `name` in the middle of training; how many seconds the command took to end, with a message and
    no process left."""
    process = command.process
    while not command.in_work("finetune"):
        assert process.poll() is None, "".join(process.communicate())[-3000:]
        time.sleep(0.02)
    tree = psutil.Process(process.pid).children(recursive=True)
    part = next((each for each in tree if name_of(each) == name), None)
    assert part is not None, f"no {name} below the command"
    began = time.monotonic()
    part.kill()
    assert process.wait(LONGEST_END) in (4, 5), "".join(process.communicate())[-3000:]
    seconds, told = time.monotonic() - began, process.communicate()[1]
    assert "error: " in told, told[-3000:]
    assert "run the same command again" in told, told[-3000:]
    _, alive = psutil.wait_procs(tree, timeout=2 * LONGEST_END)  # without its head, what is left of Ray ends itself after a minute
    assert not alive
    return seconds


@pytest.mark.timeout(5 * LONGEST_SECONDS)
def test_without_a_part_of_ray_it_ends_and_goes_on(whole: Whole, forks: Forking, tmp_path: Path) -> None:
    for name in PARTS if "MERGELINE_KILLS" in os.environ else [random.Random(SEED).choice(PARTS)]:
        command = Command(forks, tmp_path / name)
        command.start()
        seconds = kill_part(command, name)
        print(f"without {name} the command ended in {seconds:.0f} s")
        command.finish()
        assert_same(command.workspace, whole.workspace)
