"""The suite's checks, the score of a task, and that neither needs heavy libraries."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.scores import read_scores, task_score, write_scores
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError
from tasks.registry import get_task
from tasks.task import Split


def test_tasks_are_held_out_then_stream() -> None:
    suite = Suite((get_task("parity"), get_task("count")), (get_task("name"),))
    assert [task.name for task in suite.tasks] == ["name", "parity", "count"]
    assert (suite.split, suite.samples) == (Split.TEST, 300)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stream": ()}, "no tasks"),
        ({"stream": ("parity", "parity")}, "'parity' more than once"),
        ({"stream": ("parity",), "held_out": ("name", "parity")}, "'parity' more than once"),
        ({"stream": ("parity",), "samples": 0}, "0 samples"),
    ],
)
def test_suite_refuses(arguments, message) -> None:
    groups = {name: tuple(get_task(task) for task in value) if name != "samples" else value for name, value in arguments.items()}
    with pytest.raises(ConfigError, match=message):
        Suite(**groups)


def test_score_by_hand() -> None:
    score = task_score([1.0, 0.0, 1.0, 1.0])
    assert (score.accuracy, score.samples) == (0.75, 4)
    assert score.stderr == pytest.approx(math.sqrt((3 * 0.0625 + 0.5625) / 3 / 4), abs=1e-15)  # one rounding
    assert task_score([0.5]).stderr == 0
    with pytest.raises(InputError, match="no samples"):
        task_score([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_score_does_not_depend_on_order(values) -> None:
    assert task_score(values) == task_score(sorted(values))


def test_scores_survive_the_file(tmp_path) -> None:
    scores = {"b": task_score([1.0, 0.0]), "a": task_score([1 / 3, 0.1])}
    write_scores(scores, tmp_path / "scores.json")
    assert read_scores(tmp_path / "scores.json") == scores
    with pytest.raises(InputError, match="does not exist"):
        read_scores(tmp_path / "none.json")
    (tmp_path / "scores.json").write_text('{"a": [1]}')
    with pytest.raises(InputError, match="not a file of scores"):
        read_scores(tmp_path / "scores.json")


def test_light_to_import() -> None:
    heavy = "{'torch', 'transformers', 'sklearn', 'matplotlib', 'pyarrow', 'pandas'}"
    code = f"import sys, evaluators.suite, evaluators.scores, evaluators.continual; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
