"""Measures, groups and macro scores of a task; and what `samples.parquet` holds of them."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asked_tasks import Graded, shouting_model
from hypothesis import given
from hypothesis import strategies as st

from evaluators.evaluate import evaluate
from evaluators.generate import load_answerer
from evaluators.live import Interview, Questions
from evaluators.scores import (
    Sample,
    TaskScore,
    mean_accuracy,
    read_samples,
    read_scores,
    samples_file,
    scores_of,
    task_score,
    whole_tasks,
    write_samples,
)
from evaluators.suite import Suite
from foundation.errors import InputError

ROWS = [
    Sample("t", "1", "?", "a", "b", 1.0, "<p>", "cat", {"f1": 0.5}),
    Sample("t", "2", "?", "a", "b", 0.0, "<p>", "cat", {"f1": 1.0, "anls": 0.25}),
    Sample("t", "3", "?", "a", "b", 1.0, "<p>", "dog", {}),
]


def test_by_hand() -> None:
    found = scores_of("t", ROWS)
    assert list(found) == ["t", "t/anls", "t/f1", "t/cat", "t/dog"]
    assert found["t"] == task_score([1.0, 0.0, 1.0])
    assert found["t/f1"] == TaskScore(0.75, 0.25, 2)
    assert found["t/anls"] == TaskScore(0.25, 0.0, 1)
    assert found["t/cat"] == TaskScore(0.5, 0.5, 2)
    assert found["t/dog"] == TaskScore(1.0, 0.0, 1)


def test_macro_by_hand() -> None:
    """Mean of 1/2 and 1; se sqrt(0.5² + 0²) / 2."""
    assert scores_of("t", ROWS, macro=True)["t"] == TaskScore(0.75, 0.25, 3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=30))
def test_macro_is_the_mean_of_means(values) -> None:
    found = scores_of("t", [Sample("t", "", "", "", "", score, group=group) for group, score in values], macro=True)
    groups = [np.array([score for each, score in values if each == group]) for group in sorted({group for group, _ in values})]
    errors = [each.std(ddof=1) / math.sqrt(len(each)) if len(each) > 1 else 0.0 for each in groups]
    assert found["t"].accuracy == pytest.approx(np.mean([each.mean() for each in groups]), abs=1e-14)  # a few float64 roundings
    assert found["t"].stderr == pytest.approx(math.hypot(*errors) / len(groups), abs=1e-14)
    assert found["t"].samples == len(values)


def test_refusals() -> None:
    with pytest.raises(InputError, match="a measure and a group called 'cat'"):
        scores_of("t", [Sample("t", "1", "", "", "", 1.0, group="cat", measures={"cat": 1.0})])
    with pytest.raises(InputError, match="sample 2 is in none"):
        scores_of("t", [Sample("t", "1", "", "", "", 1.0, group="cat"), Sample("t", "2", "", "", "", 1.0)], macro=True)
    with pytest.raises(InputError, match="no groups"):
        scores_of("t", [], macro=True)


def test_samples_survive_the_file(tmp_path) -> None:
    write_samples(ROWS, tmp_path / "one.parquet")
    assert read_samples(tmp_path / "one.parquet") == ROWS
    turned = [Sample(**{**vars(row), "measures": dict(reversed(row.measures.items()))}) for row in ROWS]
    write_samples(turned, tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    schema = pq.read_schema(tmp_path / "one.parquet")
    assert schema.names == ["task", "key", "question", "answer", "response", "score", "prompt", "group", "measures"]
    assert schema.field("measures").type == pa.map_(pa.string(), pa.float64())


def test_files_of_before_are_read(tmp_path) -> None:
    held = {"task": ["t"], "key": ["1"], "question": ["?"], "answer": ["a"], "response": ["b"], "score": [0.5]}
    pq.write_table(pa.table(held), tmp_path / "old.parquet")
    assert read_samples(tmp_path / "old.parquet") == [Sample("t", "1", "?", "a", "b", 0.5)]


def test_damaged_and_foreign_files(tmp_path) -> None:
    path = tmp_path / "samples.parquet"
    with pytest.raises(InputError, match="does not exist"):
        read_samples(path)
    path.write_bytes(samples_file(ROWS, {"part": "one"}))
    assert read_samples(path, {"part": "one"}) == ROWS
    with pytest.raises(InputError, match="another evaluation"):
        read_samples(path, {"part": "two"})
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a file of samples"):
            read_samples(path)


def test_a_suite_with_measures_groups_and_macro(tmp_path) -> None:
    checkpoint = shouting_model(tmp_path / "model")
    suite = Suite((Graded("cell", macro=True), Graded("parity")), samples=12)
    scores = evaluate(checkpoint, suite, tmp_path / "out", 5)
    rows = read_samples(tmp_path / "out" / "samples.parquet")
    cell, parity = rows[:12], rows[12:]
    assert scores == {**scores_of("graded cell", cell, macro=True), **scores_of("graded parity", parity)}
    assert next(iter(scores)) == "graded cell"
    groups = sorted({row.group for row in cell})
    assert len(groups) > 2
    means = [np.mean([row.score for row in cell if row.group == group]) for group in groups]
    assert scores["graded cell"].accuracy == pytest.approx(np.mean(means), abs=1e-14)
    assert scores["graded cell"].accuracy != pytest.approx(np.mean([row.score for row in cell]), abs=1e-6)
    assert scores["graded parity/length"].accuracy == pytest.approx(np.mean([len(row.response) for row in parity]))
    assert 0 < scores["graded parity/third"].samples < 12
    assert scores["graded parity/third"].accuracy == pytest.approx(1 / 3)
    assert read_scores(tmp_path / "out" / "scores.json") == scores
    assert all(row.prompt.startswith("<|user|><image>") and row.prompt.endswith(f"{row.question}<|assistant|>") for row in rows)

    interview = Interview(Questions(load_answerer(checkpoint), suite, 5))
    assert interview.ask() == scores
    assert [interview.samples["graded cell"][row] for row in range(12)] == cell
    assert interview.scored["graded cell"] == {row: sample.score for row, sample in enumerate(cell)}


def test_measures_and_groups_are_no_tasks() -> None:
    names = ["coco", "coco/TR@1", "mine/birds", "mine/birds/f1", "coconut"]
    assert whole_tasks(names) == ["coco", "mine/birds", "coconut"]
    scores = {"coco": TaskScore(0.5, 0.1, 4), "coco/TR@1": TaskScore(0.9, 0.1, 4), "coconut": TaskScore(1.0, 0.0, 4)}
    assert mean_accuracy(scores) == 0.75
