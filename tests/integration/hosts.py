"""Test hosts on this machine: a desk and hosts on one network of their own, with sshd, and nothing of theirs outside.

Each host is a set of namespaces (network, processes, mounts, host name). It has an address, a list of processes, a home, /tmp and /dev/shm
of its own, so that even `ray stop` there ends only what runs there. Programs, and the files below `shared`, are this machine's: the same on
all hosts, as on a network file system. The desk is where a person sits. All hosts live inside its process namespace, which ends when its
standard input is closed: whatever happens to the test, nothing stays behind, and the machine's own network is never touched.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = Path("/usr/sbin/sshd")
PROGRAMS = ("unshare", "nsenter", "mount", "ip", "ssh", "ssh-keygen", "rsync", "hostname", "uptime")
NETWORK = "10.77.0"
DESK = f"{NETWORK}.1"
HOME = "/tmp/home"
"""On the desk and on every host."""
UP_SECONDS = 30
NAMESPACES = ("unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")

PRIVATE = """
set -eu
room=$1 name=$2 address=$3
inside=$room/$name
mkdir -p "$inside"
mount -t tmpfs -o mode=1777 tmpfs "$inside"
for place in $SEEN; do  # what lies below /tmp and must be seen all the same
    mkdir -p "$inside/${place#/tmp/}"
    mount --rbind "$place" "$inside/${place#/tmp/}"
done
mkdir -m 700 "$inside/home"
touch "$inside/home/.bashrc"
mount --rbind "$inside" /tmp
mount -t tmpfs -o mode=1777,size=1g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount --bind "$room/passwd" /etc/passwd
mount --bind "$room/shadow" /etc/shadow
mount --bind "$room/hosts" /etc/hosts
hostname "$name"
ip link set lo up
"""
"""Opens the script of the desk and that of a host."""

ON_DESK = """
ip link add lan type bridge
ip address add "$address/24" dev lan
ip link set lan up
exec 9</proc/self/ns/net
shift 3
while [ $# -gt 0 ]; do
    $NAMESPACES bash "$room/host.sh" "$room" "$1" "$2" </dev/null >"$room/$1.log" 2>&1 &
    shift 2
done
echo up
cat >/dev/null
"""

ON_HOST = """
ip link add eth0 type veth peer name "to-$name" netns /proc/self/fd/9
nsenter --net=/proc/self/fd/9 ip link set "to-$name" master lan up
exec 9<&-
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$DESK"
/usr/sbin/sshd -D -e -f "$room/sshd_config" &
wait
"""

SSHD_CONFIG = """
HostKey {room}/host_key
AuthorizedKeysFile {room}/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 50
"""


def missing() -> str | None:
    """Why hosts cannot be made here; None if they can."""
    if lacking := [name for name in PROGRAMS if shutil.which(name) is None] + ([] if SSHD.exists() else [str(SSHD)]):
        return f"{', '.join(lacking)} not found: `make packages` installs Debian's, as root or with sudo"
    if os.geteuid():
        return "namespaces are made by root, which this is not"
    tried = subprocess.run(
        [*NAMESPACES, "sh", "-c", "mount -t tmpfs tmpfs /mnt && ip link add lan type bridge && hostname tried"],
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
    )
    return f"namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN: {tried.stderr.strip()}" if tried.returncode else None


def skip_where_missing() -> None:
    """For a fixture of tests that need hosts."""
    if (lacking := missing()) is not None:
        pytest.skip(lacking)


@dataclass(frozen=True)
class Hosts:
    """Running hosts, by name, with their addresses; `key` is the private key that opens all of them."""

    room: Path
    process: subprocess.Popen[str]
    addresses: Mapping[str, str]
    environment: Mapping[str, str]

    @property
    def key(self) -> Path:
        return self.room / "key"

    def at_desk(self, command: Sequence[str | Path], seconds: float, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command on the desk; TimeoutExpired after so many seconds, with its end left to the hosts' end."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        where = f"cd {shlex.quote(str(directory or HOME))} && exec {shlex.join(map(str, command))}"
        enter = ["nsenter", "--target", child, "--net", "--pid", "--mount", "--uts", "--ipc", "--", "bash", "-c", where]
        return subprocess.run(enter, env=dict(self.environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)

    def on(self, name: str, command: str, seconds: float = UP_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a host, by ssh from the desk."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR"]
        return self.at_desk(["ssh", "-i", self.key, *options, f"root@{self.addresses[name]}", command], seconds)


@contextmanager
def hosts(room: Path, names: Sequence[str], shared: Sequence[Path], variables: Mapping[str, str] | None = None) -> Iterator[Hosts]:
    """Hosts with these names at 10.77.0.11 and on, ready for ssh; all gone at the end. `room`: an empty directory of theirs.

    `shared`: what lies below /tmp and is to be seen by all of them (programs' and the room's own places are). `variables`: of commands on
    the desk, with those that every shell has.
    """
    addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=11)}
    seen = _outermost([room, Path(sys.prefix), Path(sys.base_prefix), *shared])
    _write_files(room, addresses)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "USER": "root",
        **(variables or {}),
    }
    given = {**environment, "SEEN": " ".join(map(str, seen)), "NAMESPACES": " ".join(NAMESPACES), "DESK": DESK}
    pairs = [word for pair in addresses.items() for word in pair]
    process = subprocess.Popen(
        [*NAMESPACES, "bash", str(room / "desk.sh"), str(room), "desk", DESK, *pairs],
        env=given,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert (said := process.stdout.readline()) == "up\n", f"the desk: {said}"
        made = Hosts(room, process, addresses, environment)
        for name in names:
            _wait_for(made, name)
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(UP_SECONDS)
        process.kill()
        process.wait(UP_SECONDS)


def _write_files(room: Path, addresses: Mapping[str, str]) -> None:
    """Keys, the users with root's home moved and no password, names of hosts, sshd's configuration, the scripts."""
    for key in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", room / key], check=True, timeout=UP_SECONDS)
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    (room / "passwd").write_text("".join(":".join([*user[:5], HOME if user[0] == "root" else user[5], user[6]]) + "\n" for user in users))
    (room / "shadow").write_text("".join(f"{user[0]}:*:19000:0:99999:7:::\n" for user in users))
    names = {"localhost": "127.0.0.1", "desk": DESK, **addresses}
    (room / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    (room / "sshd_config").write_text(SSHD_CONFIG.format(room=room))
    (room / "desk.sh").write_text(PRIVATE + ON_DESK)
    (room / "host.sh").write_text(PRIVATE + ON_HOST)


def _outermost(places: Sequence[Path]) -> list[Path]:
    """Those below /tmp that lie in none of the others."""
    below = sorted({place.resolve() for place in places if place.resolve().is_relative_to("/tmp")})
    return [place for place in below if not any(place != other and place.is_relative_to(other) for other in below)]


def _wait_for(made: Hosts, name: str) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while True:
        done = made.on(name, "true")
        if done.returncode == 0:
            return
        log = made.room / f"{name}.log"
        assert time.monotonic() < deadline, f"{name} does not answer: {done.stderr}{log.read_text() if log.exists() else ''}"
        time.sleep(0.2)
