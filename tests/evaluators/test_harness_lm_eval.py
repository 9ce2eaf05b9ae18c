"""lm-eval in its own environment on a tiny local model: offline, with task files of one's own. Skipped where it is not installed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness_models import own_task, python_of, sum_tasks, tiny_lm

from evaluators.harness.run import HarnessAnswers, ask_harness
from evaluators.harness.spec import Harness
from evaluators.scores import task_score
from foundation.errors import ConfigError, InputError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("harness")]

COUNT = 12


@pytest.fixture(scope="module")
def python() -> str:
    return python_of(Harness.LM_EVAL)


@pytest.fixture(scope="module")
def place(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model (`lm`), tasks (`tasks`) and the data sets' cache, so that nothing of the user's is touched."""
    root = tmp_path_factory.mktemp("harness")
    tiny_lm(root / "lm")
    sum_tasks(root / "tasks")
    return root


@pytest.fixture(scope="module", autouse=True)
def cache(place: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(place / "cache"))
        yield


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def answers(place: Path, python: str, told: list[tuple[str, int, int]]) -> HarnessAnswers:
    directory = place / "tasks"
    tasks = [
        own_task("spoken", "spoken_sums", directory, python),
        own_task("by_norm", "sums", directory, python, metric="acc_norm"),
        own_task("by_choice", "sums", directory, python),
    ]
    return ask_harness(place / "lm", tasks, COUNT, place / "work", lambda *counted: told.append(counted))


def test_scores_are_those_of_the_samples(answers: HarnessAnswers) -> None:
    assert list(answers.scores) == ["spoken", "by_norm", "by_norm/acc", "by_choice", "by_choice/acc_norm"]
    for name in ("spoken", "by_norm", "by_choice"):
        rows = [sample for sample in answers.samples if sample.task == name]
        assert [sample.key for sample in rows] == [str(index) for index in range(COUNT)]
        own = task_score([sample.score for sample in rows])
        # lm-eval takes the same s/√n with n − 1; its mean is a plain sum in float64
        assert answers.scores[name].samples == COUNT
        assert answers.scores[name].accuracy == pytest.approx(own.accuracy, abs=1e-12)
        assert answers.scores[name].stderr == pytest.approx(own.stderr, abs=1e-12)
    assert answers.scores["by_choice"] == answers.scores["by_norm/acc"]


