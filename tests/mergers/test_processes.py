"""Merging on forked processes: the same bytes, errors as they are, nothing left when a process or the parent is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from every_method import EXAMPLES
from small_models import random_tensors
from test_every_method import Trial, weights_digest

from foundation.errors import ConfigError, InputError, ResourceError
from mergers import WeightedAverage
from mergers.engine.processes import Processes

ITEM_BYTES = 700


def test_every_method_writes_the_same_bytes_on_processes(bench_factory):
    with Processes(3) as executor:
        for example in EXAMPLES:
            trial = Trial(bench_factory(), example)
            expected = weights_digest(trial.merge("here", item_bytes=ITEM_BYTES))
            assert weights_digest(trial.merge("there", executor, item_bytes=ITEM_BYTES)) == expected, str(example)


def test_an_error_comes_back_as_it_is_and_the_next_merge_works(bench):
    broken = random_tensors(2)
    broken["model.layers.1.w"][5, 1] = torch.nan
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", broken), "c": bench.save("c", random_tensors(3))}
    with Processes(2) as executor:
        with pytest.raises(InputError, match=r"'model.layers.1.w': 1 in source 'b'"):
            bench.merge(WeightedAverage(), executor=executor, options={"item_bytes": 200}, a=paths["a"], b=paths["b"])
        assert not (bench.root / "out").exists()
        bench.merge(WeightedAverage(), executor=executor, options={"item_bytes": 200}, a=paths["a"], c=paths["c"])


def test_a_killed_process_is_an_error_that_says_so(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    with Processes(2) as executor:
        assert executor.pool is not None
        executor.pool.submit(int).result()
        victim = next(iter(executor.pool._processes.values()))
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: executor.pool._broken)
        with pytest.raises(ResourceError, match="a worker process was killed"):
            bench.merge(WeightedAverage(), executor=executor, options={"item_bytes": 200}, **paths)
    assert bench.left_behind() == []
    assert not (bench.root / "out").exists()


def test_no_process_is_refused():
    with pytest.raises(ConfigError, match="0 processes"):
        Processes(0)


def test_processes_end_with_a_killed_parent(tmp_path):
    place = tmp_path / "children"
    program = (
        "import sys, time\nfrom mergers.engine.processes import Processes\n"
        "with Processes(2) as executor:\n"
        "    list(executor.pool.map(time.sleep, [0.2, 0.2]))\n"
        f"    open({str(place)!r} + '.tmp', 'w').write(' '.join(str(pid) for pid in executor.pool._processes))\n"
        f"    import os; os.rename({str(place)!r} + '.tmp', {str(place)!r})\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    until(place.exists)
    children = [int(word) for word in place.read_text().split()]
    assert children
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(child) for child in children))


def alive(process: int) -> bool:
    """Whether a process runs: one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition) -> None:
    """Wait for it, at most two minutes: a new process imports torch first."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
