"""A team's tracking server as `deploy/mlflow/` describes it: its settings are read from those files, its places are a test's."""

import base64
import configparser
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from free_ports import free_port

from pipeline.command.ui import _end as end_server

DEPLOYED = Path(__file__).parents[2] / "deploy" / "mlflow"
ADMIN = "admin"
SECONDS_TO_START = 240


@dataclass(frozen=True)
class User:
    """Who speaks to the server."""

    name: str
    password: str

    def environment(self) -> dict[str, str]:
        """What MLflow's clients read."""
        return {"MLFLOW_TRACKING_USERNAME": self.name, "MLFLOW_TRACKING_PASSWORD": self.password}


@dataclass
class Server:
    """A running server. `artifacts`: where it keeps what is logged through it."""

    uri: str
    artifacts: Path
    admin: User
    log: Path
    users: dict[str, User] = field(default_factory=dict)

    def user(self, name: str) -> User:
        """A member of the team, made known to the server when first named."""
        if name not in self.users:
            made = User(name, secrets.token_hex(12))
            status, said = self.ask("POST", "/api/2.0/mlflow/users/create", self.admin, {"username": name, "password": made.password})
            assert status == 200, said
            self.users[name] = made
        return self.users[name]

    def ask(
        self, method: str, path: str, user: User | None = None, told: Mapping[str, Any] | None = None, host: str | None = None
    ) -> tuple[int, str]:
        """Status and answer of one request, past every client."""
        headers = {"Content-Type": "application/json", **({} if host is None else {"Host": host})}
        if user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user.name}:{user.password}".encode()).decode()
        body = None if told is None else json.dumps(told).encode()
        request = urllib.request.Request(self.uri + path, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@contextmanager
def team_server(room: Path, database: str, users_database: str) -> Iterator[Server]:
    """The server of `deploy/mlflow/` over two databases, its files in `room`; ended with everything it started."""
    room.mkdir(parents=True, exist_ok=True)
    rules = configparser.ConfigParser(interpolation=None)
    rules.read(DEPLOYED / "basic_auth.ini")
    rules["mlflow"]["database_uri"] = users_database
    with open(room / "basic_auth.ini", "w") as file:
        rules.write(file)
    admin, port = User(ADMIN, secrets.token_hex(12)), free_port()
    places = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_AUTH_CONFIG_PATH": str(room / "basic_auth.ini"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(room / "artifacts"),
        "MLFLOW_PORT": str(port),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(24),
        "MLFLOW_AUTH_ADMIN_PASSWORD": admin.password,
    }
    settings = deployed_settings()
    assert set(places) <= set(settings)
    with _running(["--app-name", "basic-auth"], {**settings, **places}, room, port) as uri:
        yield Server(uri, room / "artifacts", admin, room / "log")


@contextmanager
def plain_server(room: Path, database: str) -> Iterator[Server]:
    """A server without users, otherwise the same."""
    room.mkdir(parents=True, exist_ok=True)
    port = free_port()
    places = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": str(room / "artifacts"),
        "MLFLOW_PORT": str(port),
    }
    settings = {name: value for name, value in deployed_settings().items() if "AUTH" not in name}
    with _running([], {**settings, **places}, room, port) as uri:
        yield Server(uri, room / "artifacts", User("", ""), room / "log")


def deployed_settings() -> dict[str, str]:
    """The variables of `mlflow.env`, read as systemd reads them."""
    lines = [line for line in (DEPLOYED / "mlflow.env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@contextmanager
def _running(options: list[str], settings: Mapping[str, str], room: Path, port: int) -> Iterator[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_"))}
    environment |= settings
    uri = f"http://127.0.0.1:{port}"
    with open(room / "log", "w") as log:
        command = [sys.executable, "-m", "mlflow", "server", *options]
        process = subprocess.Popen(command, cwd=room, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(uri, process, room / "log")
        yield uri
    finally:
        end_server(process)


def _wait(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server ended with {process.poll()} or did not answer:\n{log.read_text()[-4000:]}")
