"""Whether a database that MLflow is to keep its book in can be one, asked before any work and without loading MLflow.

MLflow brings tables of another version up to date only when it is told to (`mlflow db upgrade`), and until then refuses all of it.
"""

import os
import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from foundation.errors import ConfigError

BUSY_SECONDS = 1.0
"""What a database that another process holds is waited for; it counts as well then."""
REVISION = re.compile(r"^(down_revision|revision)\b[^=\n]*= *(.+)$", re.MULTILINE)
MAGIC = b"SQLite format 3\x00"


def check_file(database: Path) -> None:
    """ConfigError where an SQLite file cannot hold MLflow's book: a directory, another kind of file, read-only, other tables than ours."""
    place = next(each for each in database.parents if each.exists())
    if not place.is_dir():
        raise ConfigError(f"the tracking database {database} lies below {place}, which is a file; name another place")
    if not os.access(place, os.W_OK | os.X_OK) or (database.exists() and not os.access(database, os.R_OK | os.W_OK)):
        raise ConfigError(
            f"the tracking database {database} cannot be written by this user; let it write the file and its directory, or name another"
        )
    if database.exists():
        check_tables(database)


def check_tables(database: Path) -> None:
    """ConfigError where a file that is there is no SQLite database, is damaged, or has the tables of another MLflow."""
    if database.is_dir():
        raise ConfigError(f"the tracking database {database} is a directory; name a file in it: sqlite:///{database}/mlflow.db")
    with open(database, "rb") as file:
        if file.read(len(MAGIC)) not in (MAGIC, b""):
            raise ConfigError(f"the tracking database {database} is no SQLite database; move it aside, or name another file")
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection:
            found = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError:  # no such table: MLflow makes them; or locked: it is well
        return
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            f"the tracking database {database} is damaged ({error}); move it aside: the next run makes a new one, and `sync` fills it"
        ) from error
    check_revision(None if found is None else str(found[0]), f"sqlite:///{database}")


def check_revision(found: str | None, shown: str) -> None:
    """ConfigError where a database's tables are of another version of MLflow than the one that is installed. `shown` is its address."""
    known = revisions()
    newest = set(known) - {each for before in known.values() for each in before}
    if found is None or not known or found in newest:
        return
    here = f"the one that is installed here ({_installed()})"
    if found in known:
        raise ConfigError(
            f"the tracking database {shown} was made by an older MLflow than {here}, which does not read it; "
            f"copy it for safety, and bring it up to date: mlflow db upgrade '{shown}'"
        )
    raise ConfigError(
        f"the tracking database {shown} was made by a newer MLflow than {here}, which does not know its tables (revision {found}); "
        "install that one, or name another database"
    )


@cache
def revisions() -> dict[str, tuple[str, ...]]:
    """Every version of the tables that the installed MLflow knows, and which was before it; none where there is no MLflow."""
    package = find_spec("mlflow")
    places = [] if package is None else list(package.submodule_search_locations or ())
    known: dict[str, tuple[str, ...]] = {}
    for path in (path for place in places for path in Path(place).glob("store/db_migrations/versions/*.py")):
        told = dict(REVISION.findall(path.read_text(errors="replace")))
        if "revision" in told:
            known[told["revision"].strip().strip("'\"")] = tuple(re.findall(r"['\"](\w+)['\"]", told.get("down_revision", "")))
    return known


def _installed() -> str:
    try:
        return version("mlflow")
    except PackageNotFoundError:
        return "of an unknown version"
