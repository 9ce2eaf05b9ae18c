"""Merges that go wrong: nothing half-written stays, the old stays, and the message says what broke."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import save_file
from small_models import random_tensors

from foundation.errors import ConfigError, InputError, ResourceError
from foundation.files import directory_manifest
from mergers import MERGERS, WeightedAverage, execute, plan_merge
from mergers.checkpoints.header import read_header


@dataclass(frozen=True)
class Fails:
    """An executor that breaks down half way."""

    error: type[BaseException]

    def map(self, function, items):
        for item in items[: len(items) // 2]:
            yield function(item)
        raise self.error("half way")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_a_merge_that_fails_half_way_leaves_nothing(bench, error):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    with pytest.raises(error):
        bench.merge(WeightedAverage(), executor=Fails(error), options={"item_bytes": 100}, **paths)
    assert sorted(path.name for path in bench.root.iterdir()) == ["a", "b"]
    bench.merge(WeightedAverage(), **paths)


def test_a_failed_replacement_leaves_the_old_checkpoint(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    old = bench.merge(WeightedAverage(), **paths)
    with pytest.raises(RuntimeError):
        bench.merge(WeightedAverage((0.1, 0.9)), executor=Fails(RuntimeError), options={"replace": True}, **paths)
    assert directory_manifest(old.output) == old.files
    new = bench.merge(WeightedAverage((0.1, 0.9)), options={"replace": True, "max_shard_size": 800}, **paths)
    assert directory_manifest(new.output) == new.files, "nothing of the old one may stay: loaders could take it"


def test_an_output_that_appears_meanwhile_is_not_overwritten(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}

    def another_merge(*_):
        bench.save("out", random_tensors(3))

    with pytest.raises(ConfigError, match="exists and is not empty"):
        bench.merge(WeightedAverage(), progress=another_merge, **paths)
    assert torch.equal(bench.load()["scalar"], random_tensors(3)["scalar"])
    assert bench.left_behind() == []


def test_an_executor_that_loses_items_is_found_out(bench):
    class Loses:
        def map(self, function, items):
            return map(function, items[1:])

    with pytest.raises(RuntimeError, match="returned 4 outcomes for 5 work items"):
        bench.merge(
            WeightedAverage(),
            executor=Loses(),
            options={"item_bytes": 1},
            a=bench.save("a", random_tensors(1)),
            b=bench.save("b", random_tensors(2)),
        )


def test_kill_leaves_no_model_and_the_next_merge_clears_up(bench):
    a, b = bench.save("a", random_tensors(1)), bench.save("b", random_tensors(2))
    code = (
        "import os, signal, sys; from pathlib import Path; from mergers import *\n"
        "s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "plan = plan_merge(WeightedAverage(), s, Path(sys.argv[3]), item_bytes=100)\n"
        "execute(plan, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(a), str(b), str(bench.root / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = bench.left_behind()
    assert left.startswith(".out.")
    assert not (bench.root / left / "config.json").exists(), "must not look like a model"
    bench.merge(WeightedAverage(), "young", a=a, b=b)
    bench.merge(WeightedAverage(), a=a, b=b)
    assert bench.left_behind() == [left], "a directory this young may belong to a merge that is just starting"
    os.utime(bench.root / left, (0, 0))
    bench.merge(WeightedAverage(), options={"replace": True}, a=a, b=b)
    assert bench.left_behind() == []


def test_a_full_disk_is_a_resource_error(bench):
    """Runs in a process of its own, whose files may not grow past 100 bytes."""
    a, b = bench.save("a", random_tensors(1)), bench.save("b", random_tensors(2))
    code = (
        "import resource, signal, sys; from pathlib import Path; from mergers import *; import torch\n"
        "from foundation.errors import ResourceError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "plan = plan_merge(WeightedAverage(), s, Path(sys.argv[3])); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: execute(plan)\n"
        "except ResourceError as error: print(error); sys.exit(4)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(a), str(b), str(bench.root / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "free space there" in done.stdout
    assert sorted(path.name for path in bench.root.iterdir()) == ["a", "b"]


def test_too_little_disk_is_refused_before_work(bench, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(ResourceError, match=r"has 100 bytes free, the merge writes .* kB"):
        bench.merge(WeightedAverage(), a=bench.save("a", random_tensors(1)), b=bench.save("b", random_tensors(2)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(bench, dtype, value):
    broken = random_tensors(2, dtype)
    broken["model.layers.1.w"][100, 1] = value
    broken["model.norm"][3:5] = value
    paths = {"a": bench.save("a", random_tensors(1, dtype)), "b": bench.save("b", broken)}
    with pytest.raises(
        InputError, match=r"3 values in 2 tensors .* \('model.layers.1.w': 1 in source 'b'; 'model.norm': 2 in source 'b'\)"
    ):
        bench.merge(WeightedAverage(), **paths)
    assert bench.left_behind() == []
    bench.merge(WeightedAverage(), options={"allow_nonfinite": True}, **paths)


def test_a_value_too_large_for_the_first_dtype_is_named(bench):
    a, b = {"w": torch.ones(3, dtype=torch.float16)}, {"w": torch.tensor([1.0, 1e9, 1.0])}
    with pytest.raises(InputError, match="'w': 1 in the result as F16"):
        bench.merge(WeightedAverage(), a=bench.save("a", a), b=bench.save("b", b))


def test_a_source_cut_short_after_planning_is_named(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    plan = plan_merge(WeightedAverage(), bench.sources(**paths), bench.root / "out")
    os.truncate(paths["b"] / "model.safetensors", 500)
    with pytest.raises(InputError, match=r"b/model.safetensors ended early"):
        execute(plan)


def test_a_device_is_refused_before_work_where_it_cannot_be_had(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    plan = plan_merge(WeightedAverage(), bench.sources(**paths), bench.root / "out")
    with pytest.raises(ConfigError, match="device is 'gpu'; a merge computes on cpu or cuda"):
        execute(plan, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="torch finds no GPU here"):
            execute(plan, device="cuda")
    slerp = plan_merge(MERGERS["slerp"](), bench.sources(**paths), bench.root / "out")
    with pytest.raises(ConfigError, match="slerp computes on the processor only"):
        execute(slerp, device="cuda")
    assert not (bench.root / "out").exists()


def test_a_linked_output_is_written_where_the_link_leads(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    (bench.root / "there").mkdir()
    (bench.root / "out").symlink_to(bench.root / "there", target_is_directory=True)
    bench.merge(WeightedAverage(), **paths)
    assert (bench.root / "out").is_symlink()
    assert (bench.root / "there" / "model.safetensors").exists()


def test_statistics_of_other_tensors_are_refused(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    renamed = {f"module.{name}": tensor.float().abs() for name, tensor in random_tensors(3).items()}
    save_file(renamed, bench.root / "fisher.safetensors")
    sources = [replace(source, statistics=read_header(bench.root / "fisher.safetensors")) for source in bench.sources(**paths)]
    with pytest.raises(
        InputError, match=r"statistics of source 'a' are for 5 tensors that it does not hold, e.g. 'module.model.embed.weight'"
    ):
        plan_merge(MERGERS["fisher"](), sources, bench.root / "out")
    whole = {name: torch.ones(tensor.shape, dtype=torch.int32) for name, tensor in random_tensors(3).items()}
    save_file(whole, bench.root / "whole.safetensors")
    sources = [replace(source, statistics=read_header(bench.root / "whole.safetensors")) for source in sources]
    with pytest.raises(InputError, match="of source 'a' has dtype I32"):
        plan_merge(MERGERS["fisher"](), sources, bench.root / "out")
