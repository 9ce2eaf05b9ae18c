"""`data fetch`: brings the raw files of published benchmarks from the hub to this machine; experiments and suites then read them here."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from pipeline.command.terminal import say
from pipeline.config.suite_file import read_suite
from tasks.benchmarks.benchmark import Benchmark
from tasks.benchmarks.fetch import is_hub_data, raw_directory
from tasks.benchmarks.questions import file_split
from tasks.benchmarks.raw import spellings
from tasks.benchmarks.registry import BENCHMARKS, get_benchmark
from tasks.task import Split


def fetch_benchmarks(names: Sequence[str], place: str | None, suite: Path | None, split: str | None, console: Console) -> None:
    """Bring what each benchmark reads (of all splits or of one), of the hub data set `place` or of the one it is published in.

    With a `suite`, all that it reads from the hub.
    """
    if split is not None and split not in [each.value for each in Split]:
        raise ConfigError(f"--split: {unknown('split', split, [each.value for each in Split])}")
    if bool(names) == (suite is not None):
        raise ConfigError("name benchmarks to fetch, or a suite with --suite; not both")
    if place is not None and len(names) != 1:
        raise ConfigError("--from says where one benchmark comes from; name that one")
    for name, wanted in from_suite(suite) if suite is not None else [(name, place) for name in names]:
        if name not in BENCHMARKS:
            raise ConfigError(unknown("benchmark", name, BENCHMARKS))
        source = wanted or BENCHMARKS[name].source
        if not is_hub_data(source):
            if suite is None:
                raise InputError(f"benchmark {name} is not on the hub; get its raw files from {source} and name their directory")
            continue
        patterns = spellings(patterns_of(get_benchmark(name), Split(split) if split else None))
        say(console, f"{name}: {source}, {', '.join(patterns)}")
        say(console, f"{name}: {raw_directory(source, name, patterns, fetch=True)}")


def patterns_of(benchmark: Benchmark, split: Split | None) -> list[str]:
    """The patterns of the raw files of one split, or of all."""
    kept = None if split is None else file_split(benchmark, split)
    if kept is not None and kept not in benchmark.files:
        raise ConfigError(f"--split: {benchmark.name} has no {kept.value} split; it has {', '.join(benchmark.files)}")
    return [pattern for each, files in benchmark.files.items() if kept in (None, each) for pattern in files]


def from_suite(file: Path | None) -> list[tuple[str, str | None]]:
    """(benchmark, hub data set) for each that a suite reads from the hub."""
    data = read_suite(file or Path()).data.values()
    return sorted({(each.benchmark, each.directory) for each in data if each.benchmark and is_hub_data(each.directory or "")})
