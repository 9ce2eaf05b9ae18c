"""The report as one page: it needs nothing else, is well-formed, says what the figures say, and is there for every kind of run."""

import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from answered_run import answered_run
from commands import COMPARE, EXPERIMENT, changed
from rich.console import Console

from evaluators.scores import TaskScore
from pipeline.command.summary import report_runs
from pipeline.recipes.milestone import Milestone
from pipeline.report.comparison import arms_of
from pipeline.report.page import Content, report_page, write_page
from pipeline.report.page.arms import interval_words
from pipeline.report.page.chart import numbers_axis
from pipeline.report.page.colors import DARK, INKS, LEAST_CONTRAST, LIGHT, STEPS, contrast, filled, ink_on
from pipeline.report.page.heat import whole
from pipeline.report.page.write import PAGE_BYTES, PICTURES_BYTES, search_pictures
from pipeline.report.paired import Kind, PairedScores, paired_scores
from pipeline.report.run_scores import AFTER, BEFORE, RunScores, StageScores, score_matrix
from pipeline.results import all_scores, read_rows
from pipeline.store import Store
from tasks.task import Example

SAMPLES = 8
EVIL = '</script><script>alert(1)</script><img src=x onerror="y">&"\''
VOID = {"br", "meta", "img", "input", "link", "hr"}
SEQUENTIAL = changed("alpha: 0.5\n", "", changed("recipe: wise_ft", "recipe: sequential"))


def answer(milestone: Milestone, example: Example) -> str:
    """Right by place: the base knows every second one, each stage and each arm some others; one sample is answered with markup."""
    index = int(example.key.rsplit("/", 1)[1])
    known = (index + milestone.stage + len(milestone.arm) + milestone.seed + (milestone.role == "before")) % 3 > 0
    return example.answer if known else EVIL if index == 5 else "wrong"


def made(workspace: Path, experiment: str) -> tuple[Path, list[RunScores]]:
    workspace.mkdir()
    run, rows = answered_run(workspace, experiment, answer, SAMPLES)
    return run, all_scores(rows, Store(workspace / "store"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunScores]]:
    return made(tmp_path_factory.mktemp("several") / "workspace", COMPARE.replace("tasks: [", "held_out: [name]\n  tasks: ["))


@pytest.fixture(scope="module")
def page(several: tuple[Path, list[RunScores]], tmp_path_factory: pytest.TempPathFactory) -> str:
    run, scores = several
    return write_page(tmp_path_factory.mktemp("page"), [run], scores, paired_scores(scores)).read_text()


