"""The Slurm recipe on two hosts of this machine, with Ray's own `symmetric-run`: only `srun` and `scontrol` are stand-ins, over ssh.

The time limit comes near in the middle of the run; the job goes back into the queue, and is run again to its end.
"""

import os
import shlex
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "integration"))

import hosts

REPOSITORY = Path(__file__).parents[2]
NAMES = ("node1", "node2")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.skipif("MERGELINE_KILLS" not in os.environ, reason="takes minutes: `make chaos` runs it"),
]


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Asked when a test is to run, for it takes a moment and namespaces."""
    hosts.skip_where_missing()


# Runs a command on the nodes at once, in the same directory with the same environment; ends with the highest exit code.
SRUN = """#!/usr/bin/env bash
nodes=$NODES
while [[ $1 == --* ]]; do
    [[ $1 == --nodelist=* ]] && nodes=${1#*=}
    shift
done
exported=$(export -p | grep -v -E '^declare -x (HOME|PWD|OLDPWD|SHLVL|SSH_|_=)')
steps=()
for node in $nodes; do
    ssh -i "$KEY" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "root@$node" \\
        "$exported; cd $(printf %q "$PWD") && $(printf '%q ' "$@")" </dev/null &
    steps+=($!)
done
worst=0
for step in "${steps[@]}"; do
    wait "$step" || { code=$?; ((code > worst)) && worst=$code; }
done
exit "$worst"
"""
SCONTROL = '#!/usr/bin/env bash\n[[ $1 == show ]] && printf "%s\\n" $NODES || echo "$@" >>"$TOLD"\n'

# The batch script, and the signal that Slurm sends to it alone when the time limit is near: here, as soon as a step is stored.
LIMITED = """
bash deploy/slurm/mergeline.sbatch "$@" &
job=$!
while kill -0 $job 2>/dev/null && ! ls "$WORKSPACE"/store/*/record.json >/dev/null 2>&1; do sleep 0.2; done
kill -USR1 $job
while kill -0 $job 2>/dev/null; do wait $job; done
wait $job
"""


def test_a_job_is_stopped_before_its_time_limit_and_goes_on_in_the_next(tmp_path: Path) -> None:
    room, shared, programs = tmp_path / "hosts", tmp_path / "shared", tmp_path / "shared" / "bin"
    room.mkdir()
    programs.mkdir(parents=True)
    workspace, told = shared / "work", shared / "told"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with hosts.hosts(room, NAMES, [REPOSITORY, shared]) as made:
        slurm = {
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_SUBMIT_DIR": str(REPOSITORY),
            "MERGELINE_VENV": sys.prefix,
            "MERGELINE_STATE": str(shared / "state"),
            "MERGELINE_HEAD_IP": made.addresses["node1"],
            "NODES": " ".join(NAMES),
            "KEY": str(made.key),
            "TOLD": str(told),
            "WORKSPACE": str(workspace),
            "PATH": f"{programs}:{made.environment['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in slurm.items())
        asked = f"tests/pipeline/tiny.yaml workspace={workspace} 'tasks=[parity]'"
        stopped = made.on("node1", f"cd {REPOSITORY} && {given} bash -c {shlex.quote(LIMITED)} limited {asked}", 200)
        assert stopped.returncode == 0, (stopped.stdout + stopped.stderr)[-4000:]
        assert told.read_text() == "requeue 4711\n"
        stored = len(list((workspace / "store").glob("*/record.json")))
        assert 1 <= stored < 6
        assert "error: stopped by SIGTERM" in stopped.stdout + stopped.stderr
        assert (shared / "state" / "token").stat().st_mode & 0o777 == 0o600
        ended = made.on("node1", f"cd {REPOSITORY} && {given} SLURM_RESTART_COUNT=1 bash deploy/slurm/mergeline.sbatch {asked}", 200)
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
        assert f"{6 - stored} of 6 steps to run" in ended.stdout
        assert len(list((workspace / "store").glob("*/record.json"))) == 6
        assert told.read_text() == "requeue 4711\n"
        assert "On worker node" in ended.stdout
        for name in NAMES:
            assert made.on(name, "ls -d /tmp/ml-4711; pgrep raylet").stdout == ""
