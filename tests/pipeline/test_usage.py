"""What a step takes of its machine: real looks at real processes, which never hurt the work and belong to no digest."""

import json
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest

from pipeline.graph import gpus
from pipeline.graph.perform import perform
from pipeline.graph.usage import Sampling, Usage, sampling
from pipeline.graph.usage_files import read_usage, throughput, totals, usage_file
from pipeline.step import Measurement, Outcome, Work
from pipeline.store import Record, Store

MEGABYTE = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Busy(Measurement):
    """Works for some seconds in this process and a child of it, holding memory meanwhile."""

    kind: ClassVar[str] = "busy"
    seconds: float = 0.0
    megabytes: int = 0

    def run(self, work: Work) -> Outcome:
        child = multiprocessing.get_context("fork").Process(target=burn, args=(self.seconds, self.megabytes))
        child.start()
        burn(self.seconds, 0)
        child.join()
        (work.directory / "made.txt").write_text("made")
        return Outcome(metrics={"split": "none"}, details={"interval": sampling().seconds})


def burn(seconds: float, megabytes: int) -> None:
    held, began = bytearray(os.urandom(1024)) * 1024 * megabytes, time.process_time()
    while time.process_time() - began < seconds:
        len(held)


def performed(root: Path, step: Busy, usage: float) -> Record:
    assert perform(step, Store(root), None, usage).ran
    record = Store(root).record(step)
    assert record is not None
    return record


def test_a_step_and_its_children_are_looked_at(tmp_path: Path) -> None:
    record = performed(tmp_path, Busy(seconds=0.3, megabytes=100), 0.05)
    looks = list(read_usage(record.directory))
    found = record.content["usage"]
    assert record.content["details"]["interval"] == 0.05
    assert found["seconds"] == record.content["seconds"]
    assert found["cpu_seconds"] >= 0.5  # twice 0.3, to a clock tick of 0.01 s each; more where other tests left children at work
    assert found["peak_memory_bytes"] >= max(look.values["system/step/memory_bytes"] for look in looks)
    assert found["peak_memory_bytes"] > psutil.Process().memory_info().rss + 90 * MEGABYTE  # this process and the child's 100
    assert record.content["started"] - 0.001 <= looks[0].time < looks[-1].time
    last = looks[-1].values
    assert last["system/disk_free_bytes"] > 0
    assert 0 < last["system/memory_bytes"] <= psutil.virtual_memory().total
    assert all(0 <= look.values.get("system/cpu_percent", 0) <= 100 for look in looks)
    assert sampling().seconds == 0  # outside of a step


def test_nothing_is_looked_at_when_nobody_wants_it(tmp_path: Path) -> None:
    record = performed(tmp_path, Busy(), 0)
    assert set(record.content["usage"]) == {"seconds"}
    assert not list(record.directory.glob("usage*"))


def test_looking_changes_no_digest_and_every_step_has_a_first_and_a_last_look(tmp_path: Path) -> None:
    watched, alone = performed(tmp_path / "a", Busy(), 60), performed(tmp_path / "b", Busy(), 0)
    assert watched.content["outputs"] == alone.content["outputs"]
    assert set(watched.content["outputs"]["files"]) == {"made.txt"}
    assert [look.number for look in read_usage(watched.directory)] == [0, 1]


def test_what_goes_wrong_is_told_once_and_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> Any:
        raise RuntimeError("no disk today")

    monkeypatch.setattr(psutil, "disk_usage", broken)
    record = performed(tmp_path, Busy(seconds=0.3), 0.02)
    assert record.content["usage"]["failure"] == "RuntimeError: no disk today"
    lines = [json.loads(line) for line in usage_file(record.directory).read_text().splitlines()]
    assert [line["error"] for line in lines if "error" in line] == ["RuntimeError: no disk today"]


def test_a_file_that_cannot_be_written_does_not_end_the_work(tmp_path: Path) -> None:
    step = Busy()
    usage_file(Store(tmp_path).begin(step), "step").mkdir()
    record = performed(tmp_path, step, 5)
    assert "IsADirectoryError" in record.content["usage"]["failure"]
    assert (record.directory / "made.txt").exists()


def test_an_attempt_after_a_crash_goes_on_in_the_same_file_and_counts_itself_alone(tmp_path: Path) -> None:
    step = Busy()
    place = usage_file(Store(tmp_path).begin(step), "step")
    earlier = {"time": 5.0, "process": "dead", "values": {}, "so_far": {"cpu_seconds": 1e6, "peak_memory_bytes": 10**15}}
    place.write_text(json.dumps(earlier) + '\n{"time": 6.0, "proc')
    record = performed(tmp_path, step, 5)
    assert record.content["usage"]["cpu_seconds"] < 1000
    assert record.content["usage"]["peak_memory_bytes"] < 10**14
    assert [look.number for look in read_usage(record.directory)] == [0, 2, 3]  # the half line keeps its place


