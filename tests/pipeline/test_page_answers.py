"""The answers on the report's page: which are shown, how many fit, and that the page works in a browser."""

import base64
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

from foundation.errors import InputError
from pipeline.recipes.milestone import Milestone
from pipeline.report.page import write_page
from pipeline.report.page.changed import MOST, changed_answers, chosen
from pipeline.report.paired import paired_scores
from pipeline.results import all_scores, read_rows
from pipeline.store import Store
from tasks.registry import get_task
from tasks.task import Example, Split

SAMPLES = 20
ROOM = 10_000_000


def answer(milestone: Milestone, example: Example) -> str:
    """By number modulo 4: never changes; got wrong; got right; wrong at both ends but not between."""
    kind, stage = int(example.key.rsplit("/", 1)[1]) % 4, milestone.stage
    right = (True, stage < 2, stage == 2, stage == 1)[kind]
    return example.answer if right else "wrong"


def page_of(run: Path, output: Path, **bounds: int) -> str:
    scores = all_scores(read_rows(run), Store(run.parent.parent / "store"))
    return write_page(output, [run], scores, paired_scores(scores), **bounds).read_text()


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_run(tmp_path_factory.mktemp("workspace"), EXPERIMENT, answer, SAMPLES)[0]


def test_kinds_of_change_take_turns() -> None:
    right, wrong = ("yes", 1.0), ("no", 0.0)
    told = {
        ("a", "0"): [right, right, right],
        ("a", "1"): [right, wrong, wrong],
        ("a", "2"): [right, right, wrong],
        ("a", "3"): [wrong, wrong, right],
        ("a", "4"): [wrong, ("nay", 0.0), wrong],
        ("a", "5"): [right, wrong, right],
    }
    kept, changed = chosen(told, 4)
    assert ([key for _, key in kept], changed) == (["1", "3", "5", "4"], 5)
    assert [key for _, key in chosen(told, 9)[0]] == ["1", "3", "5", "4", "2"]


def test_only_changed_samples_are_shown_with_their_own_images(run, tmp_path) -> None:
    data = data_of(page_of(run, tmp_path))
    assert data["counts"] == [{task: [MOST, 15, SAMPLES] for task in ("name", "parity", "count")}]
    assert [question["task"] for question in data["questions"]] == [task for task in ("name", "parity", "count") for _ in range(MOST)]
    for question in data["questions"]:
        (example,) = [each for each in get_task(question["task"]).examples(Split.TEST, SAMPLES) if each.key == question["key"]]
        number = int(question["key"].rsplit("/", 1)[1])
        assert question["outcomes"] == {"0": ("", "got wrong", "got right", "stayed wrong")[number % 4]}
        assert (question["question"], question["answer"]) == (example.question, example.answer)
        assert [reply for reply, _ in question["replies"]["0"]] == [
            example.answer if (number % 4, stage) in {(1, 0), (1, 1), (2, 2), (3, 1)} else "wrong" for stage in (0, 1, 1, 2, 2)
        ]
        (name,) = question["images"]
        url, width, height = data["images"][name]
        picture = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        assert (picture.tobytes(), picture.size) == (example.images[0].tobytes(), (width, height))


def test_the_page_keeps_to_its_bound_and_says_what_is_left_out(run, tmp_path) -> None:
    whole = page_of(run, tmp_path / "whole")
    bare = len(page_of(run, tmp_path / "bare", most_bytes=0).encode())
    assert "45 answers changed, and none of them fits this page." in page_of(run, tmp_path / "bare", most_bytes=0)
    bound = bare + 100_000
    small = page_of(run, tmp_path / "small", most_bytes=bound)
    assert len(small.encode()) <= bound < len(whole.encode())
    counts = data_of(small)["counts"][0]
    shown = [numbers[0] for numbers in counts.values()]
    assert 0 < sum(shown) < 3 * MOST
    assert max(shown) - min(shown) <= 1, "tasks take turns"
    assert f"Shown: {sum(shown)} of 45 changed answers" in small
    assert set(data_of(small)["images"]) == {name for question in data_of(small)["questions"] for name in question["images"]}


def test_arms_and_seeds_share_questions_and_images(tmp_path) -> None:
    run, _ = answered_run(tmp_path, COMPARE, lambda milestone, example: f"{milestone.arm} {milestone.seed} {milestone.stage}", 4)
    found = changed_answers([run], ROOM)
    assert [(line.arm, line.seed) for line in found.answers.lines] == [("plain", 0), ("plain", 1), ("averaged", 0), ("averaged", 1)]
    assert len(found.answers.questions) == 8
    assert all(set(question.replies) == {0, 1, 2, 3} for question in found.answers.questions)
    twice = changed_answers([run, run], ROOM)
    assert len(twice.answers.lines) == 8
    assert len(twice.answers.questions) == 8, "the same sample of the same task stands once, whichever run asks it"


def test_figures_stand_without_answers(run, tmp_path) -> None:
    workspace = Path(shutil.copytree(run.parent.parent, tmp_path / "copy"))
    copy = workspace / "runs" / run.name
    (workspace / "store" / read_rows(copy)[-1].evaluation / "samples.parquet").unlink()
    text = page_of(copy, tmp_path)
    assert "The answers cannot be shown: " in text
    assert "run the experiment again" in text
    assert "average accuracy" in text
    with pytest.raises(InputError, match=r"samples\.parquet is gone"):
        changed_answers([copy], ROOM)


def opened(page: Path, profile: Path) -> str:
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=2000", "--dump-dom"]
    return subprocess.run(["chromium", *options, page.as_uri()], capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="the page is opened in chromium, which is not installed")
def test_the_page_works(run, tmp_path) -> None:
    """A script of the test's own chooses a stage's merge and another seed's maps, as a person would."""
    text = page_of(run, tmp_path)
    acts = """
      const pair = document.getElementById("pair");
      pair.value = "3,4"; pair.dispatchEvent(new Event("change"));
      document.body.dataset.merge = document.querySelectorAll("#outcomes .count")[1].textContent;
      pair.value = "2,4"; pair.dispatchEvent(new Event("change"));
      document.body.dataset.stage = [...document.querySelectorAll("#outcomes .count")].map((count) => count.textContent).join();
      document.querySelector('.legend [data-arm="0"]').dispatchEvent(new PointerEvent("pointerenter"));
    """
    acted = tmp_path / "acted.html"
    acted.write_text(text.replace("</body>", f"<script>{acts}</script></body>"))
    shown = opened(acted, tmp_path / "profile")
    assert 'data-merge="0"' in shown, "before and after the last merge the answers are the same"
    assert 'data-stage="36,36,12,24,0,0"' in shown, "of the second stage: all, changed, got right, got wrong, stayed right, stayed wrong"
    assert shown.count('class="row"') == 36
    assert 'class="group pointed"' in shown
    assert shown.count('class="reply wrong compared"') + shown.count('class="reply right compared"') == 2
