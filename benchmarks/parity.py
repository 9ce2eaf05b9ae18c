"""Parity: one small model merged by mergekit and by this project from the same configuration, compared element by element.

mergekit runs as it is, through its own command line, in its own environment (one process for all cases, because its imports take longer
than the merges). It computes in `dtype`; the cases in bfloat16 therefore ask it for `dtype: float32, out_dtype: bfloat16`, which is how
this project always computes. What differs beyond rounding is said beside each case.
"""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks import choices
from benchmarks.agreement import SUM_ERROR, Agreement, Excuse, compare, floats, values_of
from benchmarks.checkpoints import CONFIG_DTYPES, SHAPES, Array, make_models
from benchmarks.contenders import mergekit_bin
from benchmarks.contest import environment, python
from benchmarks.tables import percent
from mergers.checkpoints.checkpoint import read_checkpoint

MODELS = ("base", "a", "b", "c")
DTYPES = ("BF16", "F32")
PEER = """
import json, sys
from mergekit.scripts.run_yaml import main
for config, output in json.load(sys.stdin):
    main([config, output, "--no-copy-tokenizer", "--no-write-model-card", "--quiet", "--lazy-unpickle"], standalone_mode=False)
"""
OURS = """
import json, sys
from pipeline.cli import app
for config, output in json.load(sys.stdin):
    app(["merge", "--config", config, output], standalone_mode=False)
"""


@dataclass(frozen=True)
class Case:
    """A merge in mergekit's words; `each` gives a source's parameters.

    `choice` tells, from a tensor's changes in every source, at which elements the method must choose among equals (choices.py). At all
    others float32 results may differ by `relative` of the tensor's largest value, and bfloat16 results by one last place more: both round
    a float32 result that differs in its last bits. `note` says what the differences come from.
    """

    name: str
    method: str
    each: dict[str, dict[str, Any]]
    base: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    choice: Callable[[Sequence[Array]], Array] | None = None
    relative: float = SUM_ERROR
    note: str = ""

    def config(self, directory: Path, dtype: str) -> dict[str, Any]:
        """The configuration of it, over the checkpoints in `directory`."""
        models = [{"model": str(directory / name)} | ({"parameters": own} if own else {}) for name, own in self.each.items()]
        found: dict[str, Any] = {"merge_method": self.method, "models": models, "dtype": "float32", "out_dtype": CONFIG_DTYPES[dtype]}
        if self.base:
            found["base_model"] = str(directory / self.base)
        return found | ({"parameters": self.parameters} if self.parameters else {})

    def excuse(self, directory: Path) -> Excuse | None:
        """Which elements of a tensor are allowed to differ, from the checkpoints in `directory`."""
        choice = self.choice
        if choice is None or self.base is None:
            return None
        base, *others = (read_checkpoint(directory / name).tensors for name in (self.base, *self.each))

        def excused(name: str) -> Array:
            start, *values = (floats(values_of(tensors[name]), tensors[name].dtype) for tensors in (base, *others))
            return choice([value - start for value in values])

        return excused


TWO = {"a": {"weight": 0.6}, "b": {"weight": 0.4}}
THREE = {"a": {"weight": 0.5}, "b": {"weight": 0.3}, "c": {"weight": 0.4}}
WEIGHTS = (0.5, 0.3, 0.4)
FREE: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
HALF = {name: own | {"density": 0.5} for name, own in THREE.items()}
BAND = {name: own | {"density": 0.8, "gamma": 0.05} for name, own in THREE.items()}
MLP_ONLY = [{"filter": "mlp", "value": 0.9}, {"value": 0.2}]
ATTENTION = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.4}]
EQUALS, DRAWS = "equal magnitudes at the threshold", "signs in a draw"


def ties_choice(deltas: Sequence[Array]) -> Array:
    """Where TIES at density 0.5 chooses."""
    return choices.at_edges(deltas, 0.5) | choices.drawn([choices.kept(delta, 0.5) for delta in deltas], WEIGHTS)


def band_choice(deltas: Sequence[Array]) -> Array:
    """Where breadcrumbs with TIES choose; without it, the draws do not matter."""
    return choices.at_edges(deltas, 0.8, 0.05) | choices.drawn([choices.kept(delta, 0.8, 0.05) for delta in deltas], WEIGHTS)


def sce_choice(deltas: Sequence[Array]) -> Array:
    """Where SCE with half of the positions selected chooses."""
    return choices.at_variance(deltas, 0.5) | choices.drawn(deltas, (1, 1, 1))


