"""A benchmark's split becomes LLaVA records: the same examples, the same bytes each time, whole or not at all, and gone on with."""

import json
from pathlib import Path

import pytest
from benchmark_fixtures import MADE, encoded, hub_table, made, pathvqa, textvqa

from foundation.errors import InputError
from foundation.files import directory_manifest
from tasks.benchmarks import convert as conversion
from tasks.benchmarks.convert import convert
from tasks.benchmarks.task import benchmark_task
from tasks.files.task import file_task
from tasks.task import Split


@pytest.mark.parametrize("name", MADE)
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    task = made(name, tmp_path / "raw")
    for split in task.digests:
        path = convert(task, split, tmp_path / "out")
        assert path == tmp_path / "out" / f"{split}.json"
        ours, theirs = task.examples(split), file_task("t", train=path).examples(Split.TRAIN)
        assert len(ours) == len(theirs)
        for example, read in zip(ours, theirs, strict=True):
            assert read.key.endswith(example.key)
            assert (read.question.removeprefix("<image>\n"), read.answer) == (example.question, example.answer)
            assert [image.tobytes() for image in read.images] == [image.tobytes() for image in example.images]


def test_splits_lie_side_by_side_and_a_picture_is_written_once(tmp_path: Path) -> None:
    task = made("pathvqa", tmp_path / "raw")
    for split in task.digests:
        convert(task, split, tmp_path / "out")
    assert len(list((tmp_path / "out" / "images").iterdir())) == 10
    written = directory_manifest(tmp_path / "out")
    for split in task.digests:
        convert(task, split, tmp_path / "out")
        convert(task, split, tmp_path / "again")
    assert directory_manifest(tmp_path / "out") == directory_manifest(tmp_path / "again") == written
    assert [record["id"] for record in json.loads((tmp_path / "out" / "test.json").read_text())][:2] == ["pathvqa/test/0", "pathvqa/test/1"]


def test_what_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = benchmark_task("t", "textvqa", textvqa(tmp_path / "raw"))
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(task, Split.TEST, tmp_path / "out", progress=stop)
    assert told[-1] == (4, 6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images"]
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    images: list[Path] = []
    real = conversion.write_atomic
    monkeypatch.setattr(conversion, "write_atomic", lambda path, content: (images.append(path), real(path, content)))
    convert(task, Split.TEST, tmp_path / "out")
    assert [path.suffix for path in images] == [".png", ".json"]


def test_nothing_is_written_of_what_is_damaged_or_over_what_is_there(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": content, "path": ""}, "question": "what?", "answer": "liver"} for content in (encoded(0), encoded(1)[:-30])]
    hub_table(tmp_path / "bad", "test", rows)
    with pytest.raises(InputError, match="1 with an image truncated"):
        convert(benchmark_task("t", "pathvqa", tmp_path / "bad"), Split.TEST, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    task = benchmark_task("t", "pathvqa", pathvqa(tmp_path / "raw"))
    convert(task, Split.TEST, tmp_path / "out", 2)
    with pytest.raises(InputError, match=r"test.json: is there already and holds other records; name another directory"):
        convert(task, Split.TEST, tmp_path / "out", 3)
