"""Job servers that hang, close, redirect, want a login, or are none: `submit` ends with what to do, and a log survives hiccups."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from rich.console import Console

from foundation.errors import Interrupted, ResourceError
from pipeline.command import submit
from pipeline.jobs import client, logs, server

JOB = {
    "type": "SUBMISSION",
    "submission_id": "x",
    "entrypoint": "true",
    "status": "RUNNING",
    "message": "",
    "driver_info": None,
    "job_id": None,
}


class Answers(BaseHTTPRequestHandler):
    """Answers by a table: path -> (status, headers, body), or what is to be called instead. A path not in it: 404."""

    table: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        found = next((value for path, value in self.table.items() if self.path.startswith(path)), (404, {}, "nothing here"))
        if callable(found):
            found(self)
            return
        status, headers, body = found
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], str]]:
    """Starts a server with a table of answers, whose address is given."""
    for name in (server.ADDRESS, "NO_PROXY", "no_proxy", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(server, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(client, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(client, "SILENT_SECONDS", 0.5)
    started = []

    def start(table: dict[str, Any]) -> str:
        serving = ThreadingHTTPServer(("127.0.0.1", 0), type("Table", (Answers,), {"table": table}))
        serving.daemon_threads = True
        started.append(serving)
        threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
        return server.address_of(f"127.0.0.1:{serving.server_port}")

    yield start
    for serving in started:
        serving.shutdown()
        serving.server_close()


def hang(handler: BaseHTTPRequestHandler) -> None:
    """No answer for longer than any test waits."""
    time.sleep(20)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """An answer that comes a byte at a time, and never ends."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def close(handler: BaseHTTPRequestHandler) -> None:
    """The connection closed, half way through."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


JSON = {"Content-Type": "application/json"}
VERSION = (200, JSON, json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"}))
OPEN = {"/api/jobs/x/logs/tail": (400, {}, "no web sockets here"), "/api/version": VERSION}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"/": (200, {"Content-Type": "text/html"}, "<html>a router")}, "not as a Ray cluster's job server does"),
        ({"/": (302, {"Location": "https://sso.example/login"}, "")}, "sends whoever asks to https://sso.example/login"),
        ({"/": (307, {}, "")}, "sends whoever asks to another address"),
        ({"/": (401, {"WWW-Authenticate": 'Basic realm="x"'}, "login")}, "asks for a login of its own (HTTP 401)"),
        ({"/": (403, {}, "<html>forbidden")}, "asks for a login of its own (HTTP 403)"),
        ({"/": (404, {}, "")}, "not as a Ray cluster's job server does"),
        ({"/": (503, {}, "")}, "answers 503: what stands before the cluster does not reach it"),
        ({"/": (200, JSON, '{"jobs": []}')}, "not as a Ray cluster's job server does"),
        ({"/": hang}, "it does not answer in time"),
        ({"/": close}, "the connection was lost"),
        ({"/api/jobs": (200, JSON, "[]")}, "not as a Ray cluster's job server does"),
        ({"/api/jobs": (200, JSON, "[]"), "/api/version": (200, {}, "<html>")}, "not as a Ray cluster's job server does"),
        ({"/api/jobs": (200, JSON, "[]"), "/api/version": (200, JSON, "[]")}, "not as a Ray cluster's job server does"),
        ({"/api/jobs": (200, JSON, "[]"), "/api/version": (302, {"Location": "/login"}, "")}, "sends whoever asks to /login"),
        ({"/api/jobs": (200, JSON, "[]"), "/api/version": hang}, "it does not answer in time"),
        ({"/api/jobs": (200, JSON, "[]"), "/api/version": close}, "the connection was lost"),
        ({"/api/jobs": (401, {}, "Unauthorized"), "/api/version": (401, {}, "Unauthorized")}, "asks for a token, and there is none here"),
    ],
)
def test_a_server_that_is_no_job_server_is_told_apart_in_seconds(serve: Callable[..., str], table: dict[str, Any], says: str) -> None:
    address, began = serve(table), time.monotonic()
    with pytest.raises(ResourceError) as refused:
        server.connect(address)
    assert says in str(refused.value)
    assert address in str(refused.value)
    assert time.monotonic() - began < 5


def test_an_answer_that_never_ends_is_given_up(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WHOLE_SECONDS", 1.0)
    address = serve({"/api/jobs": (200, JSON, "[]"), "/api/version": drip})
    with pytest.raises(ResourceError, match="it does not answer in time"):
        server.connect(address)


@pytest.mark.parametrize("host", ["a..b:8265", "x" * 70 + ":8265"])
def test_a_name_that_no_host_can_have_is_told(serve: Callable[..., str], host: str) -> None:
    with pytest.raises(ResourceError, match="no job server answers"):
        server.connect(server.address_of(host))


def joined(address: str) -> submit.Submission:
    """What follows the job x there."""

    class Request:
        file, overrides = "e.yaml", ("workspace=/w",)

    found, _ = server.connect(address)
    return submit.Submission(Request(), found, address, Console(file=sys.stdout), "/opt/python")  # type: ignore[arg-type]


def test_a_log_without_web_sockets_is_asked_for_until_the_job_ends(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The proxies of some companies carry none. A server that fails now and then is asked again."""
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.05)
    looks = iter([1, 1, 0, 1])

    def status(handler: BaseHTTPRequestHandler) -> None:
        up = next(looks, 2)
        body = json.dumps({**JOB, "status": "SUCCEEDED", "driver_exit_code": 3} if up == 2 else JOB)
        handler.send_response(200 if up else 500)
        handler.end_headers()
        handler.wfile.write(body.encode())

    log = (200, JSON, json.dumps({"logs": "one\ntwo\n"}))
    asked = joined(serve({**OPEN, "/api/jobs/x/logs": log, "/api/jobs/x": status, "/api/jobs/": (200, JSON, "[]")}))
    assert submit._followed(asked, "x") == 3
    assert capsys.readouterr().out.startswith("one\ntwo\nx ended with exit code 3\n")


