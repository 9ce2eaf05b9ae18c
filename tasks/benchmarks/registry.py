"""The table of published benchmarks by name. A new benchmark is one more row."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.benchmarks.ai2d import Ai2d
from tasks.benchmarks.benchmark import Benchmark
from tasks.benchmarks.chartqa import ChartQa
from tasks.benchmarks.countbench import CountBench
from tasks.benchmarks.cub200 import Cub200
from tasks.benchmarks.docvqa import DocVqa
from tasks.benchmarks.infovqa import InfoVqa
from tasks.benchmarks.mmstar import MmStar
from tasks.benchmarks.ocrbench import OcrBench
from tasks.benchmarks.pathvqa import PathVqa
from tasks.benchmarks.pixmocount import PixmoCount
from tasks.benchmarks.realworldqa import RealWorldQa
from tasks.benchmarks.scienceqa import ScienceQa
from tasks.benchmarks.seedbench import SeedBench
from tasks.benchmarks.textvqa import TextVqa
from tasks.benchmarks.timeclock import CocoClock, OpenImagesClock, TimeClock

BENCHMARKS: dict[str, type[Any]] = {
    "cub200": Cub200,
    "pixmocount": PixmoCount,
    "pathvqa": PathVqa,
    "textvqa": TextVqa,
    "timeclock": TimeClock,
    "cococlock": CocoClock,
    "openimgclock": OpenImagesClock,
    "countbench": CountBench,
    "ai2d": Ai2d,
    "chartqa": ChartQa,
    "docvqa": DocVqa,
    "infovqa": InfoVqa,
    "realworldqa": RealWorldQa,
    "ocrbench": OcrBench,
    "seedbench": SeedBench,
    "scienceqa": ScienceQa,
    "mmstar": MmStar,
}
"""Name -> the dataclass of the benchmark; its fields are its options."""

SHARED_PICTURES = "max_shared_pictures"
"""An option of every benchmark: how many pictures its published splits may have in common."""


def get_benchmark(name: str, options: Mapping[str, Any] | None = None) -> Benchmark:
    """The benchmark called `name` with its own options. Raises ConfigError for an unknown name, option or value."""
    if name not in BENCHMARKS:
        raise ConfigError(unknown("benchmark", name, BENCHMARKS))
    made, given = BENCHMARKS[name], dict(options or {})
    known = [field.name for field in dataclasses.fields(made)]
    for option in given:
        if option not in known:
            raise ConfigError(f"benchmark {name}: {unknown('option', str(option), [*known, SHARED_PICTURES])}")
    return made(**given)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for an unknown benchmark, and for options that it does not have or values that it does not take."""
    get_benchmark(name, {key: value for key, value in options.items() if key != SHARED_PICTURES})
    shared_pictures(name, options)


def shared_pictures(name: str, options: Mapping[str, Any]) -> int:
    """How many pictures the published splits may have in common, as the options say; usually none. Raises ConfigError."""
    number = options.get(SHARED_PICTURES, 0)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ConfigError(f"benchmark {name}: {SHARED_PICTURES} is {number!r}; give a whole number, 0 or more")
    return number
