"""What may listen where MLflow is looked for: nothing that it answers, or fails to answer, holds a run up or ends in a traceback."""

import json
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from commands import ended
from mirrored import TINY, make

from foundation.errors import ConfigError, InputError, ResourceError
from pipeline.tracking import admission
from pipeline.tracking.admission import CERTIFICATE, check_admission, check_readable
from pipeline.tracking.ancestry import tracked_lineage
from pipeline.tracking.backend import reason_of

PAGE = "<html><body>Welcome</body></html>"
UNKNOWN = json.dumps({"error_code": "ENDPOINT_NOT_FOUND", "message": "no such request"})
NEW = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"})
ANSWERS = {
    "page": (200, PAGE),
    "no-page": (404, PAGE),
    "empty": (200, ""),
    "torn": (200, '{"experiment": [1, 2'),
    "list": (200, "[1, 2, 3]"),
    "number": (200, '{"experiment": 5}'),
    "numbered": (200, '{"experiment": {"experiment_id": 7}}'),
    "nothing": (200, "{}"),
    "nested": (200, "[" * 100_000),
    "older": (404, UNKNOWN),
    "moved": (302, ""),
    "broken": (500, "oops"),
    "starting": (503, PAGE),
    "busy": (429, "later"),
    "mlflow": (404, NEW),
    "experiments": (200, '{"experiments": {"a": 1}}'),
}
ENDLESS = ("drip", "flood")
"""A byte now and then, for ever; and more than anybody wants."""


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    def answer(self) -> None:
        kind = self.path.split("/")[1]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, text = ANSWERS.get(kind, (200, ""))
        self.send_response(status)
        if kind in ENDLESS:
            self.end_headers()
            self.pour(kind)
            return
        if status == 302:
            self.send_header("Location", self.path)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def pour(self, kind: str) -> None:
        try:
            for _ in range(200):
                self.wfile.write(b" " * (1 if kind == "drip" else 1 << 20))
                self.wfile.flush()
                time.sleep(0.05 if kind == "drip" else 0)
        except OSError:
            return  # nobody reads any more

    do_GET = do_POST = answer  # noqa: N815 (the names that the class looks for)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server with all kinds of answers, each below a path of its own."""
    one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.daemon_threads = True
    thread = Thread(target=one.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{one.server_port}"
    one.shutdown()
    one.server_close()


@pytest.mark.parametrize("kind", sorted(ANSWERS))
def test_a_run_goes_on_whatever_answers(server: str, kind: str) -> None:
    said = check_admission(f"{server}/{kind}", "digits")
    assert bool(said) == (kind not in ("moved", "broken", "starting", "busy", "mlflow"))
    assert "\n" not in said


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_an_end_holds_nobody_up(server: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(admission, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(admission, "READING_SECONDS", 0.5)
    began = time.monotonic()
    check_admission(f"{server}/{kind}", "digits")
    with pytest.raises(ResourceError, match=r"no MLflow to read at .*: (no answer in time|its answer has the status 200 and is no JSON)"):
        check_readable(f"{server}/{kind}")
    assert time.monotonic() - began < 4  # twice half a second, on a busy machine; the answer takes ten


@pytest.mark.parametrize(
    "kind", [kind for kind in sorted(ANSWERS) if kind not in ("mlflow", "nothing", "number", "numbered", "experiments")]
)
def test_lineage_says_in_a_line_what_it_found_in_place_of_mlflow(server: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(capsys, "lineage", "models:/digits@best", "--tracking", f"{server}/{kind}")
    assert told.code == 4
    assert told.err.startswith(f"error: no MLflow to read at {server}/{kind}: ")
    assert len(told.err.splitlines()) == 1


def test_an_answer_that_mlflow_s_client_does_not_understand_is_no_bug_of_ours(server: str) -> None:
    with pytest.raises(ResourceError, match="cannot be read: what answers there is no MLflow; check --tracking"):
        tracked_lineage(f"{server}/experiments")
    with pytest.raises(InputError, match="knows no checkpoint of ours"):
        tracked_lineage(f"{server}/nothing")


def test_sync_is_refused_at_once_by_what_is_no_mlflow(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built, _ = make(tmp_path, TINY, "tasks=[parity]")
    began = time.monotonic()
    told = ended(capsys, "sync", built.name, "--workspace", tmp_path, "--tracking", f"{server}/page")
    assert told.code == 4
    assert f"no MLflow tracking server at {server}/page: its answer has the status 200 and is no JSON ({PAGE}); check" in told.err
    assert time.monotonic() - began < 5  # --wait is a minute
    assert not (built.run_directory / "tracking").exists()


def test_nobody_another_protocol_and_the_wrong_certificate_are_told_apart(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        uri = f"127.0.0.1:{other.getsockname()[1]}"

        def speak() -> None:
            asked, _ = other.accept()
            asked.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            asked.close()

        Thread(target=speak, daemon=True).start()
        with pytest.raises(
            ResourceError, match=f"no MLflow to read at http://{uri}: (what answers there does not speak HTTP|the connection)"
        ):
            check_readable(f"http://{uri}")
    with pytest.raises(ResourceError, match="connection refused"):
        check_readable(f"http://{uri}")
    with pytest.raises(ResourceError, match="no TLS with it"):
        check_readable(server.replace("http:", "https:"))
    monkeypatch.setenv(CERTIFICATE, "/no/such/authority.pem")
    with pytest.raises(ConfigError, match=f"{CERTIFICATE} names /no/such/authority.pem, which is not there"):
        check_admission("https://127.0.0.1:1", "digits")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("Max retries exceeded with url: /x (Caused by ResponseError('too many 503 error responses'))", "it answers 503"),
        ("API request to endpoint /x failed with error code 502 != 200. Response body: ''", "it answers 502"),
        ("API request to http://h failed with exception Exceeded 30 redirects.", "it redirects without end"),
        ("(sqlite3.OperationalError) database is locked\n[SQL: …]", "the database is locked by another process"),
        ("[Errno 28] No space left on device", "its disk is full"),
    ],
)
def test_long_errors_come_to_a_few_words(said: str, word: str) -> None:
    assert reason_of(RuntimeError(said)) == word
