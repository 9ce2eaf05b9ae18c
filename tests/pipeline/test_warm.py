"""Processes load libraries while nothing else asks for them, and are kept for the steps that need them."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.step import Step

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


@dataclass(frozen=True, eq=False, repr=False)
class Light(Step):
    kind: ClassVar[str] = "light"
    number: int
    before: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Heavy(Light):
    kind: ClassVar[str] = "heavy"
    loads: ClassVar[tuple[str, ...]] = ("json.tool", "no.such.module")


def by_key(*steps: Step) -> dict[str, Step]:
    return {step.key: step for step in steps}


def chain(kind: type[Light], first: int) -> dict[str, Step]:
    """So many steps that can run at once, and two that wait for them."""
    start = [Light(number) for number in range(first)]
    return by_key(*start, kind(10, tuple(start)), kind(11, tuple(start)))


def test_the_processors_that_the_first_steps_leave_idle_load_what_later_ones_need() -> None:
    import ray

    from pipeline.graph.warm import warm_up

    loading = warm_up(chain(Heavy, first=1))
    assert len(loading) == 1  # of two processors, one is for the step that is ready
    assert ray.get(loading) == [None]  # a module that is not there is the step's to tell of


def test_nothing_is_loaded_where_all_processors_have_work_or_no_step_names_a_module() -> None:
    from pipeline.graph.warm import warm_up

    assert warm_up(chain(Heavy, first=2)) == []
    assert warm_up(chain(Light, first=1)) == []
    assert warm_up({}) == []


def test_a_process_is_kept_beyond_one_for_each_processor(tmp_path: Path) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def meet(place: Path) -> int:
        """One of four that are there at one time."""
        (place / str(os.getpid())).touch()
        while len(list(place.iterdir())) < 4:
            time.sleep(0.1)
        return os.getpid()

    def at_once(place: Path) -> set[int]:
        place.mkdir()
        return set(ray.get([meet.remote(place) for _ in range(4)], timeout=60))

    before = at_once(tmp_path / "first")
    time.sleep(3)  # Ray ends a process that it does not keep after a second
    assert at_once(tmp_path / "second") == before