def test_workers_add_up_and_one_that_was_started_again_held_its_memory_once(tmp_path: Path) -> None:
    def look(role: str, process: str, moment: float, cpu: float, memory: float) -> None:
        told = {"cpu_seconds": cpu, "peak_memory_bytes": memory, "gpu_peak_bytes": 7}
        with open(usage_file(tmp_path, role), "a") as file:
            file.write(json.dumps({"time": moment, "process": process, "values": {}, "so_far": told}) + "\n")

    look("step", "a", 10, 1, 100)
    look("step", "a", 20, 2, 150)
    look("worker_0", "b", 12, 5, 1000)
    look("worker_0", "c", 15, 3, 900)
    look("worker_1", "d", 9, 50, 9000)  # of an attempt before this one
    assert totals(tmp_path, 10) == {"cpu_seconds": 10, "peak_memory_bytes": 1150, "gpu_peak_bytes": 14}
    assert totals(tmp_path / "nothing", 0) == {}


def test_a_worker_on_another_machine_tells_of_that_machine_too(tmp_path: Path) -> None:
    for role, node in (("worker_0", "elsewhere"), ("worker_1", os.uname().nodename)):
        with Sampling(tmp_path, 60, node).of(role):
            time.sleep(0.1)
    known = {key for look in read_usage(tmp_path) for key in look.values}
    assert "system/worker_0/node/memory_bytes" in known
    assert "system/worker_1/memory_bytes" in known
    assert "system/worker_1/node/memory_bytes" not in known


def test_a_worker_that_may_be_killed_looks_after_its_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(Sampling(tmp_path, 3600), "actor_0").__enter__()
    while not list(read_usage(tmp_path)):  # the thread's first look
        time.sleep(0.01)
    burn(0.1, 0)
    monkeypatch.setattr("pipeline.graph.usage.BETWEEN_ITEMS", 0)
    usage.item_done()
    monkeypatch.setattr("pipeline.graph.usage.BETWEEN_ITEMS", 3600)
    usage.item_done()  # at once again: not looked
    looks = list(read_usage(tmp_path))
    assert len(looks) == 2
    assert looks[-1].so_far["cpu_seconds"] >= 0.08  # 0.1 s, less two clock ticks of 0.01 s
    usage.__exit__(None, None, None)


def test_speeds_come_from_what_steps_measure_themselves() -> None:
    training = {"samples_per_second": 50.0, "steps": 10, "samples": 80, "seconds": 3.0}
    assert throughput(training, 99) == {"samples_per_second": 50.0, "steps_per_second": 6.25}
    assert throughput({"bytes_read": 300, "bytes_written": 100, "seconds": 2.0}, 99) == {"bytes_per_second": 200}
    answers = {"a": {"samples": 30}, "b": {"samples": 10}, "b@1": {"samples": 10}}  # a part of a score is not asked again
    assert throughput(answers, 4, ("a", "b")) == {"samples_per_second": 10}
    assert throughput({"trials": 4, "value": 0.5}, 3) == {}


@pytest.mark.parametrize(
    ("told", "expected"),
    [(None, [0, 1]), ("", []), ("1", [1]), ("GPU-5f, 0", ["GPU-5f", 0]), ("7", []), ("-1", []), ("MIG-3a", [])],
)
def test_only_gpus_that_the_process_may_use_are_asked(told: str | None, expected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert gpus.visible(2) == expected


def test_torch_is_neither_imported_nor_made_to_use_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed for this: what stands in for `torch.cuda` fails the test if it is asked of a device that nobody uses."""
    monkeypatch.setattr(gpus, "nvml", lambda: None)

    def asked(device: int) -> tuple[int, int]:
        assert device == 1
        return 30, 100

    cuda = SimpleNamespace(
        is_initialized=lambda: False, device_count=lambda: 2, memory_reserved=lambda device: device * 40, mem_get_info=asked
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpus.gpu_memory() == {}
    cuda.is_initialized = lambda: True
    assert gpus.gpu_memory() == {"1": 70.0}
    monkeypatch.delitem(sys.modules, "torch")
    assert gpus.gpu_memory() == {}
    assert "torch" not in sys.modules


@pytest.mark.parametrize("so_far", [{}, {"cpu_seconds": "many"}, [], None, {"peak_memory_bytes": 5}])
def test_a_damaged_look_ends_no_step(tmp_path: Path, so_far: Any) -> None:
    looks = [{"time": 1.0, "process": "a", "values": {}, "so_far": so_far}, {"time": 1.0, "process": "b", "values": [], "so_far": {}}]
    (tmp_path / "usage.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    assert totals(tmp_path, 0.0).get("peak_memory_bytes", 0) in (0, 5)
