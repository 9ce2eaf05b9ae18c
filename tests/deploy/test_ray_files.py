"""The files for `ray up`: Ray would take them, and they keep what the project promises. `node.sh`, with stand-ins for what it calls."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "cluster.yaml", ROOT / "deploy" / "ray" / "gcp.yaml", ROOT / "deploy" / "ray" / "local.yaml"]
CLOUDS = FILES[:2]
NODE = ROOT / "deploy" / "ray" / "node.sh"
CODE = ("foundation", "mergers", "tasks", "models", "trainers", "evaluators", "pipeline")

of_each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


@of_each
def test_ray_accepts_the_file(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read(path)))
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config({**read(path), "max_wrokers": 1}))


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_the_file_fits_rays_schema_before_ray_fills_it_in(path: Path) -> None:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(read(path), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**read(path), "idle_timeout_minutes": "soon"}, schema)


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_the_head_stays_and_gpu_workers_come_and_go(path: Path) -> None:
    config = read(path)
    assert config["idle_timeout_minutes"] <= 15
    assert config["head_node_type"] in config["available_node_types"]
    workers = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
    assert all(kind["resources"]["GPU"] and kind["min_workers"] == 0 for kind in workers)
    assert "GPU" not in config["available_node_types"][config["head_node_type"]]["resources"]


@of_each
def test_every_ray_asks_for_the_token_and_listens_where_it_should(path: Path) -> None:
    config = read(path)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        stop, start = commands
        assert stop.endswith("ray stop")
        assert "RAY_AUTH_MODE=token" in start.split("ray start")[0]
        assert "0.0.0.0" not in start
        assert "unset OMP_NUM_THREADS" in start  # which the shells of `ray up` set to 1
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    text = path.read_text()
    assert "security_group" not in text, "Ray's own lets in SSH alone"
    assert "8265" not in text


@of_each
def test_the_code_goes_to_the_nodes_and_nothing_else_of_the_directory(path: Path) -> None:
    mounts = dict(read(path)["file_mounts"])
    del mounts["~/.ray/auth_token"]
    files = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "deploy/ray/node.sh"}
    assert set(mounts.values()) == {*CODE, *files}
    assert all(remote == f"~/mergeline/{local}" for remote, local in mounts.items())
    assert all((ROOT / local).exists() for local in mounts.values())
    assert not any((ROOT / local).resolve() == ROOT for local in mounts.values())


@pytest.fixture
def node(tmp_path: Path) -> tuple[list[str], dict[str, str], Path]:
    """`node.sh` on a machine that is only pretended: the command, its environment, and the log of what was called."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0" * 64)
    (home / ".ray" / "auth_token").chmod(0o644)
    (home / "mergeline" / "deploy" / "ray").mkdir(parents=True)
    (home / "mergeline" / "deploy" / "ray" / "node.sh").write_text(NODE.read_text())
    programs.mkdir()
    stand_ins = {
        "sudo": 'echo "sudo $*" >>"$TOLD"; [[ $1 == mount ]] && exit 0; "$@"',
        "mount.nfs4": "exit 0",
        "mountpoint": "exit 1",
        "python3": 'case $1 in -m) mkdir -p "$3/bin"; cp "$(dirname "$0")/pip" "$3/bin/pip" ;; --version) echo Python 3.10.1 ;; esac\n'
        '[[ $2 == *version_info* ]] && exit "${TOO_OLD:-0}"; exit 0',
        "pip": 'echo "pip $*" >>"$TOLD"',
    }
    for name, text in stand_ins.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    told = tmp_path / "told"
    told.touch()
    environment = {
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TOLD": str(told),
        "MERGELINE_SHARED": str(tmp_path / "nfs"),
    }
    return ["bash", str(home / "mergeline" / "deploy" / "ray" / "node.sh")], environment, told


def test_a_node_mounts_the_storage_and_installs_torch_before_the_rest(node: tuple[list[str], dict[str, str], Path]) -> None:
    command, environment, told = node
    done = subprocess.run(command, env={**environment, "MERGELINE_NFS": "files:/export"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    mounts = [line for line in told.read_text().splitlines() if line.startswith("sudo mount")]
    assert len(mounts) == 1
    assert mounts[0].endswith(f"files:/export {environment['MERGELINE_SHARED']}")
    assert "lookupcache=positive" in mounts[0]
    first, rest = [line for line in told.read_text().splitlines() if line.startswith("pip")]
    home = Path(environment["HOME"])
    assert first.endswith(f"-c {home}/mergeline/constraints.txt torch")
    assert rest.endswith(f"-c {home}/mergeline/constraints.txt -e {home}/mergeline[digits,lora,search]")
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert (Path(environment["MERGELINE_SHARED"]) / "mergeline").is_dir()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "MERGELINE_NFS is empty"),
        ({"MERGELINE_NFS": "fs-0123"}, "not of the form server:/export"),
        ({"MERGELINE_NFS": "mounted"}, "there is no"),
        ({"MERGELINE_NFS": "files:/export", "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "ray get-auth-token --generate"),
        ({"MERGELINE_NFS": "files:/export", "TOO_OLD": "1"}, "Python 3.10.1 is too old"),
    ],
)
def test_a_node_that_cannot_be_one_says_why_before_anything_is_installed(
    node: tuple[list[str], dict[str, str], Path], changed: dict[str, str], says: str
) -> None:
    command, environment, told = node
    done = subprocess.run(command, env={**environment, **changed}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert says in done.stderr
    assert "pip" not in told.read_text()


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_as_it_comes_the_file_system_is_unset_and_the_setup_says_so(path: Path, node: tuple[list[str], dict[str, str], Path]) -> None:
    _, environment, told = node
    setup = read(path)["setup_commands"][0]
    done = subprocess.run(["bash", "-c", setup], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "MERGELINE_NFS is empty" in done.stderr
    assert told.read_text() == ""


def test_pip_knows_what_node_sh_asks_for() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"digits", "lora", "search"} <= set(extras)
    assert sys.version_info >= (3, 11)
