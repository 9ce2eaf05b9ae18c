"""`data fetch` and `data export` from the command line: what is refused, and that an experiment reads what was exported."""

import json
from pathlib import Path

import pytest
import yaml
from benchmark_fixtures import pathvqa
from commands import ended

from tasks.files.task import file_task
from tasks.task import Split

SUITE = "held_out: [a, c]\ndata: {a: {benchmark: ai2d, directory: lmms-lab/ai2d}, c: {benchmark: countbench, directory: raw}}\n"
EXPERIMENT = (
    "recipe: wise_ft\nname: n\nbase: {pretrain: digits_llava}\ntasks: [parity]\nheld_out: [a]\n"
    "data: {a: {benchmark: ai2d, directory: lmms-lab/ai2d}}\n"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "raw").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "name benchmarks to fetch, or a suite"),
        (["nope"], 2, "unknown benchmark 'nope'"),
        (["cub200"], 3, "cub200 is not on the hub; get its raw files from https://"),
        (["ai2d", "--from", "raw/"], 2, "--from raw/: is no hub data set"),
        (["ai2d", "chartqa", "--from", "a/b"], 2, "--from says where one benchmark comes from"),
        (["ai2d", "--split", "validation"], 2, "ai2d has no validation split; it has test"),
        (["--suite", "suite.yaml", "--split", "validation"], 0, "reads nothing from the hub for its validation split"),
    ],
)
def test_fetch_says_what_it_cannot_bring(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str) -> None:
    result = ended(capsys, "data", "fetch", *arguments)
    assert (result.code, said in " ".join(result.said.split())) == (code, True), result.said


@pytest.mark.parametrize("file", ["suite.yaml", "experiment.yaml"])
def test_fetch_reads_suites_and_experiments(capsys: pytest.CaptureFixture[str], file: str) -> None:
    result = ended(capsys, "data", "fetch", "--suite", file)
    assert result.code == 4, "offline"
    assert result.out.startswith("ai2d: lmms-lab/ai2d, data/test-*.parquet")
    assert "countbench" not in result.said, "that lies in a directory"


@pytest.mark.parametrize(("out", "code"), [("file", 2), ("file/below", 2), ("/proc/out", 4)])
def test_export_refuses_a_place_that_cannot_be_written(capsys: pytest.CaptureFixture[str], here: Path, out: str, code: int) -> None:
    pathvqa(here / "raw")
    result = ended(capsys, "data", "export", "pathvqa", "--root", "raw", "--out", out)
    assert result.code == code
    assert f"--out {out} " in result.err


def test_what_is_exported_can_be_learned_from(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    pathvqa(here / "raw")
    for _ in range(2):
        written = ended(capsys, "data", "export", "pathvqa", "--root", "raw", "--out", "out")
        assert written.code == 0, written.err
    records = json.loads((here / "out/train.json").read_text())
    told = yaml.safe_load(written.out.partition("in an experiment: data: ")[2])  # what the command says is what an experiment reads
    task = file_task("mine", **told["pathvqa_train"])
    examples = task.examples(Split.TRAIN)
    assert len(examples) == len(records) == 10
    assert (examples[1].answer, len(examples[1].images)) == ("granulomatous inflammation", 1)
    refused = ended(capsys, "data", "export", "pathvqa", "--root", "raw", "--out", "out", "--samples", "1")
    assert refused.code == 3
    assert "holds other records" in refused.err
