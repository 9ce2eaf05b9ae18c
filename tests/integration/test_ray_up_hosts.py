"""The hosts that `ray up` is tried on: addresses and /tmp of their own, files that all see, and nothing left when their owner is killed."""

import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

import hosts
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Asked when a test is to run, for it takes a moment and namespaces."""
    hosts.skip_where_missing()


OWNER = """
import sys, time
from pathlib import Path
from hosts import hosts

room = Path(sys.argv[1])
(room / "shared").mkdir()
(room / "room").mkdir()
with hosts(room / "room", ["one", "two"], [room / "shared"]) as made:
    made.on("one", f"echo hello > {room}/shared/file; echo private > /tmp/file")
    look = f"hostname; cat {room}/shared/file; ls /tmp/file; ip -brief address show eth0; ls /proc | grep -c '^[0-9]'"
    print(made.on("two", look).stdout)
    print("ready", flush=True)
    time.sleep(60)
"""


def of_room(room: Path) -> list[str]:
    """Command lines, of all processes of this machine, that name the room."""
    lines = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(room / "room") in line:
            lines.append(line)
    return lines


def test_hosts_are_apart_and_go_with_their_owner(tmp_path: Path) -> None:
    network = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    environment = {**os.environ, "PYTHONPATH": str(Path(hosts.__file__).parent)}
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            seen = "".join(takewhile(lambda line: line != "ready\n", owner.stdout)).split()
            assert seen[:2] == ["two", "hello"]
            assert "private" not in seen
            assert "/tmp/file" not in seen
            assert "10.77.0.12/24" in seen
            assert int(seen[-1]) < 20  # its own processes, not this machine's
            assert len(of_room(tmp_path)) > 4
            assert subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout == network
        finally:
            owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while left := of_room(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
