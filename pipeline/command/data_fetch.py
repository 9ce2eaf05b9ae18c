"""`data fetch`: brings the raw files of published benchmarks from the hub to this machine; experiments and suites then read them here."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from pipeline.command.evaluate import named_suite
from pipeline.command.terminal import say
from tasks.benchmarks.benchmark import Benchmark
from tasks.benchmarks.fetch import is_hub_data, raw_directory
from tasks.benchmarks.questions import file_split, splits_of
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
    if place is not None and not is_hub_data(place):
        raise ConfigError(f"--from {place}: is no hub data set; give org/name or org/name@revision")
    part = Split(split) if split else None
    wanted = from_suite(suite, part) if suite is not None else [(name, source_of(name, place)) for name in dict.fromkeys(names)]
    todo = [(name, source, spellings(patterns_of(get_benchmark(name), part))) for name, source in wanted]
    for name, source, patterns in todo:
        say(console, f"{name}: {source}, {', '.join(patterns)}")
        say(console, f"{name}: {raw_directory(source, name, patterns, fetch=True)}")
    if not todo:
        say(console, f"{suite}: reads nothing from the hub{f' for its {split} split' if split else ''}; nothing to fetch")


def source_of(name: str, place: str | None) -> str:
    """The hub data set that a benchmark comes from: `place`, or the one it is published in. Raises ConfigError and InputError."""
    if name not in BENCHMARKS:
        raise ConfigError(unknown("benchmark", name, BENCHMARKS))
    source: str = BENCHMARKS[name].source
    if place is None and not is_hub_data(source):
        raise InputError(f"benchmark {name} is not on the hub; get its raw files from {source} and name their directory")
    return place or source


def patterns_of(benchmark: Benchmark, split: Split | None) -> list[str]:
    """The patterns of the raw files of one split, or of all."""
    kept = None if split is None else file_split(benchmark, split)
    if kept is not None and kept not in benchmark.files:
        raise ConfigError(f"--split: {benchmark.name} has no {kept.value} split; it has {', '.join(benchmark.files)}")
    return [pattern for each, files in benchmark.files.items() if kept in (None, each) for pattern in files]


def from_suite(file: Path, split: Split | None) -> list[tuple[str, str]]:
    """(benchmark, hub data set) for each that a suite, or an experiment, reads from the hub: of one split, those that have it."""
    data = [(str(each.benchmark), str(each.directory)) for each in named_suite(file).data.values() if each.benchmark]
    has = {name: splits_of(get_benchmark(name)) for name, _ in data}
    return sorted({(name, place) for name, place in data if is_hub_data(place) and (split is None or split in has[name])})