def test_scores_are_right_by_the_model_itself(answers: HarnessAnswers, place: Path) -> None:
    """The likelihoods of both choices, computed here: the same choices, and so the same score."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(place / "lm"), AutoTokenizer.from_pretrained(place / "lm")
    rows = [json.loads(line) for line in (place / "tasks" / "sums.jsonl").read_text().splitlines()]
    asked = [sample for sample in answers.samples if sample.task == "by_choice"]
    for row, sample in zip(rows, asked, strict=False):
        found = []
        for choice in row["choices"]:
            ids = tokenizer(f"{row['question']}={choice}", return_tensors="pt").input_ids
            with torch.no_grad():
                logits = model(ids).logits.log_softmax(-1)
            found.append(float(logits[0, -2, ids[0, -1]]))
        assert (sample.question, sample.prompt, sample.answer) == (row["question"], f"{row['question']}=", row["choices"][0])
        assert sample.response == row["choices"][found.index(max(found))]
        assert sample.score == float(found[0] > found[1])
    assert len({sample.score for sample in asked}) == 2, "the model answers all alike; the test would not see a swap"


def test_generated_answers_are_kept(answers: HarnessAnswers) -> None:
    spoken = [sample for sample in answers.samples if sample.task == "spoken"]
    assert spoken[0].prompt == "0+0="
    assert spoken[0].answer == "0"
    assert len({sample.response for sample in spoken}) > 1
    assert all(sample.score == float(sample.response == sample.answer) for sample in spoken)


def test_progress_and_versions_are_told(answers: HarnessAnswers, told: list[tuple[str, int, int]]) -> None:
    assert told[0] == ("spoken", 0, COUNT)
    assert told[-3:] == [(name, COUNT, COUNT) for name in ("spoken", "by_norm", "by_choice")]
    assert answers.versions["lm_eval"]["lm_eval"] == "0.4.13"
    assert {"transformers", "torch"} <= answers.versions["lm_eval"].keys()


def test_a_finished_run_is_not_run_again_and_gives_the_same(answers: HarnessAnswers, place: Path, python: str) -> None:
    log = place / "work" / "0-lm_eval" / "log.txt"
    before = log.stat().st_mtime_ns
    directory = place / "tasks"
    tasks = [own_task("spoken", "spoken_sums", directory, python), own_task("by_norm", "sums", directory, python, metric="acc_norm")]
    tasks.append(own_task("by_choice", "sums", directory, python))
    assert ask_harness(place / "lm", tasks, COUNT, place / "work") == answers
    assert log.stat().st_mtime_ns == before


def test_a_group_has_a_score_and_one_for_each_of_its_tasks(place: Path, python: str) -> None:
    group = own_task("group", "all_sums", place / "tasks", python)
    found = ask_harness(place / "lm", [group], 5, place / "group")
    assert list(found.scores) == ["group", "group/sums", "group/more_sums"]
    assert found.scores["group"].samples == 10
    assert found.scores["group"].accuracy == pytest.approx(found.scores["group/sums"].accuracy, abs=1e-12)
    assert [(sample.key, sample.group) for sample in found.samples][4:6] == [("sums/4", "sums"), ("more_sums/0", "more_sums")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "more_sumss"}, "no task 'more_sumss' among its .*did you mean 'more_sums'"),
        ({"metric": "f1"}, "task 'sums' has no metric 'f1'; it has acc, acc_norm"),
        ({"version": "0.4.5"}, "is to be asked by lm_eval 0.4.5, but .* has 0.4.13"),
    ],
)
def test_refused_before_the_model_is_loaded(place: Path, python: str, changes: dict[str, str], message: str) -> None:
    task = replace(own_task("column", "sums", place / "tasks", python), **changes)
    with pytest.raises(ConfigError, match=message):
        ask_harness(place / "lm", [task], COUNT, place / "refused")
    assert not list((place / "refused").glob("*/log.txt"))


def test_a_task_directory_that_changed_is_refused(place: Path, python: str, tmp_path: Path) -> None:
    directory = sum_tasks(tmp_path / "tasks")
    task = own_task("column", "sums", directory, python)
    (directory / "sums.jsonl").write_text("")
    with pytest.raises(InputError, match=r"the files in .* changed since 'column' was read from it"):
        ask_harness(place / "lm", [task], COUNT, tmp_path / "work")


def test_a_run_that_fails_tells_the_end_of_its_log_and_that_it_was_offline(place: Path, python: str, tmp_path: Path) -> None:
    """The task's data is on a hub, and the network is not allowed."""
    directory = sum_tasks(tmp_path / "tasks")
    path = directory / "sums.yaml"
    lines = path.read_text().replace("dataset_path: json", "dataset_path: nobody/sums").splitlines()
    path.write_text("\n".join(line for line in lines if "data_files" not in line))
    log = tmp_path / "work" / "0-lm_eval" / "log.txt"
    with pytest.raises(
        InputError, match=rf"(?s)lm_eval on sums failed after \d+ s .* its log is {log}, .*set network: true for this harness"
    ):
        ask_harness(place / "lm", [own_task("column", "sums", directory, python)], COUNT, tmp_path / "work")
    assert "nobody/sums" in log.read_text()


ASK = """
import sys
from pathlib import Path
from harness_models import own_task
from evaluators.harness.run import ask_harness

root, python = Path(sys.argv[1]), sys.argv[2]
ask_harness(root / "lm", [own_task("column", "sums", root / "tasks", python)], 12, Path(sys.argv[3]))
"""


@pytest.mark.parametrize(("how", "doing"), [(signal.SIGKILL, "-m lm_eval run"), (signal.SIGINT, "inside.py")])
def test_no_harness_is_left_when_we_are_killed(place: Path, python: str, tmp_path: Path, how: signal.Signals, doing: str) -> None:
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parents[2]), str(here.parents[1])])
    ours = subprocess.Popen(
        [sys.executable, "-c", ASK, str(place), python, str(tmp_path / "work")],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    theirs = children_doing(ours.pid, doing)
    ours.send_signal(how)
    ours.wait(timeout=120)
    gone, alive = psutil.wait_procs(theirs, timeout=30)
    assert not alive, f"{alive} outlived us"
    assert gone


def children_doing(pid: int, doing: str) -> list[psutil.Process]:
    """The processes below `pid`, as soon as the guard and the harness's interpreter have these words on their command lines."""
    for _ in range(600):
        below = psutil.Process(pid).children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            if sum(doing in " ".join(child.cmdline()) for child in below) > 1:
                return below
        time.sleep(0.1)
    raise AssertionError(f"no process with {doing!r} was started")
