"""Processes that load what steps will need while nothing else asks for their processors.

Importing torch and transformers takes a process four seconds, and Ray starts one only when a task is there for it. So while the first steps
keep less than all processors busy, the others load the libraries. A task that does so takes a processor like any other: a step that gets
ready meanwhile waits no longer for it than it would take to load them itself.
"""

import importlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import ray

from pipeline.step import Step

ENOUGH = 4
"""A stage and two evaluations beside it, and one to spare."""


def warm_up(steps: Mapping[str, Step]) -> list[Any]:
    """Have idle processors of the connected Ray load what `steps` name; gives the tasks' references at once, nothing waits for them."""
    modules = sorted({module for step in steps.values() for module in step.loads})
    first = [step for step in steps.values() if not any(needed.key in steps for needed in step.inputs)]
    later = len(steps) - len(first)
    idle = ray.cluster_resources().get("CPU", 0) - sum(step.demand.get("CPU", 0) for step in first)
    count = max(0, min(ENOUGH, later, int(idle)))
    return [_load.remote(modules) for _ in range(count if modules else 0)]


@ray.remote(num_cpus=1, max_retries=0)
def _load(modules: Iterable[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # the step that needs it says so
            importlib.import_module(module)
