"""Three hosts that share nothing but an object store: each has an address, processes and /tmp of its own, and the store is on the desk.

Ray runs over all three, with one processor each, so that steps are done on all of them; every host's workspace is its own.
"""

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hosts
import pytest
from hosts import DESK, Hosts
from objects_server import SECRET, Objects, serving

REPOSITORY = Path(__file__).parents[2]
NAMES = ("head", "worker-1", "worker-2")
WORKSPACE = "/tmp/workspace"
PORT = 9000
MAKE_BUCKET = "import sys, objects_server; objects_server.make_bucket(sys.argv[1])"
RUN = f"{sys.executable} -m pipeline run tests/pipeline/tiny.yaml"
RECORDS = """
import json, pathlib, sys
print(json.dumps({path.parent.name: json.loads(path.read_text()) for path in pathlib.Path(sys.argv[1]).glob("store/*/record.json")}))
"""
RAY = "ray start --num-cpus=1 --object-store-memory=100000000 --disable-usage-stats"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Asked when a test is to run, for it takes a moment and namespaces."""
    hosts.skip_where_missing()


@dataclass(frozen=True)
class Sharing:
    """Ray on hosts, the URI that they share, and the variables that a machine's role or profile would give."""

    hosts: Hosts
    uri: str
    variables: Mapping[str, str]
    log: Path

    def on(self, name: str, command: str, seconds: float = 60) -> str:
        """What a command says on a host. It must end well."""
        given = " ".join(f"{variable}={shlex.quote(value)}" for variable, value in self.variables.items())
        done = self.hosts.on(name, f"export {given}; cd {REPOSITORY} && {command}", seconds)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        assert SECRET not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def records(self, workspace: str, name: str) -> dict[str, Any]:
        """All records that a workspace on a host holds, by key."""
        return dict(json.loads(self.on(name, shlex.join(["python", "-c", RECORDS, workspace]))))

    def done_on(self) -> Counter[str]:
        """Address -> how many records were written from there, by the store's own log."""
        return Counter(re.findall(r'^(\S+) .*"PUT /\S+/record\.json', self.log.read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharing]:
    log = tmp_path_factory.mktemp("store") / "log"
    with hosts.hosts(tmp_path_factory.mktemp("hosts"), NAMES, [REPOSITORY]) as made, store_on_desk(made, log) as objects:
        told = made.at_desk([sys.executable, "-c", MAKE_BUCKET, objects.endpoint], 60, REPOSITORY / "tests")
        assert told.returncode == 0, told.stderr
        variables = {
            **objects.environment,
            "PATH": made.environment["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        running = Sharing(made, objects.uri(), variables, log)
        running.on("head", f"{RAY} --head --port=6379 --node-ip-address={made.addresses['head']} --include-dashboard=false")
        join = f"{RAY} --address={made.addresses['head']}:6379 --node-ip-address="
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: running.on(name, join + made.addresses[name]), NAMES[1:]))
        yield running


def store_on_desk(made: Hosts, log: Path) -> AbstractContextManager[Objects]:
    """The store at the desk's address, seen by all hosts and by nobody else."""
    (child,) = Path(f"/proc/{made.process.pid}/task/{made.process.pid}/children").read_text().split()
    return serving(DESK, PORT, prefix=("nsenter", "--target", child, "--net", "--mount", "--"), log=log)


def test_doctor_finds_every_host_at_the_store(sharing: Sharing) -> None:
    began = time.monotonic()
    said = sharing.on("head", f"python -m pipeline doctor --address auto --workspace {WORKSPACE} --objects {sharing.uri}", 120)
    print(f"\n{said}\n{time.monotonic() - began:.0f} s")
    assert "one of 3 won" in said
    assert "each of 3 reads and lists what each wrote" in said


def test_a_pipeline_over_hosts_makes_the_bytes_of_one_machine(sharing: Sharing, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    alone = subprocess.Popen([*RUN.split(), "tasks=[parity]", f"workspace={tmp_path}", "--cpus", "1"], env=environment, cwd=REPOSITORY)
    try:
        began = time.monotonic()
        said = sharing.on("head", f"{RUN} tasks=[parity] workspace={WORKSPACE} objects={sharing.uri} --address auto", 300)
        print(f"\n{said}\n{time.monotonic() - began:.0f} s")
        assert alone.wait(200) == 0
    finally:
        alone.kill()
        alone.wait()
    made = sharing.records(WORKSPACE, "head")
    there = {path.parent.name: json.loads(path.read_bytes()) for path in tmp_path.glob("store/*/record.json")}
    assert sorted(made) == sorted(there)
    for key in made:
        assert made[key]["outputs"]["digest"] == there[key]["outputs"]["digest"], key
        assert made[key]["outputs"]["files"] == there[key]["outputs"]["files"], key
        if key.startswith("evaluate-"):
            assert made[key]["metrics"] == there[key]["metrics"], key
    print(f"records were written from {dict(sharing.done_on())}")
    assert len(sharing.done_on()) > 1


def test_another_host_goes_on_when_one_is_lost_with_its_disk(sharing: Sharing) -> None:
    before = sharing.records(WORKSPACE, "head")
    assert before
    sharing.on("head", f"rm -r {WORKSPACE}")
    written = sharing.done_on().total()
    said = sharing.on("worker-2", f"{RUN} tasks=[parity,count] workspace={WORKSPACE} objects={sharing.uri} --address auto", 300)
    print(f"\n{said}")
    after = sharing.records(WORKSPACE, "worker-2")
    kept = {key: after[key] for key in before if key in after}  # evaluations of another suite are others
    assert {key.split("-")[0] for key in kept} >= {"pretrain", "finetune", "merge"}
    assert kept == {key: before[key] for key in kept}
    assert sharing.done_on().total() - written == len(after) - len(kept)  # nothing was done again