CASES = (
    Case("linear", "linear", {"a": {"weight": 0.3}, "b": {"weight": 0.7}}),
    Case("linear, three", "linear", THREE),
    Case("linear, not normalized", "linear", TWO, parameters={"normalize": False}),
    Case("linear, gradient over depth", "linear", {"a": {"weight": [0.9, 0.1]}, "b": {"weight": [0.1, 0.4, 0.9]}}),
    Case("linear, by filter", "linear", {"a": {"weight": MLP_ONLY}, "b": {"weight": 0.5}}),
    Case("slerp", "slerp", {"a": {}, "b": {}}, "a", {"t": 0.3}),
    Case("slerp, by filter and depth", "slerp", {"a": {}, "b": {}}, "a", {"t": ATTENTION}),
    Case("task arithmetic", "task_arithmetic", THREE, "base", {"lambda": 0.8}),
    Case("ties", "ties", HALF, "base", choice=ties_choice, note=f"{EQUALS}; {DRAWS}"),
    Case("ties, not normalized, lambda", "ties", HALF, "base", {"normalize": False, "lambda": 0.7}, ties_choice, note=f"{EQUALS}; {DRAWS}"),
    Case("breadcrumbs", "breadcrumbs", BAND, "base", choice=band_choice, note=EQUALS),
    Case("breadcrumbs ties", "breadcrumbs_ties", BAND, "base", choice=band_choice, note=f"{EQUALS}; {DRAWS}"),
    Case("model stock", "model_stock", FREE, "base"),
    Case("nuslerp", "nuslerp", TWO, relative=2**-18, note="mergekit's angle comes from a float32 cosine near 1"),
    Case(
        "sce",
        "sce",
        FREE,
        "base",
        {"select_topk": 0.5},
        sce_choice,
        2**-16,
        f"equal variances at the threshold; {DRAWS}; weights with them",
    ),
    Case("karcher", "karcher", FREE, relative=2**-18, note="mergekit stops at its tolerance, in float32"),
    Case("dare ties at density 1", "dare_ties", TWO, "base", choice=lambda deltas: choices.drawn(deltas, (0.6, 0.4)), note=DRAWS),
)


@dataclass(frozen=True)
class Row:
    """A case's outcome in one dtype."""

    case: Case
    dtype: str
    agreement: Agreement

    @property
    def holds(self) -> bool:
        """Whether the results agree as far as the case says they must."""
        return self.agreement.beyond == 0 if self.dtype == "BF16" else self.agreement.relative <= self.case.relative


def run_parity(directory: Path, cases: Sequence[Case] = CASES) -> list[Row]:
    """Merge every case in both dtypes with both tools; the agreement of each."""
    jobs = []
    for dtype in DTYPES:
        home = directory / dtype
        make_models(home, SHAPES["tiny"], dtype, seed=1, models=MODELS)
        for number, case in enumerate(cases):
            config = home / f"{number}.yml"
            config.write_text(yaml.safe_dump(case.config(home, dtype), sort_keys=False))
            jobs.append((case, dtype, config))
    run_all(PEER, (str(mergekit_bin() / "python"),), [(config, config.with_suffix(".theirs")) for _, _, config in jobs])
    run_all(OURS, python(), [(config, config.with_suffix(".ours")) for _, _, config in jobs])
    return [Row(case, dtype, agreement_of(case, config)) for case, dtype, config in jobs]


def agreement_of(case: Case, config: Path) -> Agreement:
    """How far the two results of a configuration agree."""
    return compare(config.with_suffix(".ours"), config.with_suffix(".theirs"), case.excuse(config.parent), case.relative)


def run_all(program: str, interpreter: tuple[str, ...], jobs: Sequence[tuple[Path, Path]]) -> None:
    """Run a program that merges each (configuration, output) of a list; RuntimeError with what it said if it fails."""
    text = json.dumps([(str(config), str(output)) for config, output in jobs])
    done = subprocess.run(
        [*interpreter, "-c", program], input=text, capture_output=True, text=True, env=environment({"OMP_NUM_THREADS": "1"})
    )
    if done.returncode != 0:
        undone = next((str(config) for config, output in jobs if not (output / "config.json").exists()), "none")
        raise RuntimeError(f"{interpreter[0]} failed at {undone}:\n{done.stderr[-3000:]}")


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as a Markdown table, both dtypes of a case in one line."""
    lines = [
        "| method (mergekit's name) | bfloat16: equal bits | differ by choice | last places apart "
        "| float32: equal bits | differ by choice | of the largest value | differs by |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    found = {(row.case.name, row.dtype): row.agreement for row in rows}
    for case in {row.case.name: row.case for row in rows}.values():
        half, full = found[case.name, "BF16"], found[case.name, "F32"]
        why = case.note or (
            "the last bits of float32 sums (they decide what lies halfway)" if half.equal < 1 or full.equal < 1 else "nothing"
        )
        lines.append(
            f"| {case.name} (`{case.method}`) | {percent(half.equal)} | {percent(half.excused)} | {half.steps:.2g} "
            f"| {percent(full.equal)} | {percent(full.excused)} | {full.relative:.1e} | {why} |"
        )
    return lines
