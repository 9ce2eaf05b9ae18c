"""Who is measured: this project, mergekit, and plain reads and writes; and the one configuration file that both mergers are given."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.contest import REPOSITORY, Contender, python
from foundation.errors import ConfigError

MERGEKIT = "MERGELINE_MERGEKIT"
HOW_TO_GET_MERGEKIT = (
    f"`make parity` makes an environment with mergekit 0.1.5 in .bench/venv, or set {MERGEKIT} to the bin directory of one"
)
MERGEKIT_CANDIDATES: tuple[tuple[str, ...], ...] = (
    ("--lazy-unpickle",),
    ("--lazy-unpickle", "--async-write", "--out-shard-size", "500000000"),
)
"""Options of mergekit that may make it faster; which one does is tried on the first method. No model card, no tokenizer in any.
(One thread, `-j 1`, was slower by half in earlier runs.)"""
ONE_FILE = "mergeline, one file"
SAME_FILES = ("--max-shard-size", "500MB")
"""This project's option for output files of the size that mergekit is given: several are hashed side by side, a single one is not."""


@dataclass(frozen=True)
class Method:
    """A merge to be measured: mergekit's name for it, the models it reads (the base first if it has one), and its parameters."""

    name: str
    models: tuple[str, ...]
    base: str | None
    weights: tuple[float | None, ...]
    parameters: dict[str, Any]
    each: dict[str, Any]

    def config(self, directory: Path, dtype: str = "bfloat16", **more: Any) -> dict[str, Any]:
        """mergekit's configuration of it, over the checkpoints in `directory`."""
        models = []
        for model, weight in zip(self.models, self.weights, strict=True):
            own = self.each if weight is None else {"weight": weight} | self.each
            models.append({"model": str(directory / model)} | ({"parameters": own} if own else {}))
        found: dict[str, Any] = {"merge_method": self.name, "models": models, "dtype": dtype}
        if self.base:
            found["base_model"] = str(directory / self.base)
        return found | ({"parameters": self.parameters} if self.parameters else {}) | more


METHODS = {
    "linear": Method("linear", ("a", "b"), None, (0.3, 0.7), {}, {}),
    "task_arithmetic": Method("task_arithmetic", ("a", "b"), "base", (0.6, 0.4), {}, {}),
    "slerp": Method("slerp", ("a", "b"), "a", (None, None), {"t": 0.3}, {}),
    "dare_ties": Method("dare_ties", ("a", "b"), "base", (0.6, 0.4), {}, {"density": 0.5}),
    "ties": Method("ties", ("a", "b"), "base", (0.6, 0.4), {}, {"density": 0.5}),
}
"""What is measured against mergekit, with both sides reading the same file."""


def sources_of(method: Method, directory: Path) -> list[Path]:
    """The checkpoints that a method reads."""
    return [directory / model for model in sorted({*method.models, *([method.base] if method.base else [])})]


def write_config(method: Method, directory: Path) -> Path:
    """The configuration file, beside the checkpoints."""
    path = directory / f"{method.name}.yml"
    path.write_text(yaml.safe_dump(method.config(directory), sort_keys=False))
    return path


def ours(config: Path, output: Path, *options: str, name: str = "mergeline") -> Contender:
    """This project's command line."""
    return Contender(name, python("-m", "pipeline", "merge", "--config", config, output, *options), output)


def mergekit(config: Path, output: Path, options: Sequence[str] = (), name: str = "mergekit") -> Contender:
    """mergekit's command line."""
    plain = ("--no-copy-tokenizer", "--no-write-model-card", "--quiet")
    return Contender(name, (str(mergekit_bin() / "mergekit-yaml"), str(config), str(output), *plain, *options), output)


def our_imports() -> Contender:
    """The modules that a merge of a method with compiled code needs, and nothing done with them."""
    return Contender(
        "mergeline: imports", python("-c", "import rich.progress, pipeline.cli, pipeline.command.merge, mergers.kernels.ready")
    )


def mergekit_imports() -> Contender:
    """mergekit's command line asked for nothing but its help."""
    return Contender("mergekit: imports", (str(mergekit_bin() / "mergekit-yaml"), "--help"))


def plain_copy(sources: Sequence[Path], output: Path, threads: int, flush: bool = False) -> Contender:
    """Every byte of the sources read, as many written as one of them has, with nothing in between (floor.py)."""
    script = REPOSITORY / "benchmarks" / "floor.py"
    name = f"read and write{' and flush' if flush else ''}, {threads} thread{'s' if threads > 1 else ''}"
    return Contender(name, python("-I", "-S", script, str(threads), "flushed" if flush else "left", output, *sources), output)


def cp(source: Path, output: Path) -> Contender:
    """The system's own copy of one source."""
    return Contender("cp of one source", ("cp", "-r", str(source), str(output)), output)


def mergekit_bin() -> Path:
    """Where mergekit's commands are; ConfigError where they are not."""
    path = Path(os.environ.get(MERGEKIT) or REPOSITORY / ".bench" / "venv" / "bin")
    if not (path / "mergekit-yaml").exists():
        raise ConfigError(f"{path} has no mergekit-yaml; {HOW_TO_GET_MERGEKIT}")
    return path
