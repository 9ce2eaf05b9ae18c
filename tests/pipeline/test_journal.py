"""The journal of a run: what is flushed is there, a torn line is not, and every attempt is closed. And what never gets into files."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tracking.backend import reason_of, without_secrets
from pipeline.tracking.writing.journal import Event, Journal, Kind, last_event, last_opened, read_events

OPENED = Event(Kind.OPENED, 1.5, identity="a" * 64)
POINT = Event(Kind.POINT, 2.25, "finetune-1", 4, {"train/loss": 0.1, "train/gradient_norm": float("inf")})
DONE = Event(Kind.DONE, 3.0, "finetune-1")
CLOSED = Event(Kind.CLOSED, 4.0, status="FINISHED")
ALL = [OPENED, POINT, DONE, CLOSED]


def written(path: Path, *batches: list[Event]) -> Path:
    journal = Journal(path)
    for batch in batches:
        journal.append(batch)
    journal.close()
    return path


def test_events_come_back_as_they_were_and_can_be_read_on_from_any(tmp_path: Path) -> None:
    path = written(tmp_path / "tracking" / "events.jsonl", ALL[:2], [], ALL[2:])
    whole = list(read_events(path))
    assert [event for event, _ in whole] == ALL
    assert whole[-1][1] == path.stat().st_size
    for index, (_, offset) in enumerate(whole):
        assert [event for event, _ in read_events(path, offset)] == ALL[index + 1 :]
    assert last_event(path) == CLOSED
    assert last_opened(path) == OPENED.identity
    assert list(read_events(tmp_path / "none")) == []
    assert last_event(tmp_path / "none") is None


def test_a_batch_is_flushed_to_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    flushed: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (flushed.append(number), real(number)))
    journal.append([POINT] * 1000)
    journal.append([])
    assert len(flushed) == 1
    assert sum(1 for _ in read_events(journal.path)) == 1000


@given(cut=st.integers(0, 10_000), events=st.lists(st.sampled_from(ALL), min_size=1, max_size=12))
def test_cut_anywhere_it_holds_the_events_before_and_goes_on(cut: int, events: list[Event]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = written(Path(place) / "events.jsonl", events)
        whole = path.read_bytes()
        size = cut % (len(whole) + 1)
        path.write_bytes(whole[:size])
        before = whole[:size].count(b"\n")
        torn = size > 0 and not whole[:size].endswith(b"\n")
        assert [event for event, _ in read_events(path)] == events[:before]
        written(path, [DONE])
        # a line that lacks nothing but its end was told in full
        kept = before + (torn and whole[size : size + 1] == b"\n")
        assert [event for event, _ in read_events(path)] == [*events[:kept], DONE]
        assert last_event(path) == DONE


def test_an_attempt_that_was_killed_is_closed_at_its_last_event(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [OPENED, POINT])
    for _ in range(2):  # the second time there is nothing to close
        journal = Journal(path)
        journal.close_left_open()
        journal.close()
        assert [event for event, _ in read_events(path)] == [OPENED, POINT, Event(Kind.CLOSED, POINT.time, status="KILLED")]
    Journal(tmp_path / "empty").close_left_open()
    assert (tmp_path / "empty").read_bytes() == b""


def test_the_last_event_is_found_behind_any_rubbish(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [OPENED, DONE])
    with open(path, "ab") as file:
        file.write(b'{"event": "nonsense"}\n[]\nnot json\n' + b"x" * 300_000 + b"\n")
    assert last_event(path) == DONE
    assert [event for event, _ in read_events(path)] == [OPENED, DONE]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("http://me:s3cret@host:5000/x", "http://host:5000/x"),
        ("postgresql+psycopg2://me:p@ss@host/db?password=abc&sslmode=require", "postgresql+psycopg2://host/db?password=…&sslmode=require"),
        ("uri: https://me@host\nname: a@b", "uri: https://host\nname: a@b"),
        ("sqlite:////place/of@me/mlflow.db", "sqlite:////place/of@me/mlflow.db"),
    ],
)
def test_addresses_lose_their_secrets(text: str, left: str) -> None:
    assert without_secrets(text) == left


def test_the_values_of_secret_variables_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "long-and-secret")
    monkeypatch.setenv("MY_TOKEN", "true")  # too short to be one
    told = reason_of(ConnectionError("API request to http://me:long-and-secret@host failed with long-and-secret\nand more; true"))
    assert told == "ConnectionError: API request to http://host failed with …"
    assert without_secrets("true") == "true"


def test_a_server_that_is_away_is_told_in_a_few_words() -> None:
    told = "API request to http://h/api failed with exception HTTPConnectionPool: Max retries exceeded ([Errno 111] Connection refused)"
    assert reason_of(RuntimeError(told)) == "connection refused"
    assert reason_of(RuntimeError("Read timed out. (read timeout=20)")) == "no answer in time"


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"point","time":1,"key":"k","step":"a","values":{"x":1}}',
        b'{"event":"point","time":1,"key":"k","step":1,"values":[1]}',
        b'{"event":"point","time":1,"key":"k","step":1,"values":{"x":"y"}}',
        b'{"event":"point","time":1,"key":5,"step":1,"values":{"x":1}}',
        b'{"event":"point","time":NaN,"key":"k","step":1,"values":{"x":1}}',
        b'{"event":"point","time":1e300,"key":"k","step":1,"values":{"x":1}}',
        b'{"event":"point","time":1,"key":"k","step":1' + b"0" * 40 + b',"values":{"x":1}}',
        b'{"event":"closed","time":1,"status":"GONE"}',
        b'{"event":"closed","time":Infinity,"status":"FINISHED"}',
        b'{"event":"rewound","time":1}',
        b"[1,2]",
        b"null",
        b"[" * 100_000,
        b"\x00\xff\xfe",
    ],
)
def test_what_is_no_event_in_the_middle_is_left_out(tmp_path: Path, line: bytes) -> None:
    """Damaged, or written by a later version: what stands around it is read."""
    path = written(tmp_path / "events.jsonl", ALL[:2])
    with open(path, "ab") as file:
        file.write(line + b"\n")
    written(path, ALL[2:])
    assert [event for event, _ in read_events(path)] == ALL
    with open(path, "ab") as file:
        file.write(line + b"\n")
    assert last_event(path) == CLOSED
