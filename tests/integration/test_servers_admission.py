"""Who is let in, before any work: asked of a server that only answers, so that each answer can be had."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from foundation.errors import ConfigError
from pipeline.tracking.admission import NAME, OPENED, PASSWORD, TOKEN, check_admission

SECRET = "correct horse, böttchen"


@dataclass
class Answering:
    """A server's answers by method, and what it was asked: (method, path, headers, body)."""

    uri: str = ""
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def answering(**answers: tuple[int, str]) -> Iterator[Answering]:
    """A server that gives one answer to each method."""
    told = Answering(answers=answers)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.asked.append((self.command, self.path, dict(self.headers), body))
            status, text = told.answers[self.command]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = answer  # noqa: N815 (the names that the class looks for)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    told.uri = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


FOUND = (200, json.dumps({"experiment": {"experiment_id": "7"}}))
NEW = (404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST"}))


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "ann")
    monkeypatch.setenv(PASSWORD, SECRET)


def test_a_new_experiment_is_asked_for_once_with_the_credentials() -> None:
    with answering(GET=NEW) as server:
        check_admission(server.uri + "/", "two words & more")
    ((method, path, headers, _),) = server.asked
    assert (method, path) == ("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=two%20words%20%26%20more")
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == f"ann:{SECRET}"


def test_one_that_is_there_must_be_open_for_writing() -> None:
    with answering(GET=FOUND, POST=(200, "{}")) as server:
        check_admission(server.uri, "digits")
    assert json.loads(server.asked[1][3]) == {"experiment_id": "7", "key": OPENED, "value": "true"}
    with answering(GET=FOUND, POST=(403, "Permission denied")) as server, pytest.raises(ConfigError) as refused:
        check_admission(server.uri, "digits")
    assert "does not let ann write to the experiment 'digits' (403: Permission denied); ask for the right EDIT" in str(refused.value)


def test_a_wrong_password_is_refused_by_the_names_of_the_variables_alone() -> None:
    with answering(GET=(401, f"you are not {SECRET}")) as server, pytest.raises(ConfigError) as refused:
        check_admission(server.uri.replace("//", f"//ann:{SECRET.replace(' ', '%20')}@"), "digits")
    said = str(refused.value)
    assert f"{server.uri} does not know who this is (401, credentials: sent); set {NAME} and {PASSWORD} (or {TOKEN})" in said
    assert "horse" not in said


def test_no_password_is_told_from_a_wrong_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv(NAME)
    monkeypatch.delenv(PASSWORD)
    monkeypatch.setenv("HOME", str(tmp_path))
    with answering(GET=(401, "")) as server, pytest.raises(ConfigError, match="credentials: not set"):
        check_admission(server.uri, "digits")
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\nmlflow_tracking_username = bob\nmlflow_tracking_password = 100%sure\n")
    with answering(GET=NEW) as server:
        check_admission(server.uri, "digits")
    assert base64.b64decode(server.asked[0][2]["Authorization"].removeprefix("Basic ")) == b"bob:100%sure"
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv(TOKEN, "token")
    with answering(GET=NEW) as server:
        check_admission(server.uri, "digits")
    assert server.asked[0][2]["Authorization"] == "Bearer token"


def test_a_host_name_that_the_server_does_not_go_by_is_refused() -> None:
    refusal = (403, "Invalid Host header - possible DNS rebinding attack detected")
    with answering(GET=refusal) as server, pytest.raises(ConfigError, match=r"Invalid Host header.*--allowed-hosts"):
        check_admission(server.uri, "digits")


@pytest.mark.parametrize("answer", [(500, "broken"), (502, "<html>"), (404, "no such page"), (200, "<html>welcome</html>"), (200, "{}")])
def test_a_server_that_is_broken_or_something_else_is_no_reason_to_stop(answer: tuple[int, str]) -> None:
    with answering(GET=answer) as server:
        check_admission(server.uri, "digits")
    assert len(server.asked) == 1


def test_a_server_that_is_down_or_silent_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.admission.ANSWER_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        check_admission(uri, "digits")  # nobody listens
        silent.listen()
        began = time.monotonic()
        check_admission(uri, "digits")  # the connection is taken, and nothing said
        assert time.monotonic() - began < 3


def test_files_and_ways_of_showing_oneself_that_only_mlflow_knows_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    check_admission("sqlite:////nowhere/mlflow.db", "digits")
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "a-plugin")
    with answering(GET=(401, "")) as server:
        check_admission(server.uri, "digits")
    assert not server.asked


def test_a_database_without_its_driver_is_told_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"^postgresql\+pg8000://127.0.0.1:1/mlflow needs the Python package pg8000: pip install"):
        check_admission("postgresql+pg8000://mlflow:secret-word@127.0.0.1:1/mlflow", "digits")
