"""Workers that share no disk: each writes whole files, and the bytes are those of the usual way."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foundation.errors import InputError
from foundation.files import directory_manifest
from mergers import Source, execute, plan_merge, read_checkpoint
from mergers.engine.by_file import execute_by_file, jobs_of
from mergers.methods.ties import Ties
from mergers.plan import Plan


class Nodes:
    """Runs jobs one after another, the last first."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        return map(function, reversed(items))


def checkpoint(place: Path, seed: int, spoilt: bool = False) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"layers.{number}.weight": torch.randn((64, 48), generator=generator) for number in range(6)}
    if spoilt:
        tensors["layers.3.weight"][5, 5] = float("nan")
    place.mkdir()
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    (place / "config.json").write_text('{"model_type": "llama"}')
    return place


def plan(tmp_path: Path, output: str, shard: int, spoilt: bool = False) -> Plan:
    """A TIES merge, which has counting rounds, cut into items that do not end where files do."""
    for name, seed in (("base", 0), ("one", 1), ("two", 2)):
        if not (tmp_path / name).exists():
            checkpoint(tmp_path / name, seed, spoilt and name == "two")
    base, one, two = (Source(name, read_checkpoint(tmp_path / name), origin=name) for name in ("base", "one", "two"))
    return plan_merge(Ties(density=0.3), [one, two], tmp_path / output, base=base, max_shard_size=shard, item_bytes=20_000)


def deliver_to(place: Path) -> Callable[[Path, str], None]:
    place.mkdir()

    def deliver(path: Path, digest: str) -> None:
        shutil.move(path, place / path.name)

    return deliver


@pytest.mark.parametrize("shard", [1 << 30, 30_000, 12_288])
def test_the_files_are_those_of_the_usual_way(tmp_path: Path, shard: int) -> None:
    whole = execute(plan(tmp_path, "whole", shard))
    apart = plan(tmp_path, "apart", shard)
    made = execute_by_file(apart, Nodes(), tmp_path / "room", deliver_to(tmp_path / "delivered"))
    assert made.files == whole.files
    assert made.digest == whole.digest
    assert (made.tensors_merged, made.tensors_copied) == (whole.tensors_merged, whole.tensors_copied)
    small, weights = directory_manifest(tmp_path / "apart"), directory_manifest(tmp_path / "delivered")
    assert not small.keys() & weights.keys()
    assert small | weights == directory_manifest(tmp_path / "whole")
    assert list((tmp_path / "room").iterdir()) == []
    assert not list(tmp_path.glob(".*.tmp"))


def test_every_piece_is_in_one_job(tmp_path: Path) -> None:
    made = plan(tmp_path, "out", 30_000)
    jobs = jobs_of(made.files, made.items)
    assert [job.file for job in jobs] == list(made.files)
    before = sorted((piece.tensor.name, piece.start) for item in made.items for piece in item.pieces)
    assert sorted((piece.tensor.name, piece.start) for job in jobs for item in job.items for piece in item.pieces) == before


def test_values_that_are_not_finite_are_told_and_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        execute_by_file(plan(tmp_path, "out", 12_288, spoilt=True), Nodes(), tmp_path / "room", deliver_to(tmp_path / "delivered"))
    assert not (tmp_path / "out").exists()
