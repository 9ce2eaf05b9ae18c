"""A PostgreSQL of a test's own: a cluster in a temporary directory, on loopback with a password, ended by its own `pg_ctl`."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from free_ports import free_port

DEBIAN = "usr/lib/postgresql/*/bin"
OWNERS = ("postgres", "nobody")
"""Who the cluster belongs to when tests run as root: PostgreSQL refuses to be root."""
SECONDS = 60
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""What is lost in a power cut is no matter here."""
USER = "mlflow"


@dataclass(frozen=True)
class Postgres:
    """A running cluster and its password, which tests look for where it must not be."""

    port: int
    password: str
    programs: Path

    def uri(self, database: str, password: bool = True) -> str:
        """The database's address, as MLflow takes it."""
        secret = f":{self.password}" if password else ""
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new, empty database's address."""
        self.ask(f'create database "{database}"', "postgres")
        return self.uri(database)

    def ask(self, question: str, database: str) -> str:
        """What `psql` answers, without headings."""
        command = [str(self.programs / "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.uri(database), "-c", question]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout.strip()


def programs() -> Path | None:
    """Where `initdb` and its kin are: on the path, or where Debian keeps the newest version; None where there is none."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/").glob(f"{DEBIAN}/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if programs() is None:
        return "no PostgreSQL here (initdb): `make packages` installs Debian's, as root or with sudo"
    if os.geteuid() == 0 and _owner() is None:
        return f"PostgreSQL refuses to run as root, and there is none of the users {', '.join(OWNERS)} to run it as"
    return None


@contextmanager
def postgres(settings: Mapping[str, str] = QUICK) -> Iterator[Postgres]:
    """A cluster with these settings; gone at the end, with all that was in it."""
    found = programs()
    assert found is not None, missing()
    room = Path(tempfile.mkdtemp(prefix="mergeline-postgres-"))
    owner = _owner() if os.geteuid() == 0 else None
    password, data = secrets.token_hex(16), room / "data"
    (room / "password").write_text(password)
    for place in (room, room / "password"):
        if owner is not None:
            shutil.chown(place, owner)
    try:
        secret = ["-A", "scram-sha-256", "--pwfile", str(room / "password")]
        _run([str(found / "initdb"), "-D", str(data), "-U", USER, *secret, "-E", "UTF8", "--no-locale", "-N"], owner, room)
        (room / "password").unlink()
        port = free_port()
        places = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(room)}
        written = "".join(f"{name} = '{value}'\n" for name, value in {**places, **settings}.items())
        (data / "postgresql.auto.conf").write_text(written)
        control = [str(found / "pg_ctl"), "-D", str(data), "-w", "-t", str(SECONDS)]
        _run([*control, "-l", str(room / "log"), "start"], owner, room)
        try:
            yield Postgres(port, password, found)
        finally:
            _run([*control, "-m", "immediate", "stop"], owner, room)
    finally:
        shutil.rmtree(room)


def _owner() -> str | None:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in OWNERS if name in known), None)


def _run(command: list[str], owner: str | None, room: Path) -> None:
    whose: dict[str, Any] = {} if owner is None else {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}
    with open(room / "said", "a+") as said:  # not a pipe: the server would inherit it and hold it open
        ended = subprocess.run(command, cwd=room, stdout=said, stderr=said, stdin=subprocess.DEVNULL, timeout=2 * SECONDS, **whose)
        said.seek(0)
        log = (room / "log").read_text() if (room / "log").exists() else ""
        assert ended.returncode == 0, f"{' '.join(command)} ended with {ended.returncode}:\n{said.read()}\n{log}"