class Reader(HTMLParser):
    """Reads a page: its tables as rows of words, by the heading above; raises AssertionError where elements do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.identifiers: list[str] = []
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.words: list[str] = []
        self.heading = ""
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "action", "data", "srcset", "poster")]
        self.identifiers += [given["id"] or ""] if "id" in given else []
        if tag == "table":
            self.tables.append((self.heading, []))
        elif tag == "tr" and "table" in self.open:
            self.tables[-1][1].append([])
        if tag in ("td", "th", "h2", "h3", "caption"):
            self.words = []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        if tag in ("td", "th"):
            self.tables[-1][1][-1].append("".join(self.words))
        elif tag == "caption":
            self.tables[-1] = ("".join(self.words), self.tables[-1][1])
        elif tag in ("h2", "h3"):
            self.heading = "".join(self.words)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_else(page) -> None:
    reader = Reader(page)
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert all(address.startswith(("data:", "#")) for address in reader.addresses)
    assert not re.search(r"https?://|@import|url\(|<link|innerHTML|eval\(", page)
    assert len(set(reader.identifiers)) == len(reader.identifiers)
    assert {address[1:] for address in reader.addresses if address.startswith("#")} <= set(reader.identifiers)
    assert len(page.encode()) < PAGE_BYTES


def test_the_same_bytes_twice_and_nothing_of_this_machine(page, several, tmp_path) -> None:
    run, scores = several
    assert write_page(tmp_path / "a", [run], scores, paired_scores(scores)).read_text() == page
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.html"]
    assert str(run.parent.parent) not in page


def test_figures_are_those_of_the_arms(page, several) -> None:
    arms = arms_of(several[1])
    (heading, rows), *_ = Reader(page).tables
    assert heading == "Figures"
    for arm, row in zip(arms, rows[1:], strict=True):
        told = dict(zip(rows[0], row, strict=True))
        assert (told["arm"], told["seeds"]) == (arm.name, "2")
        assert told["average accuracy"] == interval_words(arm.figures["acc/average"])
        assert told["forgetting, held-out"] == interval_words(arm.figures["forgetting/held_out"])
    (base,) = {interval_words(arm.figures["acc/average"]) for arm in arms if arm.name == "averaged"}
    assert f"averaged: average accuracy {base} %" in page


def test_one_seed_is_as_sure_as_its_samples(tmp_path) -> None:
    run, scores = made(tmp_path / "workspace", EXPERIMENT)
    text = write_page(tmp_path, [run], scores, paired_scores(scores)).read_text()
    rows = Reader(text).tables[0][1]
    told = dict(zip(*rows, strict=True))
    last = scores[0].stages[-1].scores
    mean, stderr = sum(each.accuracy for each in last.values()) / 3, sum(each.stderr**2 for each in last.values()) ** 0.5 / 3
    assert told["average accuracy"] == f"{100 * mean:.1f} ± {196 * stderr:.1f}"
    assert "±" not in told["forgetting, held-out"]


def test_heat_maps_hold_every_score(page, several) -> None:
    tables = [table for table in Reader(page).tables if table[0].startswith(("Before the merge", "After", "What the merge", "Change"))]
    arms = arms_of(several[1])
    runs = [[run] for run in arms[1].runs]
    assert len(tables) == 2 * 3 + 3 * 3, "plain: mean and two seeds, two maps each; averaged: three maps each"
    for members, (_, before), (_, after), (_, change) in zip([arms[1].runs, *runs], tables[6::3], tables[7::3], tables[8::3], strict=True):
        found = {role: sum(score_matrix(run, role).scores for run in members) / len(members) for role in (BEFORE, AFTER)}
        for rows, values, signed in (
            (before, found[BEFORE], False),
            (after, found[AFTER], False),
            (change, (found[AFTER] - found[BEFORE])[1:], True),
        ):
            assert [[cell for cell in row[1:] if cell] for row in rows[2:]] == [[whole(value, signed) for value in line] for line in values]


def test_merges_are_compared_on_the_same_samples(page, several) -> None:
    contrasts = paired_scores(several[1]).together(Kind.MERGE)
    rows = next(rows for _, rows in Reader(page).tables if rows[1][:2] == ["stage", "before → after"])
    assert [row[0] for row in rows[2:]] == ["1 parity", "2 count"]
    for each, row in zip(contrasts, rows[2:], strict=True):
        found = each.of[str(each.trained)].found
        assert row[1] == f"{100 * found.before:.1f} → {100 * found.after:.1f}"
        assert row[2].replace("−", "-") == f"{100 * found.difference:+.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]".replace(
            "+0.0", "0.0"
        )


def test_what_models_say_is_shown_and_never_obeyed(page) -> None:
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img src=x" not in page


def test_names_are_shown_and_never_obeyed() -> None:
    scores = {task: TaskScore(0.5, 0.1, 8) for task in ("<b>a", "<i>h")}
    stages = (StageScores(0, None, "base", scores), StageScores(1, "<b>a", "after", {**scores, "<i>h/<u>": TaskScore(0.25, 0.1, 4)}))
    run = RunScores("<script>x", 0, ("<b>a",), ("<i>h",), "", stages, "<s>")
    text = report_page(Content("<title>", [run], [], PairedScores((), ()), "<em>gone"))
    Reader(text)
    assert not re.search("<b>a|<i>h|<script>x|<u>|<em>|<s>", text)
    assert "&lt;i&gt;h/&lt;u&gt;" in text, "a part of a score has its row"


@pytest.mark.parametrize(
    ("experiment", "sections"),
    [
        (EXPERIMENT, {"figures", "merges", "maps", "curves", "frontier", "answers", "glossary"}),
        (SEQUENTIAL, {"figures", "maps", "curves", "frontier", "answers", "glossary"}),
        (changed("held_out: [name]\n", ""), {"figures", "merges", "maps", "curves", "answers", "glossary"}),
    ],
    ids=["one arm", "no merges", "no held-out tasks"],
)
def test_every_kind_of_run(tmp_path, experiment, sections) -> None:
    run, scores = made(tmp_path / "workspace", experiment)
    text = write_page(tmp_path, [run], scores, paired_scores(scores)).read_text()
    assert set(re.findall(r'<section id="(\w+)"', text)) == sections
    Reader(text)
    assert "nan" not in re.sub(r"<script.*", "", text, flags=re.S).lower()


@pytest.mark.parametrize("models", [1, 2, 4])
def test_an_unfinished_run_says_so(tmp_path, models) -> None:
    run, _ = made(tmp_path / "workspace", EXPERIMENT)
    rows, store = read_rows(run), Store(tmp_path / "workspace" / "store")
    for row in rows[models:]:
        (store.root / row.evaluation / "record.json").unlink()
    scores = all_scores(rows, store)
    text = write_page(tmp_path, [run], scores, paired_scores(scores)).read_text()
    Reader(text)
    assert f"not yet: {5 - models} of 5 evaluations are missing" in text
    assert ("Only the base model is evaluated yet" in text) == (models < 3), "a stage counts when its merge is evaluated"


def test_two_runs_on_one_page(tmp_path) -> None:
    first, one = made(tmp_path / "one", EXPERIMENT)
    second, other = made(tmp_path / "two", changed("name: small", "name: large", SEQUENTIAL))
    scores = [replace(run, arm=f"{name} {run.arm}") for name, runs in (("small", one), ("large", other)) for run in runs]
    text = write_page(tmp_path, [first, second], scores, paired_scores(scores)).read_text()
    Reader(text)
    assert "small, large" in text
    assert "small wise_ft: average accuracy" in text
    assert '"name":"large sequential, seed 0"' in text


def test_orders_of_the_tasks(tmp_path) -> None:
    orders = "orders:\n  there: [parity, count]\n  back: [count, parity]\narms:"
    experiment = COMPARE.replace("  tasks: [parity, count]\n", "  held_out: [name]\n").replace("arms:", orders)
    run, scores = made(tmp_path / "workspace", experiment)
    text = write_page(tmp_path, [run], scores, paired_scores(scores)).read_text()
    reader = Reader(text)
    rows = next(rows for heading, rows in reader.tables if heading.startswith("Over the orders"))
    assert rows[0] == ["figure", "plain", "averaged"]
    assert "over 2 orders of the tasks" in text
    assert "parity → count; count → parity" in text
    assert text.count("<figcaption>Mean over the stages") == 1, "stages of different tasks share no frontier"


def test_pictures_of_searches_as_far_as_they_fit(tmp_path) -> None:
    for name, size in (("curve_a.png", 1000), ("curve_b.png", PICTURES_BYTES - 1000), ("frontier_held_out_a.png", 1), ("search.md", 5)):
        (tmp_path / name).write_bytes(b"p" * size)
    shown, left_out = search_pictures(sorted(tmp_path.iterdir()))
    assert list(shown) == ["a: score over the parameter", "b: score over the parameter"]
    assert left_out == 1
    run = RunScores("arm", 0, ("a",), (), "", (StageScores(0, None, "base", {"a": TaskScore(0.5, 0.1, 8)}),))
    text = report_page(Content("x", [run], [], PairedScores((), ()), pictures={"<b>": b"png"}, left_out=3))
    Reader(text)
    assert 'src="data:image/png;base64,cG5n"' in text
    assert "1 pictures; 3 more beside this page" in text


def test_the_command_writes_it_and_names_it(tmp_path) -> None:
    run, _ = made(tmp_path / "workspace", EXPERIMENT)
    console = Console(file=io.StringIO(), width=200)
    report_runs(["small"], tmp_path / "workspace", tmp_path / "out", console)
    assert f"{tmp_path / 'out' / 'report.html'} and " in console.file.getvalue()
    Reader((tmp_path / "out" / "report.html").read_text())
    assert {"report.html", "report.md", "scores.csv", "paired.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}
    shutil.copytree(run, run.parent / "again")
    report_runs(["small", "again"], tmp_path / "workspace", tmp_path / "both", console)
    assert "small wise_ft" in (tmp_path / "both" / "report.html").read_text()


def test_every_cell_can_be_read() -> None:
    for kind, steps in (("score", STEPS), ("better", STEPS // 2), ("worse", STEPS // 2)):
        for step in range(steps + 1):
            for color in filled(kind, step / steps):
                assert contrast(color, ink_on(color)) >= LEAST_CONTRAST, (kind, step, color)
    assert set(LIGHT) == set(DARK)
    assert contrast(*INKS) > 15


def test_equal_values_are_not_drawn_apart() -> None:
    """An axis spans a point at least, so that rounding makes no mountain of nothing; ticks are three to seven."""
    for values in ([62.5, 62.5 + 1e-12], [0.0], [], [0.0, 100.0], [47.2, 95.1], [-0.6, 10.6]):
        axis = numbers_axis(values)
        assert axis.high - axis.low >= 1
        assert 3 <= len(axis.ticks) <= 8
        assert all(axis.low <= value <= axis.high for value in values)
