"""Connect to Ray: the cluster at an address, or one that lives inside this command.

A local Ray starts no dashboard, asks whoever connects for its token (Ray's default), and ends with the command. Workers run at normal
priority and keep quiet.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import ResourceError
from pipeline.graph.address import ELSEWHERE, check_cluster, other_versions
from pipeline.graph.perform import COMMIT_VARIABLE

WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # each reported checkpoint waits for one
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a step that asks for no GPU sees none
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}


COORDINATORS = 3  # steps that wait for workers of their own ask for no processor, but each is a process
HEAD_SECONDS = 15.0
ASK_SECONDS = 2.0
LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # a machine of one's own gives no notice, and the watcher is a process


def code_commit() -> str:
    """The git commit of the code that runs, `+` behind it where it was changed since; "unknown" outside a checkout."""
    home = Path(__file__).parents[2]
    try:
        commit = subprocess.run(["git", "-C", home, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "-C", home, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(COMMIT_VARIABLE, "unknown")
    return commit + ("+" if changed else "")


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray, from `address`, else `RAY_ADDRESS`, else started here with `cpus` (all of the machine's if None)."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_task_oom_retries", "2")  # what runs out of memory twice does so for ever
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a call after the end of a connection would start another Ray
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # it would start processes that lack the job's environment
    import ray

    if ray.is_initialized():  # in a notebook or a test: the caller's own connection, which stays
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    check_cluster(where)
    inside = where == "local"
    local = {"include_dashboard": False, "num_cpus": cpus} if inside else {}
    if inside:  # a process that is kept has its libraries loaded; Ray would keep one for each processor, and end the others after a second
        os.environ.setdefault("RAY_num_workers_soft_limit", str((cpus or os.cpu_count() or 1) + COORDINATORS))
    runtime_env = {"env_vars": WORKER_ENVIRONMENT | (LOCAL_ENVIRONMENT if inside else {}) | {COMMIT_VARIABLE: code_commit()}}
    try:
        ray.init(address=where, runtime_env=runtime_env, log_to_driver=False, logging_level="error", configure_logging=True, **local)
    except Exception as error:
        if isinstance(error, TypeError | ValueError):
            raise
        if "Version mismatch" in str(error):
            raise other_versions(where, error) from error
        if isinstance(error, ConnectionError):
            lines = str(error).strip().splitlines() or ["no reason given"]
            reason = " … ".join(dict.fromkeys((lines[0], lines[-1])))
            raise ResourceError(f"no Ray cluster answers at {where!r} ({reason}); {ELSEWHERE}") from error
        raise gone("Ray did not start", error) from error  # it raises bare exceptions where a process of its own dies or is slow
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise gone("Ray is gone", error) from error
    finally:
        ray.shutdown()


class HeadGone(ResourceError):
    """Ray's head is away for good: whatever else is asked of Ray waits for it."""


@dataclass
class Head:
    """Whether Ray's head still listens at its address. Ray itself ends this process, with code 1, when it has been away for a minute.

    One that never answered, as behind a proxy, is taken to be there. One that is started again is back in seconds.
    """

    address: str
    seen: float = 0.0
    asked: float = 0.0

    def is_there(self) -> bool:
        """False once it has been away for HEAD_SECONDS; looks every ASK_SECONDS."""
        now = time.monotonic()
        if now - self.asked > ASK_SECONDS:
            self.asked = now
            host, _, port = self.address.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=ASK_SECONDS).close()
                self.seen = now
            except (OSError, ValueError):
                pass
        return not self.seen or now - self.seen < HEAD_SECONDS


def gone(what: str, error: Exception) -> ResourceError:
    """That there is no Ray, in its own words, and what to do."""
    reason = next(iter(str(error).strip().splitlines()), "no reason given")
    return ResourceError(f"{what} ({type(error).__name__}: {reason}); run the same command again to go on")
