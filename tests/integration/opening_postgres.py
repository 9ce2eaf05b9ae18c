"""Opens a database as a pipeline does: it says `ready` once MLflow is loaded, waits for a line, and says `opened`.

python opening_postgres.py URI
"""

import sys

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (loaded before the start: what is tried is the opening)

from pipeline.tracking.backend import open_client

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    open_client(sys.argv[1])
    print("opened", flush=True)
