"""The graph part: the plain process does what the steps do, chains have the steps that they say, and the table from kept results."""

from pathlib import Path

import pytest

from benchmarks import document, graph_alone
from benchmarks.graph import graph_table
from foundation.files import file_sha256
from pipeline.config.experiment import build
from pipeline.graph.perform import perform
from pipeline.plan import needed
from pipeline.step import topological
from pipeline.store import Store

TINY = Path(__file__).parents[1] / "pipeline" / "tiny.yaml"
DATA = {
    "runs": {"plain": [200.0, 210.0, 190.0], "1": [220.0], "4": [140.0]},
    "stages": {"plain": [100.0, 100.0, 101.0], "1": [105.0], "4": [70.0]},
    "costs": {"Ray's start": 4.0},
    "growth": {"2": {"steps": 9.0, "plan": 0.009, "run": 0.9, "again": 0.018}},
}


def test_ratios(tmp_path: Path) -> None:
    lines = "\n".join(graph_table(DATA))
    assert "| the libraries alone, one step after another, one process | 200 (190–210) | **1.00×** | 100 | **1.00×** |" in lines
    assert "| `run`, one worker slot (`--cpus 1`) | 220 (220–220) | **1.10×** | 105 | **1.05×** |" in lines
    assert "| `run`, 4 (`--cpus 4`) | 140 (140–140) | **0.70×** | 70 | **0.70×** |" in lines
    assert "| Ray's start | 4.00 |" in lines
    assert "| 2 | 9 | 1.0 | 100.0 | 2.0 |" in lines
    document.keep(tmp_path, "50m", "graph", DATA)
    assert document.sections(document.load(tmp_path, "50m"), "50m")["bench the-graph"][0] == "### The graph"


@pytest.mark.parametrize("stages", [1, 5])
def test_a_chain_has_four_steps_a_stage_and_runs(tmp_path: Path, stages: int) -> None:
    ends, store = graph_alone.chain(stages), Store(tmp_path)
    assert len(topological(ends)) == 1 + 4 * stages
    for step in needed(ends, store).values():
        assert perform(step, store).ran
    assert not needed(graph_alone.chain(stages), store)
    assert len(needed(graph_alone.chain(stages, salt=1), store)) == 1 + 4 * stages  # another chain altogether


@pytest.mark.slow
def test_the_plain_process_does_every_step(tmp_path: Path) -> None:
    """That it ends with the same bytes as the graph, the benchmark itself holds."""
    found = graph_alone.plain(TINY, tmp_path)
    built = build(TINY, [f"workspace={tmp_path}"])
    made = tmp_path / built.milestones[-1].model.key / "checkpoint"
    assert found["digest"] == file_sha256(made / "model.safetensors")
    asked = {milestone.evaluation.key for milestone in built.milestones}
    assert {path.parent.name for path in tmp_path.glob("evaluate-*/scores.json")} == asked
