"""A run's own files in the object store: what one machine put there, another goes on with, and the first one after it."""

import os
import urllib.request
from pathlib import Path

from pipeline.objects.bucket import open_bucket
from pipeline.objects.runs import RunFiles


def machine(place: Path, uri: str) -> RunFiles:
    """The run on a machine with a disk of its own."""
    (place / "runs" / "one" / "tracking").mkdir(parents=True, exist_ok=True)
    return RunFiles(uri, place / "runs" / "one")


def test_a_run_goes_on_from_machine_to_machine(tmp_path: Path, objects: str) -> None:
    first, second = machine(tmp_path / "first", objects), machine(tmp_path / "second", objects)
    journal, written = Path("tracking") / "events.jsonl", Path("tracking") / "written.json"
    (first.directory / journal).write_text("1\n")
    (first.directory / written).write_text("up to 1")
    first.push()
    second.bring()
    assert (second.directory / journal).read_text() == "1\n"
    (second.directory / journal).write_text("1\n2\n")
    (second.directory / written).write_text("up to 2")
    second.push()
    again = machine(tmp_path / "first", objects)
    again.bring()
    assert (again.directory / journal).read_text() == "1\n2\n"  # where it went on
    assert (again.directory / written).read_text() == "up to 2"  # which speaks of it
    again.push()
    assert open_bucket(objects).read("runs/one/tracking/events.jsonl").content == b"1\n2\n"  # type: ignore[union-attr]


def test_an_object_that_stands_for_a_folder_is_no_file(tmp_path: Path, objects: str) -> None:
    """Consoles of object stores make such."""
    first = machine(tmp_path / "first", objects)
    (first.directory / "tracking" / "events.jsonl").touch()
    first.push()
    for name in ("", "runs/", "runs/one/", "runs/one/tracking/"):
        address = f"{os.environ['AWS_ENDPOINT_URL']}/{objects.removeprefix('s3://')}/{name}"
        urllib.request.urlopen(urllib.request.Request(address, method="PUT", data=b""), timeout=10).close()
    second = machine(tmp_path / "second", objects)
    second.bring()
    assert (second.directory / "tracking" / "events.jsonl").read_text() == ""
    assert open_bucket(objects).sizes() == open_bucket(objects).sizes("runs") == {"runs/one/tracking/events.jsonl": 0}


def test_what_was_done_here_last_is_kept(tmp_path: Path, objects: str) -> None:
    """Killed before the last lines were put there."""
    first = machine(tmp_path, objects)
    (first.directory / "tracking" / "events.jsonl").write_text("1\n")
    (first.directory / "run.json").write_text("old")
    first.push()
    (first.directory / "tracking" / "events.jsonl").write_text("1\n2\n")
    (first.directory / "run.json").write_text("new!")
    again = machine(tmp_path, objects)
    again.bring()
    assert (again.directory / "tracking" / "events.jsonl").read_text() == "1\n2\n"
    assert (again.directory / "run.json").read_text() == "new!"


def test_links_and_hidden_files_stay_and_what_is_large_goes(tmp_path: Path, objects: str) -> None:
    files = machine(tmp_path, objects)
    (files.directory / ".lock").touch()
    (files.directory / "link").symlink_to(tmp_path)
    (files.directory / "report").mkdir()
    (files.directory / "report" / "large").write_bytes(b"0" * (3 << 20))
    files.push()
    assert open_bucket(objects).sizes() == {"runs/one/report/large": 3 << 20}
