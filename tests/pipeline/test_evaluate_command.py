"""`evaluate` from the command line: what is refused before a model is loaded, what is shown, what a stop leaves behind."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from asked_tasks import shouting_model
from benchmark_fixtures import cell, hub_table
from benchmark_fixtures_held_out import ai2d
from commands import ended
from rich.console import Console

import pipeline.command.evaluate as command
from foundation.errors import Interrupted
from pipeline.command.evaluate import Asking, evaluate_checkpoint, parts_beside, visible

OPTIONS = ["a dog", "the cat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shouting_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ai2d(tmp_path / "raw")
    return written(tmp_path, "held_out: [x]\ndata: {x: {benchmark: ai2d, directory: raw}}\n")


def written(here: Path, text: str) -> Path:
    (here / "suite.yaml").write_text(text)
    return here / "suite.yaml"


def rows(here: Path, **changes: Any) -> None:
    """ai2d's table with three questions, the second of them changed."""
    plain = [{"question": f"What is {n}?", "options": OPTIONS, "answer": "1", "image": cell(n)} for n in range(3)]
    hub_table(here / "raw", "test", [each | changes if n == 1 else each for n, each in enumerate(plain)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{x: {benchmark: ai2d, directory: raw, options: {seed: 3}}}", r"suite.yaml:2: data.x: benchmark ai2d: unknown option 'seed'"),
        ("{x: {benchmark: timeclock, directory: raw, options: {hours: 12.0}}}", r"suite.yaml:2: .*hours is 12.0; give 12 or 24"),
        ("{x: {benchmark: ai2d, directory: raw}, a/b: {benchmark: ai2d, directory: raw}}", r"suite.yaml:2: data names 'a/b'"),
        ('{x: {benchmark: ai2d, directory: raw}, " y": {benchmark: ai2d, directory: raw}}', r"suite.yaml:2: data names ' y'"),
    ],
)
def test_a_wrong_suite_is_told_with_its_place(suite: Path, model: Path, capsys: pytest.CaptureFixture[str], data: str, said: str) -> None:
    written(suite.parent, f"held_out: [x]\ndata: {data}\n")
    result = ended(capsys, "evaluate", model, "--suite", "suite.yaml")
    assert result.code == 2
    assert re.search(said, result.err), result.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": "<image> or <image>?"}, "question 1 shows 1 image(s), and <image> stands 2 time(s)"),
        ({"image": {"bytes": b"no image", "path": "1.png"}}, "1 with a file that is no image (1: the image held in the record)"),
        ({"answer": "9" * 5000}, "row 1 (from 0)"),
    ],
)
def test_a_bad_question_in_the_middle_is_refused_before_the_model_is_loaded(
    suite: Path, model: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    rows(suite.parent, **changes)
    with patch("evaluators.generate.load_model", side_effect=AssertionError("the model was loaded")):
        result = ended(capsys, "evaluate", model, "--suite", "suite.yaml", "--output", "answers")
    assert result.code == 3
    assert said in result.err
    assert len(result.err) < 1000, "a cell may hold a book; the message does not"
    assert not (suite.parent / "answers").exists()


def test_what_would_steer_a_terminal_is_shown_as_text(suite: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows(suite.parent, question="red \x1b[31m [bold]x[/] \u202e?")
    result = ended(capsys, "evaluate", model, "--suite", "suite.yaml", "--show", "2")
    assert result.code == 0
    assert r"red \x1b[31m [bold]x[/] \u202e?" in result.out
    assert visible("a\tb\nç 日") == "a\tb\nç 日"


def test_show_refuses_what_an_evaluation_refuses(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = shouting_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    result = ended(capsys, "evaluate", bare, "--suite", "suite.yaml", "--show", "1")
    assert result.code == 3
    assert str(bare) in result.err
    assert result.out == ""


def test_an_output_that_cannot_be_written_is_told_before_anything_is_asked(
    suite: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch.object(command, "asked", side_effect=AssertionError("it was asked")):
        result = ended(capsys, "evaluate", model, "--suite", "suite.yaml", "--output", "/proc/answers")
    assert result.code == 4
    assert "/proc cannot be written" in result.err


def test_two_evaluations_do_not_write_one_output(suite: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with command.claimed(Path("answers")):
        result = ended(capsys, "evaluate", model, "--suite", "suite.yaml", "--output", "answers")
    assert result.code == 4
    assert "--output answers: another evaluation writes it now" in result.err


def stopped_in_ray(*_: object, **__: object) -> Iterator[None]:
    """What Ray makes of a Ctrl-C that strikes in its compiled code."""
    raise SystemError("returned a result with an exception set") from Interrupted("stopped")


@pytest.mark.parametrize(("output", "said"), [("answers", "kept, run the same command again to go on"), (None, "begin anew")])
def test_a_stop_inside_ray_is_a_stop(suite: Path, model: Path, output: str | None, said: str) -> None:
    asking = Asking(suite, output=Path(output) if output else None)
    with patch.object(command, "asked", side_effect=stopped_in_ray), pytest.raises(Interrupted, match=said):
        evaluate_checkpoint(str(model), asking, Console())


def test_an_error_of_the_system_stays_one(suite: Path, model: Path) -> None:
    with patch.object(command, "asked", side_effect=SystemError("a bug")), pytest.raises(SystemError, match="a bug"):
        evaluate_checkpoint(str(model), Asking(suite), Console())


def test_a_stopped_evaluation_goes_on_and_leaves_the_same_bytes(suite: Path, model: Path) -> None:
    import evaluators.evaluate as evaluation

    def ask(name: str) -> bytes:
        evaluate_checkpoint(str(model), Asking(suite, batch_size=1, output=Path(name)), Console(quiet=True))
        return Path(name, "samples.parquet").read_bytes()

    whole, keep, kept = ask("whole"), evaluation.keep_part, []

    def stop_after_one(*arguments: Any) -> None:
        if kept:
            raise Interrupted("stopped")
        kept.append(keep(*arguments))

    with patch.object(evaluation, "keep_part", stop_after_one), pytest.raises(Interrupted, match="go on"):
        ask("answers")
    assert list(parts_beside(Path("answers")).glob("part-*.parquet"))
    assert not Path("answers").exists()
    assert ask("answers") == whole
    assert not parts_beside(Path("answers")).exists()
