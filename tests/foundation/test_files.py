"""Durable files: whole or not there, and digests that depend on names and bytes alone."""

import os
from pathlib import Path

import pytest

from foundation.files import directory_manifest, file_sha256, manifest_digest, publish_directory, write_atomic, write_json_atomic


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_json_is_the_same_bytes_whatever_the_order_of_keys(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a", {"x": 1, "ä": [2]})
    write_json_atomic(tmp_path / "b", {"ä": [2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "ä" in (tmp_path / "a").read_text(encoding="utf-8")


def test_a_directory_appears_whole_and_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "stale").write_text("1")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "fresh").write_text("2")
    publish_directory(tmp_path / "made", tmp_path / "final")
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["final", "fresh"]


def test_a_manifest_knows_names_and_bytes_but_not_the_place(tmp_path: Path) -> None:
    for place, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / place / "below").mkdir(parents=True)
        (tmp_path / place / "below" / "file").write_text(content)
    digests = [manifest_digest(directory_manifest(tmp_path / place)) for place in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert list(directory_manifest(tmp_path / "a")) == ["below/file"]


def test_sha256_of_nothing_and_of_more_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert file_sha256(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"x" * ((1 << 20) + 1))
    assert len(file_sha256(path)) == 64