@pytest.mark.parametrize("fault", [hang, (503, {}, "")])
def test_a_server_that_is_lost_ends_with_the_command_that_goes_on(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch, fault: object
) -> None:
    for name, seconds in (("POLL_SECONDS", 0.05), ("WAIT_SECONDS", 0.05), ("LOST_SECONDS", 0.3), ("LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(logs, name, seconds)
    asked = joined(serve({"/api/version": VERSION, "/api/jobs/x": fault, "/api/jobs/": (200, JSON, "[]")}))
    began = time.monotonic()
    with pytest.raises(ResourceError) as lost:
        submit._followed(asked, "x")
    assert time.monotonic() - began < 10
    assert "job x may run on" in str(lost.value)
    assert f"follow: python -m pipeline submit e.yaml workspace=/w --address {asked.address} --python /opt/python" in str(lost.value)


class Hanging:
    """A client whose stream says one thing and then hangs, while its other requests are answered."""

    def __init__(self, running: int) -> None:
        self.running, self.streams = running, 0

    async def tail_job_logs(self, submission: str) -> Any:
        import asyncio

        self.streams += 1
        yield "one\n"
        await asyncio.sleep(60)

    def get_job_status(self, submission: str) -> Any:
        from ray.job_submission import JobStatus

        self.running -= 1
        return JobStatus.RUNNING if self.running > 0 else JobStatus.SUCCEEDED

    def get_job_logs(self, submission: str) -> str:
        return "one\ntwo\n"


def test_a_stream_that_hangs_does_not_hide_the_jobs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.02)
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.1)
    threads = threading.active_count()
    assert "".join(logs.follow(Hanging(3), "x")) == "one\ntwo\n"  # type: ignore[arg-type]
    monkeypatch.setattr(logs, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(logs, "LOOK_SECONDS", 60.0)
    renewed = Hanging(3)
    assert "".join(logs.follow(renewed, "x")) == "one\ntwo\n"  # type: ignore[arg-type]
    assert renewed.streams == 3
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= threads, "the threads of streams that were left must end"


def test_a_request_can_be_interrupted() -> None:
    """Ctrl-C while a server is silent."""
    import _thread
    import signal

    def stop(*_: object) -> None:
        raise Interrupted("stopped")

    before = signal.signal(signal.SIGINT, stop)
    threading.Timer(0.2, _thread.interrupt_main).start()
    began = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            client.within(10, lambda: time.sleep(3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 2.5
