"""An object store for tests: moto's S3 as a server of its own on a loopback port, and a proxy before it that fails as one asks it to.

The server keeps its objects in memory: what is killed has lost them. A store that is away for a while is a `Proxy` that is told so.
"""

import http.client
import http.server
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest
from free_ports import free_port

BUCKET = "mergeline-test"
SECRET = "not-a-real-secret-key"
SECONDS_TO_START, SECONDS_TO_END = 60, 10


@dataclass(frozen=True)
class Objects:
    """A running store. `environment`: the variables that lead a process to it."""

    endpoint: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        return variables(self.endpoint)

    def uri(self) -> str:
        """A prefix that nobody has used."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def variables(endpoint: str) -> dict[str, str]:
    """What leads a process to the store at `endpoint`, with credentials that only this store takes."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def serving(host: str = "127.0.0.1", port: int | None = None, prefix: tuple[str, ...] = (), log: Path | None = None) -> Iterator[Objects]:
    """A store with the bucket `mergeline-test`, ended at the end. `prefix`: words before its command (another namespace's, say)."""
    at = free_port() if port is None else port
    with tempfile.TemporaryFile() if log is None else open(log, "w+b") as said:
        command = [*prefix, sys.executable, "-m", "moto.server", "-H", host, "-p", str(at)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        try:
            made = Objects(f"http://{host}:{at}", process.pid)
            if not prefix:
                make_bucket(made.endpoint, process)
            yield made
        finally:
            process.kill()
            process.wait(SECONDS_TO_END)


def make_bucket(endpoint: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Make the bucket as soon as the server answers."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT", data=b"", headers={"Authorization": _AUTHORIZATION})
            urllib.request.urlopen(request, timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, f"no object store at {endpoint}"
            assert process is None or process.poll() is None, f"the object store ended with {process and process.poll()}"
            time.sleep(0.05)


_AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""moto looks at the region in it and at nothing else."""


@pytest.fixture(scope="session")
def objects_server() -> Iterator[Objects]:
    """One store for all tests of this process."""
    with serving() as running:
        yield running


@pytest.fixture
def objects(objects_server: Objects, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty prefix, and this process with the variables that lead there."""
    clean_environment(monkeypatch)
    for name, value in objects_server.environment.items():
        monkeypatch.setenv(name, value)
    return objects_server.uri()


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the credentials and endpoints of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)


class Fault(StrEnum):
    """What the proxy does with a request."""

    ERROR = "error"  # answers 500 without asking the store
    DENY = "deny"  # answers 403 AccessDenied, likewise
    CONFLICT = "conflict"  # answers 409 ConditionalRequestConflict, likewise
    REGION = "region"  # answers 301 PermanentRedirect, likewise
    SKEWED = "skewed"  # answers 403 RequestTimeTooSkewed, likewise
    SLOW = "slow"  # answers 400 RequestTimeout, likewise
    CUT = "cut"  # reads half of the body, then resets the connection
    HALF = "half"  # asks the store, gives half of its answer, then resets the connection
    LOST = "lost"  # asks the store, then resets the connection without an answer
    HANG = "hang"  # does not answer before the proxy ends


ANSWERS = {
    Fault.ERROR: (500, "InternalError"),
    Fault.DENY: (403, "AccessDenied"),
    Fault.REGION: (301, "PermanentRedirect"),
    Fault.SKEWED: (403, "RequestTimeTooSkewed"),
    Fault.SLOW: (400, "RequestTimeout"),
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
}

Chooser = Callable[[str, str], Fault | None]
"""(method, path with query) -> what is to be done with it."""


@dataclass
class Proxy:
    """Before a store. `fault` is asked about each request; `seen` holds method and path of all of them."""

    endpoint: str
    behind: str
    fault: Chooser | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def once(self, fault: Fault, method: str, part: str = "", times: int = 1) -> None:
        """This fault for the next so many requests of this method whose path has this part, and none after."""
        left, turn = [times], threading.Lock()

        def choose(asked: str, path: str) -> Fault | None:
            with turn:
                if asked != method or part not in path or not left[0]:
                    return None
                left[0] -= 1
                return fault

        self.fault = choose

    def always(self, fault: Fault | None) -> None:
        """This fault for all requests; None: well again."""
        self.fault = None if fault is None else lambda method, path: fault


@contextmanager
def proxied(behind: str) -> Iterator[Proxy]:
    """A proxy on a loopback port before the store at `behind`, in this process."""

    class Handler(_Passing):
        proxy = Proxy("", behind)

    with _Server(("127.0.0.1", 0), Handler) as server:
        Handler.proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
        running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        running.start()
        try:
            yield Handler.proxy
        finally:
            Handler.proxy.ending.set()
            server.shutdown()
            running.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that went away


class _Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def pass_on(self) -> None:
        proxy = self.proxy
        proxy.seen.append((self.command, self.path))
        fault = proxy.fault(self.command, self.path) if proxy.fault is not None else None
        length = int(self.headers.get("Content-Length") or 0)
        if fault is Fault.HANG:
            proxy.ending.wait(300)
            return self._reset()
        body = self.rfile.read(length // 2 if fault is Fault.CUT else length)
        if fault is Fault.CUT:
            return self._reset()
        if fault in ANSWERS:
            return self._answer(*ANSWERS[fault])
        asked = http.client.HTTPConnection(proxy.behind.removeprefix("http://"), timeout=60)
        asked.request(self.command, self.path, body, dict(self.headers.items()))
        answer = asked.getresponse()
        content = answer.read()
        asked.close()
        if fault is Fault.LOST:
            return self._reset()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        told = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", told or "0")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault is Fault.HALF else content)
        if fault is Fault.HALF:
            self._reset()
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 (names that the library calls)

    def _answer(self, status: int, code: str) -> None:
        content = f'<?xml version="1.0"?>\n<Error>\n<Code>{code}</Code>\n<Message>by the proxy</Message>\n</Error>'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.rfile.close()
        self.connection.close()
        self.close_connection = True
