"""What a stage refuses before anything runs, and how it cuts its batches."""

import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import ConfigError
from models.parts import INSIDE, PART_NAMES, parse_parts
from trainers.spec import DEFAULT_LEARNING_RATES, TrainSpec, check_workers, default_learning_rate, plan_batches

SPEC = TrainSpec(parts=("projector",), learning_rate=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": ()}, "parts is empty"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"epochs": -1.0}, "epochs is -1.0"),
        ({"samples": 31}, "samples 31 is less than batch_size 32"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"warmup_ratio": 1.0}, "warmup_ratio is 1.0"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"sharding": "all"}, "unknown sharding 'all'"),
        ({"grouping": "size"}, "unknown grouping 'size'"),
        ({"cpu_offload": True}, "cpu_offload is for sharded weights"),
        ({"milestones": (0, 5)}, "milestones name step 0"),
        ({"milestones": (5, 5)}, "name a step twice"),
        ({"learning_rates": (("projector", 0.0),)}, "rate of projector is 0.0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"adam_beta2": 1.0}, "adam_beta2 is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"save_steps": 0}, "save_steps is 0"),
    ],
)
def test_impossible_values_are_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(SPEC, **change)


def test_sharding_needs_several_workers() -> None:
    with pytest.raises(ConfigError, match="sharding full needs several workers"):
        check_workers(replace(SPEC, sharding="full"), 1)
    check_workers(replace(SPEC, sharding="full"), 2)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"epochs is 0.*seed is -2"):
        replace(SPEC, epochs=0, seed=-2)


@pytest.mark.parametrize(("workers", "micro", "said"), [(3, None, "multiple of 3"), (64, None, "64 workers"), (2, 5, "divisor of 16")])
def test_a_batch_that_cannot_be_shared_is_refused(workers: int, micro: int | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_workers(replace(SPEC, micro_batch_size=micro), workers)


@given(workers=st.integers(1, 8), micro=st.integers(1, 8), accumulation=st.integers(1, 8), left=st.integers(0, 7), epochs=st.integers(1, 5))
def test_the_global_batch_is_what_was_asked_for(workers: int, micro: int, accumulation: int, left: int, epochs: int) -> None:
    batch = workers * micro * accumulation
    spec = replace(SPEC, batch_size=batch, micro_batch_size=micro, epochs=epochs)
    batches = plan_batches(spec, workers, 3 * batch + left % batch)
    assert (batches.micro_batch, batches.accumulation, batches.steps) == (micro, accumulation, 3 * epochs)


def test_fewer_examples_than_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="31 examples do not fill one batch of 32"):
        plan_batches(SPEC, 1, 31)


def test_how_a_stage_is_saved_and_logged_is_execution() -> None:
    execution = {"save_steps", "log_steps", "gradient_checkpointing", "loaders"}
    assert {item.name for item in fields(TrainSpec)} - SPEC.identity.keys() == execution


def test_default_rates_are_for_parts_that_exist() -> None:
    known = set(PART_NAMES.values()) | set(INSIDE)
    assert all(parts <= known for parts in DEFAULT_LEARNING_RATES)
    assert default_learning_rate(parse_parts("mm_mlp_adapter,mm_language_model")) == 2e-5
    assert default_learning_rate(parse_parts("mm_language_model", mlp_only=True)) == 5e-6


def test_parts_without_a_default_rate_need_one() -> None:
    with pytest.raises(ConfigError, match="set learning_rate"):
        default_learning_rate(("vision_tower",))


def test_the_spec_is_light_to_import() -> None:
    code = "import sys, trainers.spec; sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
