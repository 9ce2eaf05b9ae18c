"""Part "methods": whole merges against mergekit, both reading the same configuration, and against plain reads and writes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.agreement import compare
from benchmarks.contenders import (
    MERGEKIT_CANDIDATES,
    ONE_FILE,
    SAME_FILES,
    Method,
    cp,
    mergekit,
    ours,
    plain_copy,
    sources_of,
    write_config,
)
from benchmarks.contest import contest, remove, run

RANDOM = ("dare_ties",)
"""Methods whose masks differ between the two by design: nothing to compare element by element."""

Say = Callable[[str], None]


def measure_method(directory: Path, method: Method, repetitions: int, known: dict[str, Any] | None, say: Say) -> dict[str, Any]:
    """One method. `known` is an earlier result: mergekit's options are not tried again."""
    sources = sources_of(method, directory)
    config = write_config(method, directory)
    mine = ours(config, directory / "out-mergeline", *SAME_FILES)
    tried = known["tried"] if known else try_options(config, directory / "out-mergekit", sources, say)
    fastest = min(tried, key=lambda options: tried[options])
    peer = mergekit(config, directory / "out-mergekit", fastest.split())
    say(f"{method.name}: mergekit is fastest with {fastest or 'its defaults'}; a first run of each, not counted")
    run(mine, sources)
    if known:
        run(peer, sources)
    assert mine.output
    assert peer.output
    agreement = None if method.name in RANDOM else asdict(compare(mine.output, peer.output))
    remove(mine.output)
    remove(peer.output)
    say(f"{method.name}: {repetitions} runs of each")
    contenders = [mine, peer, ours(config, directory / "out-mergeline", name=ONE_FILE)]
    if method.name == "linear":
        contenders += [plain_copy(sources, directory / "out-copy", *how) for how in ((1,), (4,), (4, True))]
        contenders += [cp(sources[0], directory / "out-cp")]
    summaries = contest(contenders, sources, repetitions)
    for name, summary in summaries.items():
        say(f"  {name}: {summary.wall:.2f} s ({summary.wall_least:.2f}-{summary.wall_most:.2f}), {summary.cpu:.1f} CPU s")
    return {
        "runs": {name: asdict(summary) for name, summary in summaries.items()},
        "options": fastest,
        "tried": tried,
        "agreement": agreement,
        "bytes": {"read": sum(path.stat().st_size for source in sources for path in source.glob("*.safetensors"))},
    }


def try_options(config: Path, output: Path, sources: Sequence[Path], say: Say) -> dict[str, float]:
    """mergekit's options -> wall seconds of one run; the last run's output is left lying."""
    tried = {}
    for options in MERGEKIT_CANDIDATES:
        tried[" ".join(options)] = run(mergekit(config, output, options), sources).wall
        say(f"  mergekit {' '.join(options)}: {tried[' '.join(options)]:.1f} s")
    return tried
