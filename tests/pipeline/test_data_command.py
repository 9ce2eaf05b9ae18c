"""`data convert` and `data show`: what they print, their exit codes, and what they leave on disk."""

import io
from pathlib import Path

import published_data
import pytest
from commands import Ended, ended, everything_in
from published_data import coco_name
from rich.console import Console

from pipeline import cli
from pipeline.command import data_tables
from pipeline.command.data import app
from pipeline.command.data_tables import RowProgress
from tasks.arrow.sets import arrow_set
from tasks.task import Split

if all(group.name != "data" for group in cli.app.registered_groups):
    cli.app.add_typer(app, name="data")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return published_data.coco(tmp_path / "published")


def convert(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    return ended(capsys, "data", "convert", *arguments)


def test_the_table_and_the_next_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = convert(capsys, "coco", "--root", "published", "--out", "arrow")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["file", "rows", "images", "captions", "bytes", "missing"]
    assert [line[0] for line in lines[1:6]] == [f"coco_caption_karpathy_{part}.arrow" for part in ("train", "restval", "val", "test")] + [
        "all"
    ]
    assert [line[1:4] + line[-1:] for line in lines[1:6]] == [["2", "2", "6", "0"], *[["1", "1", "3", "0"]] * 3, ["5", "5", "15", "0"]]
    assert done.out.splitlines()[6:] == [
        "report: arrow/coco.report.json",
        "next: python -m pipeline data show arrow/coco_caption_karpathy_train.arrow",
    ]
    assert len(arrow_set("coco", "arrow").records(Split.TRAIN)) == 3


def test_what_was_left_out_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = coco_name("train", 25)
    (root / "train2014" / name).unlink()
    refused = convert(capsys, "coco", "--root", "published", "--out", "arrow")
    assert (refused.code, refused.out) == (3, "")
    assert refused.err == (
        f"error: coco: 1 missing or unusable in 5 rows: 1 with an image missing (coco_caption_karpathy_train: 'train2014/{name}'); "
        "images are looked for in published; mend them, or give --max-missing 1 to go on without them\n"
    )
    assert not Path("arrow").exists()
    done = convert(capsys, "coco", "--root", "published", "--out", "arrow", "--max-missing", 1)
    assert done.code == 0
    assert f"left out of coco_caption_karpathy_train: 1 with an image missing ('train2014/{name}')" in done.out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("coko", "--root", "published", "--out", "arrow"), 2, "unknown data set 'coko'; did you mean 'coco'? Known: coco, conceptual_"),
        (("coco", "--root", "nowhere", "--out", "arrow"), 3, "coco: there is no directory nowhere; check --root"),
        (("flickr30k", "--root", "published", "--out", "arrow"), 3, "published has no karpathy/dataset_flickr30k.json (nor dataset_flick"),
        (("vqav2", "--root", "published", "--out", "arrow", "--answers-from", "al"), 2, "unknown choice 'al'; did you mean 'all'?"),
        (("coco", "--root", "published", "--out", "published/karpathy/dataset_coco.json"), 2, "is a file; name a directory"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], code: int, message: str, root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = everything_in(tmp_path)
    done = convert(capsys, *arguments)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert message in done.err
    assert everything_in(tmp_path) == before


def test_show(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(capsys, "coco", "--root", "published", "--out", "arrow")
    shown = ended(capsys, "data", "show", "arrow/coco_caption_karpathy_train.arrow", "--rows", 1)
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[1:] == [
        "  image: binary",
        "  caption: list<item: string>",
        "  image_id: string",
        "  split: string",
        "row 0",
        f"  image: JPEG 40 x 30, {len(published_data.encoded(9))} bytes",
        "  caption: ['Zebra 9 on grass.', 'an animal, 9', 'bare 9']",
        "  image_id: COCO_train2014_000000000009.jpg",
        "  split: train",
        "next: python -m pipeline data show arrow/coco_caption_karpathy_train.arrow --start 1",
    ]
    assert shown.out.startswith("coco_caption_karpathy_train.arrow: 2 rows, ")
    past = ended(capsys, "data", "show", "arrow/coco_caption_karpathy_train.arrow", "--start", 9)
    assert (past.code, past.err.split("; ")[1]) == (3, "give a smaller --start\n")
    wrong = ended(capsys, "data", "show", "published/karpathy/dataset_coco.json")
    assert wrong.code == 3
    assert "cannot be read as an Arrow file" in wrong.err


def test_progress_is_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_tables, "LINE_SECONDS", 0)
    console = Console(file=io.StringIO(), force_terminal=False)
    with RowProgress(console) as progress:
        progress("looking for the images of vg", 64, 0)
        progress("writing vg", 64, 128)
        progress("writing vg", 128, 128)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "looking for the images of vg: row 64"
    assert all(line.startswith("writing vg: row 64") for line in lines[1:])
    assert len(lines) == 2


def test_progress_is_a_bar_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with RowProgress(console) as progress:
        progress("writing vg", 64, 128)
        progress.bar.refresh()
    assert "writing vg" in console.file.getvalue()
    assert "64/128" in console.file.getvalue()
