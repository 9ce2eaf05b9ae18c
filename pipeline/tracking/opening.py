"""Opening a PostgreSQL database that several pipelines may open at once for the first time: one makes MLflow's tables, the others wait.

MLflow itself takes no lock, and of several processes that find no tables all but one fail. The lock is the database's own (an advisory
lock), so it holds between machines, and ends with the connection of whoever is killed. A tracking server needs none: it opens its database
before it starts its workers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

POSTGRES = "postgresql"
LOCK = 0x6D65726765  # "merge": the number that all pipelines of ours lock
WAIT_SECONDS = 120
"""Longer than making the tables takes (3 s on a quiet machine)."""


def opened(uri: str, make: Callable[[], Any]) -> Any:
    """MLflow's client, made by `make`; one of a PostgreSQL is made and first asked while no other is.

    SQLAlchemy's errors go through: of a database out of reach, and OperationalError where the lock is not had within WAIT_SECONDS.
    """
    if not uri.startswith(POSTGRES):
        return make()
    with _alone(uri):
        client = make()
        client.search_experiments(max_results=1)
        return client


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(uri, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"set lock_timeout = '{WAIT_SECONDS}s'"))
        connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": LOCK})
        yield  # the connection's end lets it go
