"""Messages between Ray's own processes that are lost, or lose their answer, or come late: a run ends with the bytes of an undisturbed one.

Ray itself does this where two variables ask it to: it fails requests by name, before or after they were carried out, and delays what
answers them. `MERGELINE_FLAKY_RUNS` runs are disturbed (`make chaos`: 10).
"""

import json
import os
import tempfile
import time
from pathlib import Path

import pytest
from forking import Forking
from test_kill import OPTIONS, PROGRAM, assert_same
from tiny_run import TINY

RUNS = int(os.environ.get("MERGELINE_FLAKY_RUNS", "0"))

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(not RUNS, reason="whole runs: MERGELINE_FLAKY_RUNS=10, as in `make chaos`"),
]

LONGEST_SECONDS = 300
LOST = {"num_failures": -1, "req_failure_prob": 5, "resp_failure_prob": 5, "in_flight_failure_prob": 5}
"""In percent of the requests of one name: never carried out, carried out without an answer, without an answer while they are."""
# Not among them: what a raylet asks while it starts. Without an answer to that it ends, and Ray with it, before there is any work.
RAYLET = ("RequestWorkerLease", "ReturnWorkerLease", "PrepareBundleResources", "CommitBundleResources", "GetWorkerFailureCause")
HEAD = {
    "ActorInfo": ("RegisterActor", "CreateActor", "GetActorInfo", "GetNamedActorInfo", "KillActorViaGcs", "ReportActorOutOfScope"),
    "InternalKV": ("InternalKVGet", "InternalKVPut", "InternalKVExists"),
    "PlacementGroupInfo": ("CreatePlacementGroup", "WaitPlacementGroupUntilReady", "RemovePlacementGroup"),
    "WorkerInfo": ("AddWorkerInfo", "ReportWorkerFailure"),
}
FLAKY = [f"NodeManagerService.grpc_client.{name}" for name in RAYLET] + [
    f"ray::rpc::{service}GcsService.grpc_client.{name}" for service, names in HEAD.items() for name in names
]
SLOW = ("RequestWorkerLease", "ReturnWorkerLease", "PrepareBundleResources", "CommitBundleResources")
DELAY = ",".join([f"NodeManagerService.grpc_server.{name}=0:50000" for name in SLOW] + ["CoreWorkerService.grpc_server.PushTask=0:20000"])
"""Microseconds by which what answers a request begins later, at least and at most. Not all events: those that Ray counts on to come in
order would not, and its raylet ends where it finds so."""


def run(forks: Forking, workspace: Path, **variables: str) -> float:
    """The experiment, in one command; how many seconds it took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rpc", dir="/tmp", ignore_cleanup_errors=True) as room:  # short: Ray makes sockets in it
        process = forks(PROGRAM, ["run", str(TINY), f"workspace={workspace}", *OPTIONS], {**os.environ, "TMPDIR": room, **variables})
        ended = process.wait(LONGEST_SECONDS)
        assert ended == 0, "".join(process.communicate())[-3000:]
    return time.monotonic() - began


@pytest.mark.timeout(LONGEST_SECONDS * (RUNS + 1))
def test_lost_and_late_messages_inside_ray_change_no_byte(forks: Forking, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    undisturbed = run(forks, whole)
    flaky = {"RAY_testing_rpc_failure": json.dumps(dict.fromkeys(FLAKY, LOST)), "RAY_testing_asio_delay_us": DELAY}
    seconds = [run(forks, tmp_path / f"flaky-{number}", **flaky) for number in range(RUNS)]
    for number in range(RUNS):
        assert_same(tmp_path / f"flaky-{number}", whole)
    print(f"{RUNS} of {RUNS} runs with lost and late messages: the same bytes, in {seconds} s each; {undisturbed:.0f} s without")
