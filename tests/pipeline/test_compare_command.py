"""`compare` from the command line: one run, several, other stages, unfinished ones, files, JSON, MLflow's pages, and what it refuses."""

import json
import shutil
import socket
import webbrowser
from pathlib import Path

import pytest
from answered_run import answered_run
from commands import COMPARE, EXPERIMENT, changed, ended, everything_in
from rich.console import Console

from foundation.files import write_json_atomic
from pipeline.command.summary import print_finished
from pipeline.config.experiment import build
from pipeline.recipes.milestone import Milestone, Role
from pipeline.report.compare.settings import differing_settings
from pipeline.runner import Finished
from pipeline.tracking.writing.written import Mirrored
from tasks.task import Example

OTHER = changed("name: small", "name: other", changed("alpha: 0.5", "alpha: 0.3"))


def answer(milestone: Milestone, example: Example) -> str:
    """The base knows nothing of the stream; a tuned model forgets what is held out; a merged one knows all but every fourth."""
    number = int(example.key.rsplit("/", 1)[-1])
    held_out = example.key.startswith("name")
    right = {Role.BASE: held_out, Role.BEFORE: not held_out, Role.AFTER: number % 4 != 3}[milestone.role]
    return example.answer if right else "?"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two finished runs. Tests only read it."""
    workspace = tmp_path_factory.mktemp("compared")
    answered_run(workspace, EXPERIMENT, answer, 8)
    answered_run(workspace, OTHER, lambda at, example: answer(at, example) if at.role is Role.BASE else example.answer, 8)
    return workspace


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def in_mlflow(workspace: Path, run: str, uri: str, experiment: str = "1") -> None:
    """The file that a mirrored run leaves."""
    identity = json.loads((workspace / "runs" / run / "run.json").read_text())["identity"]
    told = {"compared": [f"{run}-before", f"{run}-after"], "tracks": [f"{run}-track-before", f"{run}-track-after"]}
    place = {"identity": identity, "uri": uri, "experiment": experiment, "pipeline_run": f"{run}-pipeline", **told}
    write_json_atomic(workspace / "runs" / run / "tracking.json", place)


def test_one_run_is_compared_before_and_after_its_last_merge(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(finished)
    told = ended(capsys, "compare", "small", "--workspace", finished)
    assert told.code == 0, told.said
    rows = {line.split()[0]: line.split() for line in told.out.splitlines() if line.strip()}
    assert rows["name"][1:5] == ["100.0", "0.0", "75.0", "+75.0"]
    assert rows["parity"][1:5] == ["0.0", "100.0", "75.0", "-25.0"]
    assert rows["name"][-2] == "0.031"  # 6 won, 0 lost: 2 / 2⁶
    assert "forgetting: stream" in told.out
    assert told.out.splitlines()[-1].startswith("next: python -m pipeline sync small")
    assert everything_in(finished) == before


def test_several_runs_are_held_against_the_first_and_what_sets_them_apart_comes_first(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ended(capsys, "compare", "small", "other", "--workspace", finished)
    assert told.code == 0, told.said
    lines = [line.split() for line in told.out.splitlines() if line.split()]
    assert [line for line in lines if line[0] == "alpha"] == [["alpha", "0.5", "0.3"]]
    assert told.out.index("alpha") < told.out.index("small → other")
    shown = told.out[: told.out.index("small → other")]
    assert not any(key in shown for key in ("seed", "train", "name", "workspace"))
    rows = {line[0]: line for line in lines}
    assert rows["count"][1:4] == ["75.0", "100.0", "+25.0"]


def test_long_names_go_by_letters(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "runs" / "other").rename(workspace / "runs" / "other-with-a-name-too-long-for-a-column")
    told = ended(capsys, "compare", "small", "other-with-a-name-too-long-for-a-column", "--workspace", workspace)
    assert "B  other-with-a-name-too-long-for-a-column" in told.out
    assert "A → B, after the last stage" in told.out


def test_another_stage(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(capsys, "compare", "small", "--stage", 1, "--workspace", finished)
    assert "after stage 1 of 2 (parity): before → after its merge" in told.out
    none = ended(capsys, "compare", "small", "--stage", 0, "--workspace", finished)
    assert none.code == 2
    assert "has stages 1 to 2" in none.err


def _remove(workspace: Path, run: str, keep: int) -> None:
    """Leave the first `keep` evaluations of a run."""
    rows = json.loads((workspace / "runs" / run / "run.json").read_text())["milestones"]
    for row in rows[keep:]:
        shutil.rmtree(workspace / "store" / row["evaluation"])


def test_an_unfinished_run_is_compared_as_far_as_it_is(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _remove(workspace, "small", 4)  # the second stage lacks its merged model
    told = ended(capsys, "compare", "small", "--workspace", workspace)
    assert told.code == 0
    assert "after stage 1 of 2" in told.out
    assert "small is unfinished (1 of 5 evaluations are not there)" in told.out
    assert told.out.splitlines()[-1] == f"next: python -m pipeline run {workspace / 'runs/small/experiment.yaml'}"
    both = ended(capsys, "compare", "small", "other", "--workspace", workspace)
    assert "other has done 2 stages; compared after stage 1, the last that all have done" in both.out
    far = ended(capsys, "compare", "small", "other", "--stage", 2, "--workspace", workspace)
    assert far.code == 3
    assert "run small has come to stage 1 of 2; finish it: python -m pipeline run" in far.err


@pytest.mark.parametrize(("keep", "said"), [(0, "no model has been asked"), (1, "its base model alone has been asked"), (2, "alone")])
def test_nothing_to_compare_is_refused_with_the_next_command(
    workspace: Path, capsys: pytest.CaptureFixture[str], keep: int, said: str
) -> None:
    _remove(workspace, "small", keep)
    told = ended(capsys, "compare", "small", "--workspace", workspace)
    assert told.code == 3
    assert said in told.err or keep == 2
    assert "finish it: python -m pipeline run" in told.err
    assert not told.out


def test_refusals(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'small'" in ended(capsys, "compare", "smal", "--workspace", finished).err
    twice = ended(capsys, "compare", "small", finished / "runs" / "small", "--workspace", finished)
    assert twice.code == 2
    assert "a run is named twice" in twice.err


def test_files_and_json(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(capsys, "compare", "small", "other", "--workspace", finished, "--output", tmp_path / "out", "--json")
    data = json.loads(told.out)
    assert data["settings"] == {"alpha": {"small": "0.5", "other": "0.3"}}
    rows = {row["name"]: row for row in data["models"][0]["tasks"]}
    assert (rows["count"]["first_score"], rows["count"]["second_score"], rows["count"]["difference"]) == (0.75, 1.0, 0.25)
    assert rows["count"]["paired"] is True
    assert data["next"].startswith("python -m pipeline sync small other")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"compare.md", "tasks.csv", "measures.csv", "settings.csv", "comparison.png"}
    assert "| alpha | 0.5 | 0.3 |" in (tmp_path / "out" / "compare.md").read_text()
    first = everything_in(tmp_path / "out")
    ended(capsys, "compare", "small", "other", "--workspace", finished, "--output", tmp_path / "out")
    assert everything_in(tmp_path / "out") == first


def test_the_markdown_has_what_differs_in_bold(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(capsys, "compare", "small", "--workspace", finished, "--output", tmp_path / "out")
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "| name | 100.0 | 0.0 | 75.0 | **+75.0** |" in text
    assert "| parity | 0.0 | 100.0 | 75.0 | -25.0 |" in text  # 8 samples do not tell it from nothing


def test_links_lead_to_the_right_runs_of_one_server(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_mlflow(workspace, "small", "http://mlflow.example", "1")
    alone = ended(capsys, "compare", "small", "--workspace", workspace)
    assert "http://mlflow.example/#/compare-runs?runs=%5B%22small-before%22%2C%22small-after%22%5D" in alone.out
    assert "#/metric?runs=%5B%22small-track-before%22%2C%22small-track-after%22%5D&metric=%22acc%2Faverage%22" in alone.out
    assert alone.out.count("workflowType=machine_learning") == 2
    assert alone.out.splitlines()[-1] == f"next: python -m pipeline compare small --open --workspace {workspace}"
    in_mlflow(workspace, "other", "http://mlflow.example", "2")
    both = ended(capsys, "compare", "small", "other", "--workspace", workspace)
    assert "runs=%5B%22small-after%22%2C%22other-after%22%5D&experiments=%5B%221%22%2C%222%22%5D" in both.out
    assert "runs=%5B%22small-track-after%22%2C%22other-track-after%22%5D" in both.out


def test_runs_in_different_servers_are_said(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_mlflow(workspace, "small", "http://one.example")
    in_mlflow(workspace, "other", "http://two.example")
    told = ended(capsys, "compare", "small", "other", "--workspace", workspace)
    assert "in different MLflows" in told.out
    assert "other: http://two.example" in told.out
    assert "#/compare-runs" not in told.out


def test_a_run_that_mlflow_lost_or_that_is_another_one_by_now_is_to_be_synced(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_mlflow(workspace, "small", f"sqlite:///{workspace / 'mlflow.db'}")  # which is not there
    told = ended(capsys, "compare", "small", "--workspace", workspace)
    assert "not in MLflow, as far as its files say: small" in told.out
    in_mlflow(workspace, "small", "http://mlflow.example")
    marker = workspace / "runs" / "small" / "tracking.json"
    write_json_atomic(marker, {**json.loads(marker.read_text()), "identity": "another"})
    assert "next: python -m pipeline sync small" in ended(capsys, "compare", "small", "--workspace", workspace).out


def test_open_opens_the_page_and_starts_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda link: not opened.append(link))
    lacking = ended(capsys, "compare", "small", "--open", "--workspace", workspace)
    assert lacking.code == 4
    assert "there is no page to open" in lacking.err
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        base = f"http://127.0.0.1:{server.getsockname()[1]}"
        in_mlflow(workspace, "small", base)
        told = ended(capsys, "compare", "small", "--open", "--workspace", workspace)
    assert told.code == 0, told.err
    assert len(opened) == 1
    assert opened[0].startswith(f"{base}/#/compare-runs")
    gone = ended(capsys, "compare", "small", "--open", "--workspace", workspace)
    assert gone.code == 4
    assert f"nothing answers at {base}" in gone.err
    assert len(opened) == 1
    assert gone.out  # the tables are there all the same


def test_several_arms_and_seeds_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered_run(tmp_path, COMPARE, _by_seed, 4)
    told = ended(capsys, "compare", "both", "--workspace", tmp_path)
    assert told.code == 0, told.said
    assert "plain after the last stage (count): base → this model; nothing was merged" in told.out
    assert "averaged after the last stage (count): before → after its merge" in told.out
    assert "plain → averaged, after the last stage" in told.out
    assert "mean of seeds 0, 1" in told.out


def _by_seed(milestone: Milestone, example: Example) -> str:
    number = int(example.key.rsplit("/", 1)[-1])
    return example.answer if number > milestone.seed and milestone.role is not Role.BASE else "?"


def test_a_default_written_out_is_no_difference_and_a_part_that_one_lacks_is_one_line(tmp_path: Path) -> None:
    files = []
    for name, text in {
        "plain": EXPERIMENT,
        "told": EXPERIMENT + "strategy: fine_tuning\n",
        "other": EXPERIMENT + "strategy: {name: lwf, weight: 2.0}\n",
        "arms": COMPARE,
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        files.append(tmp_path / f"{name}.yaml")
    plain, told, other, arms = files
    assert differing_settings([plain, told]) == {}
    assert differing_settings([plain, other])["strategy.name"] == ("fine_tuning", "lwf")
    both = differing_settings([plain, arms])
    assert both["recipe"] == ("wise_ft", "compare")
    assert both["alpha"] == ("0.5", "–")
    assert both["arms"] == ("–", "plain recipe sequential, averaged recipe wise_ft, alpha 0.5")
    assert "strategy" not in both  # a default of one kind of experiment that nobody gave


def test_a_run_that_mlflow_lacks_ends_with_why_and_with_what_to_compare(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = build(finished / "runs" / "small" / "experiment.yaml")
    report = built.run_directory / "report"
    print_finished(built, Finished(0, report, None, lacking="3 events wait for MLflow"), Console(width=100), ["small.yaml"])
    lines = capsys.readouterr().out.splitlines()
    assert "MLflow       3 events wait for MLflow" in lines
    assert any(line.startswith("compare      python -m pipeline compare small --workspace") for line in lines)
    assert lines[-1].startswith("next         python -m pipeline run small.yaml alpha=0.3")
    mirrored = Mirrored("http://mlflow.example", "1", "p", ("a", "b"), ())
    print_finished(built, Finished(0, report, mirrored), Console(width=100), ["small.yaml"])
    out = capsys.readouterr().out
    assert "side by side http://mlflow.example/#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D" in out
    assert "pipeline ui" not in out
