"""`ray up deploy/ray/local.yaml`, really: a head and two workers on hosts with sshd, an experiment sent to them, all of it down again.

The hosts have addresses, processes, /tmp and homes of their own (see `hosts.py`). The recipe is the one that is shipped; changed are the
addresses, user and key, the installation (the environment that the tests run in is linked instead), and how many processors a node counts:
one, so that three merge actors need all three nodes. A worker whose head is gone ends after 5 seconds, not after a minute.
"""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hosts
import pytest
import torch
import yaml
from hosts import HOME, Hosts
from safetensors.torch import save_file

from foundation.files import directory_manifest

REPOSITORY = Path(__file__).parents[2]
RECIPE = REPOSITORY / "deploy" / "ray" / "local.yaml"
DASHBOARD = "http://127.0.0.1:8265"
NAMES = ("head", "worker-1", "worker-2")
ON_NODE = f"cd {HOME}/mergeline && export PATH={HOME}/mergeline/.venv/bin:$PATH RAY_AUTH_MODE=token && "
TENSORS = 6
MERGES = 4
"""An actor that is up only when the others have done all items has none: then the merge is made again."""
SMALL = "RAY_gcs_rpc_server_reconnect_timeout_s=5 ray start --num-cpus=1 --object-store-memory=100000000 "

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
class Cluster:
    """A cluster that `ray up` made: its hosts, its YAML file, and the directory that all of them share."""

    hosts: Hosts
    file: Path
    shared: Path

    def on_head(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        return self.hosts.on("head", ON_NODE + command, seconds)

    def listed(self, what: str) -> list[dict[str, str]]:
        """`ray list nodes` or `ray list tasks`."""
        done = self.on_head(f"ray list {what} --detail --limit 10000 --format json", 60)
        return list(json.loads(done.stdout[done.stdout.index("[") :]))

    def alive(self) -> dict[str, str]:
        """Node id -> address."""
        return {node["node_id"]: node["node_ip"] for node in self.listed("nodes") if node["state"] == "ALIVE"}

    def ran(self, *names: str) -> Counter[str]:
        """Address -> how many tasks whose names begin like this ran there. Ray keeps them after their job; actors it forgets."""
        nodes = self.alive()
        tasks = [task for task in self.listed("tasks") if task["name"].startswith(names) and task["node_id"]]
        return Counter(nodes[task["node_id"]] for task in tasks)

    def ray_processes(self, name: str) -> int:
        return int(self.hosts.on(name, "cat /proc/[0-9]*/comm | grep -c -x -E 'raylet|gcs_server'").stdout)


@pytest.fixture(scope="module")
def brought_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    room, shared = tmp_path_factory.mktemp("hosts"), tmp_path_factory.mktemp("shared")
    with hosts.hosts(room, NAMES, [REPOSITORY, shared], {"RAY_AUTH_MODE": "token"}) as made:
        file = room / "cluster.yaml"
        file.write_text(yaml.safe_dump(for_test_hosts(yaml.safe_load(RECIPE.read_text()), made)))
        prepared = made.at_desk(["ray", "get-auth-token", "--generate"], 60)
        assert prepared.returncode == 0, prepared.stderr
        began = time.monotonic()
        up = made.at_desk(["ray", "up", "--yes", "--no-config-cache", file], 180, REPOSITORY)
        assert up.returncode == 0, (up.stdout + up.stderr)[-4000:]
        cluster = Cluster(made, file, shared)
        deadline = time.monotonic() + 120
        while len(cluster.alive()) < len(NAMES):
            assert time.monotonic() < deadline, made.on("head", "tail -n 40 /tmp/ray/session_latest/logs/monitor.*").stdout
            time.sleep(1)
        print(f"\n{len(NAMES)} nodes up after {time.monotonic() - began:.0f} s")
        tunnel = ["ssh", "-f", "-N", "-i", made.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        opened = made.at_desk([*tunnel, "-L", "8265:127.0.0.1:8265", f"root@{made.addresses['head']}"], 30)
        assert opened.returncode == 0, opened.stderr
        yield cluster


def for_test_hosts(recipe: dict, made: Hosts) -> dict:
    """The shipped recipe with other addresses, user, key and installation, and one processor per node."""
    addresses = [made.addresses[name] for name in NAMES]
    started = {
        key: [command.replace("ray start ", SMALL) for command in recipe[key]]
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
    }
    assert all(any(SMALL in command for command in commands) for commands in started.values())
    return {
        **recipe,
        **started,
        "provider": {"type": "local", "head_ip": addresses[0], "worker_ips": addresses[1:]},
        "auth": {"ssh_user": "root", "ssh_private_key": str(made.key)},
        "setup_commands": [f"ln -sfn {sys.prefix} ~/mergeline/.venv", *recipe["setup_commands"][1:]],
    }


def test_every_host_of_the_recipe_is_a_node(brought_up: Cluster) -> None:
    assert sorted(brought_up.alive().values()) == sorted(brought_up.hosts.addresses.values())


def test_doctor_examines_all_three(brought_up: Cluster) -> None:
    asked = f"python -m pipeline doctor --address auto --workspace {brought_up.shared}"
    open_file = brought_up.hosts.on("worker-2", "chmod 644 ~/.ray/auth_token; stat -c %a ~/.ray/auth_token")
    assert open_file.stdout == "644\n"
    found = brought_up.on_head(asked, 120)
    assert found.returncode == 4, found.stdout + found.stderr
    assert "10.77.0.13: /tmp/home/.ray/auth_token has mode 0644" in " ".join(found.stdout.split())
    by_name = ["ray", "exec", brought_up.file, f"cd mergeline && {asked} --fix"]
    mended = brought_up.hosts.at_desk(by_name, 120, REPOSITORY)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    print("\n" + mended.stdout)
    assert "each of 3 nodes reads what each wrote" in mended.stdout
    assert brought_up.hosts.on("worker-2", "stat -c %a ~/.ray/auth_token").stdout == "600\n"
    assert list(brought_up.shared.iterdir()) == []


def test_an_experiment_is_sent_from_the_desk(brought_up: Cluster) -> None:
    workspace = brought_up.shared / "work"
    began = time.monotonic()
    command = [sys.executable, "-m", "pipeline", "submit", "tests/pipeline/tiny.yaml", f"workspace={workspace}", "tasks=[parity]"]
    sent = brought_up.hosts.at_desk([*command, "--address", DASHBOARD], 240, REPOSITORY)
    assert sent.returncode == 0, (sent.stdout + sent.stderr)[-4000:]
    steps = brought_up.ran("pretrain-", "evaluate-", "finetune-", "merge-")
    print(f"\nthe experiment took {time.monotonic() - began:.0f} s, its steps ran on {dict(steps)}")
    assert len(list((workspace / "store").glob("*/record.json"))) == 6  # seen from outside, where all of it lies


def test_merge_actors_work_on_every_node_and_make_the_same_bytes(brought_up: Cluster) -> None:
    place = brought_up.shared / "models"
    for number, name in enumerate(("base", "one", "other")):
        write_model(place / name, number)
    merge = f"python -m pipeline merge --checkpoints {place}/one {place}/other --base {place}/base --method della --set density=0.5"
    try:
        alone = brought_up.on_head(f"{merge} --output {place}/alone --processes 1", 180)
        assert alone.returncode == 0, alone.stdout + alone.stderr
        before: Counter[str] = Counter()
        for _ in range(MERGES):
            began = time.monotonic()
            spread = brought_up.on_head(f"RAY_ADDRESS=auto {merge} --output {place}/spread --replace --actors 3", 120)
            assert spread.returncode == 0, spread.stdout + spread.stderr
            assert directory_manifest(place / "spread") == directory_manifest(place / "alone")
            so_far = brought_up.ran("_Worker.work")
            merged, before = so_far - before, so_far
            print(f"\nthe merge took {time.monotonic() - began:.0f} s, its items were done on {dict(merged)}")
            assert sum(merged.values()) >= TENSORS
            if len(merged) == len(NAMES):
                break
        assert set(merged) == set(brought_up.hosts.addresses.values())
    finally:
        shutil.rmtree(place)


def write_model(place: Path, number: int) -> None:
    """A checkpoint of as many work items as there are tensors: what a merge hands to an actor at a time is 64 MiB."""
    place.mkdir(parents=True)
    block = torch.randn(1024, 4096, generator=torch.Generator().manual_seed(number)).to(torch.bfloat16)
    tensors = {f"layers.{layer}.weight": (block * (layer + 1)).repeat(8, 1) for layer in range(TENSORS)}
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    (place / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))


def test_down_again_nothing_runs(brought_up: Cluster) -> None:
    assert brought_up.ray_processes("head") == 2
    down = brought_up.hosts.at_desk(["ray", "down", "--yes", brought_up.file], 120, REPOSITORY)
    assert down.returncode == 0, (down.stdout + down.stderr)[-4000:]
    assert brought_up.ray_processes("head") == 0
    began = time.monotonic()
    while left := [name for name in NAMES if brought_up.ray_processes(name)]:
        assert time.monotonic() - began < 120, f"Ray still runs on {left}"
        time.sleep(1)
    print(f"\nthe workers' Ray ended {time.monotonic() - began:.0f} s after the head's")
