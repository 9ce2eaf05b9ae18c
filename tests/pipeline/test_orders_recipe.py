"""`orders` of a comparison: every arm in each order of the tasks, and the places of what is wrong with them."""

from pathlib import Path

import pytest

from foundation.errors import ConfigError
from pipeline.config.experiment import build, read_config

ORDERS = """\
recipe: compare
name: orders
seeds: [0]
common: {base: {pretrain: digits_llava}, held_out: [name]}
arms:
  plain: {recipe: sequential}
  averaged: {recipe: wise_ft, alpha: 0.5}
orders:
  first: [parity, count]
  turned: [count, parity]
"""


def written(directory: Path, text: str) -> Path:
    file = directory / "orders.yaml"
    file.write_text(text)
    return file


def test_every_arm_is_run_in_each_order(tmp_path: Path) -> None:
    built = build(written(tmp_path, ORDERS), [f"workspace={tmp_path}"])
    streams = {milestone.arm: milestone.evaluation.suite.stream_names for milestone in built.milestones}
    assert streams == {
        "plain [first]": ("parity", "count"),
        "plain [turned]": ("count", "parity"),
        "averaged [first]": ("parity", "count"),
        "averaged [turned]": ("count", "parity"),
    }


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("turned: [count, parity]", "turned: [count, read]", "name the same tasks in each"),
        ("turned: [count, parity]", "turned: [count, parity, parity]", "name the same tasks in each"),
        ("common: {", "common: {tasks: [parity, count], ", "so does common; keep one"),
        ("recipe: sequential", "recipe: sequential, tasks: [parity]", "so does arm 'plain'; keep one"),
        ("[count, parity]", "[cuont, parity]", "name the same tasks"),
        ("first: [parity, count]\n  turned: [count, parity]", "first: [cuont]\n  turned: [cuont]", r"orders.yaml:9: .*'cuont'"),
        ("arms:\n", "seed: 1\narms:\n", "unknown key 'seed'"),
    ],
)
def test_orders_that_cannot_be_compared_are_refused(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    assert was in ORDERS
    with pytest.raises(ConfigError, match=said):
        read_config(written(tmp_path, ORDERS.replace(was, becomes)))
