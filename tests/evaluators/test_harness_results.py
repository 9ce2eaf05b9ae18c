"""What harnesses write, read into scores and samples: files in the layouts of lm-eval 0.4.13 and lmms-eval 0.7.3, worked by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from evaluators.harness.results import Written, find_written, read_task
from evaluators.harness.spec import Harness, HarnessTask
from evaluators.scores import TaskScore
from foundation.errors import ConfigError, InputError

DATE = "2026-01-02T03-04-05.678901"


def lm_task(task: str, **changes: Any) -> HarnessTask:
    return HarnessTask("column", Harness.LM_EVAL, task, **changes)


def choice(doc: int, likely: tuple[float, float], right: int, **metrics: float) -> dict[str, Any]:
    """A multiple-choice document as lm-eval logs it."""
    return {
        "doc_id": doc,
        "doc": {"question": f"question {doc}", "choices": ["left", "right"]},
        "target": str(right),
        "arguments": {
            f"gen_args_{n}": {"arg_0": f"Q: question {doc}\nA:", "arg_1": f" {each}"} for n, each in enumerate(("left", "right"))
        },
        "resps": [[[str(each), "False"]] for each in likely],
        "filtered_resps": [[str(each), "False"] for each in likely],
        "filter": "none",
        "metrics": list(metrics),
        **metrics,
    }


def spoken(doc: int, said: str, filtered: str, name: str, score: float, target: str = "7") -> dict[str, Any]:
    """A generated document as lm-eval logs it, once for each filter."""
    return {
        "doc_id": doc,
        "doc": {"problem": f"problem {doc}"},
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": f"Solve problem {doc}.", "arg_1": {"until": ["\n"]}}},
        "resps": [[said]],
        "filtered_resps": [filtered],
        "filter": name,
        "metrics": ["exact_match"],
        "exact_match": score,
    }


def lm_written(place: Path, report: dict[str, Any], **samples: list[dict[str, Any]]) -> Written:
    place.mkdir(exist_ok=True)
    (place / f"results_{DATE}.json").write_text(json.dumps(report))
    for task, lines in samples.items():
        (place / f"samples_{task}_{DATE}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = find_written(Harness.LM_EVAL, place)
    assert found is not None
    return found


CHOICES = [choice(1, (-3.0, -1.0), 0, acc=0.0, acc_norm=1.0), choice(0, (-1.0, -2.0), 0, acc=1.0, acc_norm=1.0)]
CHOICES_REPORT = {
    "results": {
        "two": {
            "alias": "two", "sample_len": 2, "perplexity,none": 12.5, "perplexity_stderr,none": "N/A",
            "acc,none": 0.5, "acc_stderr,none": 0.5, "acc_norm,none": 1.0, "acc_norm_stderr,none": "N/A", "brier_score,none": 0.25,
        }
    },
    "group_subtasks": {},
    "higher_is_better": {"two": {"acc": True, "acc_norm": True, "brier_score": False}},
    "n-samples": {"two": {"original": 20, "effective": 2}},
}  # fmt: skip


def test_multiple_choice(tmp_path: Path) -> None:
    scores, samples = read_task(lm_written(tmp_path, CHOICES_REPORT, two=CHOICES), lm_task("two"))
    # the first metric in 0 to 1 is the score; acc_norm has no error told, and is the mean of its documents; a Brier score is no measure
    assert scores == {"column": TaskScore(0.5, 0.5, 2), "column/acc_norm": TaskScore(1.0, 0.0, 2)}
    assert [sample.key for sample in samples] == ["0", "1"]
    assert [sample.response for sample in samples] == ["left", "right"]
    assert [sample.answer for sample in samples] == ["left", "left"]
    assert [sample.score for sample in samples] == [1.0, 0.0]
    assert samples[0].question == "question 0"
    assert samples[0].prompt == "Q: question 0\nA:"
    assert samples[0].measures == {"acc_norm": 1.0}


def test_the_metric_asked_for_is_the_score(tmp_path: Path) -> None:
    scores, samples = read_task(lm_written(tmp_path, CHOICES_REPORT, two=CHOICES), lm_task("two", metric="acc_norm"))
    assert list(scores) == ["column", "column/acc"]
    assert scores["column"].accuracy == 1.0
    assert [sample.score for sample in samples] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("f1", "reports no metric 'f1'; it reports perplexity = 12.5, acc = 0.5, acc_norm = 1, brier_score = 0.25"),
        ("perplexity", "reports perplexity = 12.5; a score lies in 0 to 1"),
        ("acc,strict", "reports no metric 'acc,strict'"),
    ],
)
def test_metrics_that_are_no_score(tmp_path: Path, metric: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_task(lm_written(tmp_path, CHOICES_REPORT, two=CHOICES), lm_task("two", metric=metric))


def test_the_document_under_the_filter_of_the_metric(tmp_path: Path) -> None:
    lines = [
        spoken(0, "It is 7.", "[invalid]", "strict", 0.0), spoken(1, "#### 7", "7", "strict", 1.0),
        spoken(0, "It is 7.", "7", "flexible", 1.0), spoken(1, "#### 7", "7", "flexible", 1.0),
    ]  # fmt: skip
    entry = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.5, "exact_match,flexible": 1.0, "exact_match_stderr,flexible": 0.0}
    written = lm_written(tmp_path, {"results": {"sums": entry}, "n-samples": {"sums": {"effective": 2}}}, sums=lines)
    scores, samples = read_task(written, lm_task("sums"))
    assert scores == {"column": TaskScore(0.5, 0.5, 2), "column/exact_match,flexible": TaskScore(1.0, 0.0, 2)}
    assert [(sample.response, sample.score) for sample in samples] == [("It is 7.", 0.0), ("#### 7", 1.0)]
    assert samples[0].question == "problem 0"
    scores, samples = read_task(written, lm_task("sums", metric="exact_match,flexible"))
    assert scores["column"].accuracy == 1.0
    assert [sample.score for sample in samples] == [1.0, 1.0]


def group_written(place: Path) -> Written:
    report = {
        "results": {
            "all": {"alias": "all", "acc,none": 0.75, "acc_stderr,none": 0.25, "sample_count": {"acc,none": 4}},
            "part": {"alias": " - part"},
            "one": {"acc,none": 0.5, "acc_stderr,none": 0.5},
            "two": {"acc,none": 1.0, "acc_stderr,none": 0.0},
        },
        "group_subtasks": {"all": ["part", "two"], "part": ["one"]},
        "n-samples": {"one": {"effective": 2}, "two": {"effective": 2}},
    }
    right = [choice(doc, (-1.0, -2.0), 0, acc=1.0) for doc in (0, 1)]
    return lm_written(place, report, one=[right[0], choice(1, (-2.0, -1.0), 0, acc=0.0)], two=right)


def test_a_group_and_the_groups_in_it(tmp_path: Path) -> None:
    scores, samples = read_task(group_written(tmp_path), lm_task("all"))
    assert scores == {
        "column": TaskScore(0.75, 0.25, 4),
        "column/one": TaskScore(0.5, 0.5, 2),
        "column/two": TaskScore(1.0, 0.0, 2),
    }
    assert [(sample.key, sample.group) for sample in samples] == [("one/0", "one"), ("one/1", "one"), ("two/0", "two"), ("two/1", "two")]


def test_a_group_without_a_score_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reports no score for 'part'; it is a list of one; name these instead"):
        read_task(group_written(tmp_path), lm_task("part"))


def test_a_metric_over_the_whole_has_no_samples(tmp_path: Path) -> None:
    lines = [{**spoken(doc, "a", "a", "none", 0.0), "f1": [1, 0]} for doc in range(3)]
    report = {"results": {"pairs": {"f1,none": 0.5, "f1_stderr,none": "N/A"}}, "n-samples": {"pairs": {"effective": 3}}}
    scores, samples = read_task(lm_written(tmp_path, report, pairs=lines), lm_task("pairs"))
    assert scores == {"column": TaskScore(0.5, 0.0, 3)}
    assert samples == []


def test_not_a_number_is_no_score(tmp_path: Path) -> None:
    report = {"results": {"two": {"acc,none": math.nan, "acc_norm,none": 0.5}}}
    scores, _ = read_task(lm_written(tmp_path, report, two=CHOICES), lm_task("two"))
    assert scores == {"column": TaskScore(0.5, 0.0, 2)}


def test_damaged_files_are_named(tmp_path: Path) -> None:
    written = lm_written(tmp_path, CHOICES_REPORT)
    with pytest.raises(InputError, match=r"samples_two_.*jsonl cannot be read \(No such file or directory\)"):
        read_task(written, lm_task("two"))
    (tmp_path / f"samples_two_{DATE}.jsonl").write_text('{"doc_id": 0}\n')
    with pytest.raises(InputError, match="is not a file of logged samples"):
        read_task(written, lm_task("two"))
    (tmp_path / f"results_{DATE}.json").write_text("[]")
    with pytest.raises(InputError, match="is not a results file of lm_eval"):
        find_written(Harness.LM_EVAL, tmp_path)


def test_nothing_written(tmp_path: Path) -> None:
    assert find_written(Harness.LMMS_EVAL, tmp_path) is None


def test_lmms_eval(tmp_path: Path) -> None:
    place = tmp_path / "models__llava"
    place.mkdir()
    entry = {"alias": "charts", "relaxed,none": 0.5, "relaxed_stderr,none": "N/A", "relaxed_stderr_clt,none": 0.5, "relaxed_stderr_clustered,none": "N/A"}  # fmt: skip  # noqa: E501
    report = {"results": {"charts": entry}, "group_subtasks": {"charts": []}, "n-samples": {"charts": {"original": 9, "effective": 2}}}
    (place / "20260102_030405_results.json").write_text(json.dumps(report))
    lines = [
        {"doc_id": 0, "target": "7", "filtered_resps": "7", "token_counts": [{"output_tokens": 1}], "relaxed": 1.0, "input": "How many?"},
        {"doc_id": 1, "target": "9", "resps": " 8 ", "filtered_resps": "8", "relaxed": {"question_id": 3, "score": 0}, "input": "How few?"},
    ]
    (place / "20260102_030405_samples_charts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    written = find_written(Harness.LMMS_EVAL, tmp_path)
    assert written is not None
    scores, samples = read_task(written, HarnessTask("column", Harness.LMMS_EVAL, "charts"))
    # no error told under the metric's own name: s/√n of the documents, √(0.5 / 2)
    assert scores == {"column": TaskScore(0.5, pytest.approx(0.5, abs=1e-12), 2)}
    assert [(sample.key, sample.question, sample.answer, sample.response, sample.score) for sample in samples] == [
        ("0", "How many?", "7", "7", 1.0),
        ("1", "How few?", "9", " 8 ", 0.0),
    ]
