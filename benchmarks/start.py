"""Part "start": what both sides spend before they do anything, and a merge so small that nothing else is left."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import SHAPES, make_models
from benchmarks.contenders import METHODS, mergekit, mergekit_imports, our_imports, ours, sources_of, write_config
from benchmarks.contest import Contender, contest, python, run

HELP = "mergeline: merge --help"
SMALL = "a merge of 1.7 MB"


def measure_start(directory: Path, repetitions: int) -> dict[str, Any]:
    """Imports alone, `merge --help`, and the linear merge of two tiny models."""
    home = directory / "tiny"
    make_models(home, SHAPES["tiny"])
    config = write_config(METHODS["linear"], home)
    contenders = [
        our_imports(),
        mergekit_imports(),
        Contender(HELP, python("-m", "pipeline", "merge", "--help")),
        ours(config, home / "out-mergeline", name=f"mergeline: {SMALL}"),
        mergekit(config, home / "out-mergekit", name=f"mergekit: {SMALL}"),
    ]
    sources = sources_of(METHODS["linear"], home)
    for contender in contenders:  # once, so that every module is compiled and in the page cache
        run(contender, sources)
    return {name: asdict(summary) for name, summary in contest(contenders, sources, repetitions).items()}
