"""The evaluation part: both sides ask and score the same, and the table from kept results."""

import json
from pathlib import Path

import pytest

from benchmarks import document, evaluation, evaluation_alone
from benchmarks.evaluation import ANSWERS, WORDS, evaluation_table, make_checkpoints
from evaluators.evaluate import evaluate


def speeds(*medians: float) -> dict[str, dict[str, float]]:
    found = {name: {"median": speed, "least": speed - 1, "most": speed + 1} for name, speed in zip(WORDS, medians, strict=True)}
    return found | {"batch": {"size": 300.0}}


DATA = {
    "models": {"0.8 M weights": speeds(25, 400, 408, 300, 540), "3.2 M weights": speeds(10, 100, 101, 80, 146)},
    "score": {"median": ANSWERS / 2.5, "least": 1.0, "most": 2.0},
}


def test_ratios(tmp_path: Path) -> None:
    lines = "\n".join(evaluation_table(DATA))
    assert "| a loop around `model.generate`, one at a time | 25 (24–26) | 10 (9–11) |" in lines
    assert "| **`evaluate` : one at a time** | **16.32×** | **10.10×** |" in lines
    assert "| **`evaluate` : best batch size** | **1.02×** | **1.01×** |" in lines
    assert "| **2 workers : 1** | **1.80×** | **1.82×** |" in lines
    assert "best batch sizes: 300, 300. Scoring 100,000 answers, with writing and reading them: 2.50 s." in lines
    document.keep(tmp_path, "50m", "evaluation", DATA)
    assert document.sections(document.load(tmp_path, "50m"), "50m")["bench evaluation"][0] == "### Evaluation"


def test_the_best_batch_size_is_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def timed(*arguments: str | Path) -> float:
        asked.append(tuple(map(str, arguments)))
        return {"50": 2.0}.get(str(arguments[2]), 3.0)

    monkeypatch.setattr(evaluation, "timed", timed)
    found = evaluation.measure_model(Path("model"), 2)
    assert found["batch"]["size"] == 50
    assert found["best batch"]["median"] == 3 * evaluation.SAMPLES / 2
    assert {arguments[2] for arguments in asked[len(evaluation.SIZES) :] if arguments[3] == str(evaluation.SAMPLES)} == {"50"}
    assert len(asked) == len(evaluation.SIZES) + 2 * len(WORDS)


@pytest.mark.slow
def test_both_sides_give_the_same_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = make_checkpoints(tmp_path)["0.8 M weights"]
    found = evaluation_alone.plain(place, 4, 6)
    scores = evaluate(place, evaluation_alone.suite(6), tmp_path / "out", 4)
    assert {task: sum(values) / 6 for task, values in found.items()} == {task: score.accuracy for task, score in scores.items()}
    for arguments in (("plain", str(place), "4", "5"), ("ours", str(place), "4", "5", "0"), ("score", "50")):
        evaluation_alone.main(*arguments)
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["seconds"] > 0
