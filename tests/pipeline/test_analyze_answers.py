"""Questions and answers of a run: what is gathered, and the page, JSON and Markdown made of it."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from answered_run import answered_run
from commands import COMPARE, EXPERIMENT
from PIL import Image
from rich.console import Console

from foundation.errors import ConfigError, InputError
from pipeline.command.analyze import analyze_answers
from pipeline.recipes.milestone import Milestone
from pipeline.report.answers import Answers, Outcome, collect
from pipeline.report.answers_files import write_answers
from pipeline.report.answers_images import picture_of
from pipeline.report.answers_page import page
from tasks.registry import get_task
from tasks.task import Example, Split

SAMPLES = 4
NASTY = '</script><b onclick="x">|*_\n7'


def answer(milestone: Milestone, example: Example) -> str:
    """Sample 0 is always right, 1 is learned by the last stage, 2 is forgotten by it, 3 is never right and answered with markup."""
    index, late = int(example.key.rsplit("/", 1)[1]), milestone.stage == 2
    return example.answer if index == 0 or index == (1 if late else 2) else NASTY if index == 3 else "wrong"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_run(tmp_path_factory.mktemp("workspace"), EXPERIMENT, answer, SAMPLES)[0]


@pytest.fixture(scope="module")
def answers(run: Path) -> Answers:
    return collect(run)


def test_every_question_has_its_image_and_a_reply_of_every_model(answers) -> None:
    assert [model.title for model in answers.lines[0].models] == [
        "base", "1 parity, before merge", "1 parity, after merge", "2 count, before merge", "2 count, after merge",
    ]  # fmt: skip
    assert [question.task for question in answers.questions] == [task for task in ("name", "parity", "count") for _ in range(SAMPLES)]
    for question in answers.questions:
        (example,) = [each for each in get_task(question.task).examples(Split.TEST, SAMPLES) if each.key == question.key]
        (picture,) = question.pictures
        assert Image.open(io.BytesIO(picture.data)).tobytes() == example.images[0].tobytes(), "small images are kept exactly"
        assert len(question.replies[0]) == 5
    assert [question.outcome(0) for question in answers.questions] == [
        Outcome.STAYED_RIGHT, Outcome.GOT_RIGHT, Outcome.GOT_WRONG, Outcome.STAYED_WRONG,
    ] * 3  # fmt: skip
    assert [question.changed(0) for question in answers.questions] == [False, True, True, False] * 3


def test_the_first_samples_of_each_task(run) -> None:
    found = collect(run, 2)
    assert (found.asked, found.shown, len(found.questions)) == (SAMPLES, 2, 6)
    assert "the first 2 of 4 samples of each task" in page(found)


def test_the_page_needs_nothing_else_and_shows_answers_as_text(answers) -> None:
    text = page(answers)
    assert text.count("<script") == text.count("</script>") == 2, "an answer cannot end the script"
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])
    assert data["questions"][3]["replies"]["0"][0] == [NASTY, 0.0]
    assert data["questions"][1]["outcomes"] == {"0": "got right"}
    assert set(data["images"]) == {name for question in data["questions"] for name in question["images"]}
    assert all(url.startswith("data:image/png;base64,") for url, _, _ in data["images"].values())
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|innerHTML|<link|src=\"", text)


def test_files(answers, run, tmp_path) -> None:
    files = write_answers(answers, tmp_path / "out")
    assert [path.name for path in files] == ["answers.html", "answers.json", "answers.md"]
    told = json.loads(files[1].read_text())
    assert told["lines"][0]["models"][0] == "base"
    assert told["questions"][2]["lines"][0]["outcome"] == "got wrong"
    for question in told["questions"]:
        assert all((tmp_path / "out" / image).exists() for image in question["images"])
    text = files[2].read_text()
    assert "### name (held out)" in text
    assert text.index("### name") < text.index("### parity\n") < text.index("### count\n")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9}, "an answer with a bar keeps its cell"
    assert '✗ &lt;/script&gt;&lt;b onclick="x"&gt;\\|\\*\\_<br>7' in text
    assert str(run.parent.parent) not in "".join(path.read_text() for path in files), "no path of this machine"
    before = {path.name: path.read_bytes() for path in files}
    assert {path.name: path.read_bytes() for path in write_answers(collect(run), tmp_path / "again")} == before


@pytest.mark.skipif(shutil.which("chromium") is None, reason="the page is opened in chromium, which is not installed")
def test_the_page_opens(answers, tmp_path) -> None:
    files = write_answers(answers, tmp_path)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run(["chromium", *options, files[0].as_uri()], capture_output=True, text=True, timeout=240, check=True).stdout
    body = shown[: shown.index('<script id="data"')]
    assert "1 of 12" in body
    assert body.count('class="row"') == 12
    assert body.count('class="reply right"') == 5
    for name, count in (("Changed", 6), ("Got right", 3), ("Got wrong", 3)):
        assert f'{name}<span class="count">{count}</span>' in body


def test_several_arms_and_seeds_share_the_questions(tmp_path) -> None:
    run, _ = answered_run(tmp_path, COMPARE, lambda milestone, example: f"{milestone.arm} {milestone.seed}", SAMPLES)
    found = collect(run)
    assert [(line.arm, line.seed) for line in found.lines] == [("plain", 0), ("plain", 1), ("averaged", 0), ("averaged", 1)]
    assert [model.model for model in found.lines[0].models] == ["base", "tuned", "tuned"]
    assert len(found.questions) == 2 * SAMPLES
    assert set(found.questions[0].replies) == {0, 1, 2, 3}


def test_an_unfinished_run_is_shown_as_far_as_it_is(tmp_path) -> None:
    run, rows = answered_run(tmp_path, EXPERIMENT, answer, SAMPLES)
    store = tmp_path / "store"
    (store / rows[3].evaluation / "record.json").unlink()
    assert len(collect(run).lines[0].models) == 3
    (store / rows[0].evaluation / "record.json").unlink()
    with pytest.raises(InputError, match="has no evaluated model of every line yet; finish it: python -m pipeline run"):
        collect(run)


def test_what_is_gone_is_named(tmp_path, monkeypatch) -> None:
    run, rows = answered_run(tmp_path, EXPERIMENT, answer, SAMPLES)
    monkeypatch.setattr(type(get_task("name")), "examples", lambda *_: [])
    with pytest.raises(InputError, match=r"task 'name' no longer has the example 'name/test/0/0'"):
        collect(run)
    (tmp_path / "store" / rows[1].evaluation / "samples.parquet").unlink()
    with pytest.raises(InputError, match=r"samples\.parquet is gone"):
        collect(run)


def test_large_images_are_made_smaller() -> None:
    large = picture_of(Image.effect_noise((1600, 400), 50))
    assert (large.width, large.height) == (640, 160)
    assert large.name.endswith(".jpg")
    assert large.url.startswith("data:image/jpeg;base64,")
    assert picture_of(Image.new("RGBA", (256, 20))).name.endswith(".png")


def test_the_command(run, tmp_path) -> None:
    text = io.StringIO()
    console = Console(file=text, width=200)
    analyze_answers(str(run), tmp_path / "out", console=console)
    assert "wise_ft, seed 0: 12 questions to 5 models: 3 got right, 3 got wrong, 3 stayed right, 3 stayed wrong" in text.getvalue()
    assert text.getvalue().splitlines()[-1] == f"next: open {(tmp_path / 'out' / 'answers.html').as_uri()}"
    analyze_answers(run.name, None, run.parent.parent, console=console)
    assert (run / "report" / "answers" / "answers.html").exists()
    with pytest.raises(ConfigError, match="--samples is 0"):
        analyze_answers(run.name, None, run.parent.parent, 0, console=console)
    with pytest.raises(InputError, match=r"unknown run 'smal'; did you mean 'small'\?"):
        analyze_answers("smal", None, run.parent.parent, console=console)
