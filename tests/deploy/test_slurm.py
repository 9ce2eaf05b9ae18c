"""The Slurm recipe, run through with stand-ins for Slurm's and Ray's programs: what goes back into the queue, and what is a failure."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "deploy" / "slurm"

STAND_INS = {
    "srun": 'echo "srun $*" >>"$TOLD.srun"\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "hostname": "echo 10.1.2.3 10.9.9.9\n",
    "scontrol": 'case $1 in show) echo node1; echo node2 ;; *) echo "$@" >>"$TOLD" ;; esac\n',
    # As Ray's: the command's exit code, but 0 where Ray itself could not start.
    "ray": """
echo "ray $*" >>"$TOLD"
[[ -n $RAY_FAILS ]] && { echo 'Failed to start Ray' >&2; exit 0; }
[[ -d $RAY_TMPDIR && $(<"$RAY_AUTH_TOKEN_PATH") =~ ^[0-9a-f]{64}$ && $RAY_AUTH_MODE == token ]] || exit 98
((RAY_gcs_rpc_server_reconnect_timeout_s < 60)) || exit 99
while [[ $1 != -- ]]; do shift; done
shift
"$@"
""",
    "python": """
[[ $1 == -c ]] && exec "$PYTHON" "$@"
echo "python $*" >>"$TOLD"
[[ $CODE == wait ]] || exit "$CODE"
trap 'echo TERM >>"$TOLD"; exit 5' TERM
touch "$TOLD.runs"
while :; do sleep 0.1; done
""",
}


@pytest.fixture
def job(tmp_path: Path) -> tuple[list[str], dict[str, str], Path]:
    """A command, its environment and what the stand-ins are told: a project directory with an environment made of them."""
    (tmp_path / "deploy").mkdir()
    shutil.copytree(SLURM, tmp_path / "deploy" / "slurm")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (programs / name).chmod(0o755)
    told = tmp_path / "told"
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TOLD": str(told),
        "HOME": str(tmp_path),
        "PYTHON": sys.executable,
        "RAY_FAILS": "",
        "SLURM_JOB_ID": f"{os.getpid()}{time.monotonic_ns() % 10**6}",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    return ["bash", str(tmp_path / "deploy" / "slurm" / "mergeline.sbatch"), "some file.yaml", "alpha=0.3"], environment, told


def test_what_is_run_on_the_nodes(job: tuple[list[str], dict[str, str], Path]) -> None:
    command, environment, told = job
    done = subprocess.run(command, env={**environment, "CODE": "0"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    port = 20000 + int(environment["SLURM_JOB_ID"]) % 10000
    ray, python = told.read_text().splitlines()
    assert ray.startswith(f"ray symmetric-run --address 10.1.2.3:{port} --min-nodes 2 --num-cpus 16 -- bash ")
    assert python == f"python -m pipeline run some file.yaml alpha=0.3 --address 10.1.2.3:{port}"
    assert "srun --ntasks-per-node=1 --cpus-per-task=16 bash" in Path(f"{told}.srun").read_text()
    assert not Path(f"/tmp/ml-{environment['SLURM_JOB_ID']}").exists()
    assert not any((told.parent / ".mergeline" / "slurm").iterdir())


@pytest.mark.parametrize(("code", "ends"), [("0", 0), ("5", 0), ("2", 2), ("3", 3), ("4", 4), ("1", 1), ("137", 137)])
def test_only_a_clean_stop_goes_back_into_the_queue(job: tuple[list[str], dict[str, str], Path], code: str, ends: int) -> None:
    command, environment, told = job
    done = subprocess.run(command, env={**environment, "CODE": code}, capture_output=True, text=True, timeout=60)
    assert done.returncode == ends, done.stderr
    assert (f"requeue {environment['SLURM_JOB_ID']}" in told.read_text().splitlines()) is (code == "5")


def test_ray_that_does_not_start_is_a_failure_though_it_says_nothing_of_it(job: tuple[list[str], dict[str, str], Path]) -> None:
    command, environment, told = job
    state = told.parent / ".mergeline" / "slurm" / environment["SLURM_JOB_ID"]
    state.mkdir(parents=True)
    (state / "exit-code").write_text("0\n")  # of the job's run before it was put back
    done = subprocess.run(command, env={**environment, "CODE": "0", "RAY_FAILS": "yes"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "the run was not started" in done.stderr
    assert "requeue" not in told.read_text()


def test_the_warning_before_the_time_limit_stops_the_driver_and_requeues(job: tuple[list[str], dict[str, str], Path]) -> None:
    command, environment, told = job
    process = subprocess.Popen(command, env={**environment, "CODE": "wait"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not Path(f"{told}.runs").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert told.read_text().splitlines()[-2:] == ["TERM", f"requeue {environment['SLURM_JOB_ID']}"]


def test_it_is_not_put_back_for_ever(job: tuple[list[str], dict[str, str], Path]) -> None:
    command, environment, told = job
    limited = {**environment, "CODE": "5", "SLURM_RESTART_COUNT": "3", "MERGELINE_RESTARTS": "3"}
    done = subprocess.run(command, env=limited, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "restarted 3 times already" in done.stderr
    assert "requeue" not in told.read_text()


def test_without_an_experiment_or_an_environment_it_says_so(job: tuple[list[str], dict[str, str], Path]) -> None:
    command, environment, told = job
    done = subprocess.run(command[:2], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "name an experiment" in done.stderr
    shutil.rmtree(told.parent / ".venv")
    done = subprocess.run(command, env={**environment, "PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "make setup" in done.stderr


def test_it_asks_slurm_for_what_it_relies_on() -> None:
    asked = [line.split(maxsplit=1)[1] for line in (SLURM / "mergeline.sbatch").read_text().splitlines() if line.startswith("#SBATCH")]
    for option in ("--requeue", "--signal=B:USR1@300", "--ntasks-per-node=1", "--exclusive", "--open-mode=append"):
        assert option in asked


SCRIPTS = sorted(path for path in SLURM.parent.rglob("*") if path.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True, timeout=30)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here (Debian's package shellcheck)")
    found = subprocess.run(["shellcheck", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout
