"""What the figures were taken on: processor, memory, kernel, disk, versions, load. No names, no paths."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.contenders import mergekit_bin
from foundation.errors import ConfigError

PEER_VERSIONS = "from importlib.metadata import version as v; print(v('mergekit'), v('torch'), v('transformers'))"


@dataclass(frozen=True)
class Machine:
    """A machine and its software, at a moment; `load` is the mean number of running processes of the last minute."""

    date: str
    processor: str
    cores: int
    memory: int
    kernel: str
    file_system: str
    python: str
    versions: dict[str, str]
    load: float


def describe(directory: Path) -> Machine:
    """This machine; `directory` is where the benchmark writes."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        processor=field_of("/proc/cpuinfo", "model name"),
        cores=len(os.sched_getaffinity(0)),
        memory=int(field_of("/proc/meminfo", "MemTotal").split()[0]) * 1024,
        kernel=platform.release(),
        file_system=file_system_of(directory),
        python=platform.python_version(),
        versions={name: version(name) for name in ("torch", "ray", "numpy")} | peer_versions(),
        load=round(os.getloadavg()[0], 1),
    )


def field_of(path: str, name: str) -> str:
    """What stands behind `name:` in a file of the kernel."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def file_system_of(directory: Path) -> str:
    """The type of the file system that holds `directory`."""
    place = directory.resolve()
    best, found = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        mount, kind = line.split()[1:3]
        if place.is_relative_to(mount) and len(mount) >= len(best):
            best, found = mount, kind
    return found


def peer_versions() -> dict[str, str]:
    """The versions in mergekit's environment; nothing where there is none."""
    try:
        interpreter = mergekit_bin() / "python"
    except ConfigError:
        return {}
    answer = subprocess.run([interpreter, "-c", PEER_VERSIONS], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(("mergekit", "mergekit's torch", "mergekit's transformers"), answer, strict=True))
