"""What one machine is, in plain values that travel between nodes: versions, room, token, GPUs."""

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "ray", "transformers", "safetensors")
PACKAGES = ("foundation", "mergers", "tasks", "models", "trainers", "evaluators", "pipeline")
COUNT_SECONDS = 45
"""Less than a node has for its first answer (`nodes.START_SECONDS`), so that a driver that hangs is told as what it is."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class TokenFile:
    """Where Ray's token lies, and who may read it."""

    path: str
    mode: int | None  # None where there is no file
    in_environment: bool

    @property
    def present(self) -> bool:
        return self.in_environment or self.mode is not None

    @property
    def exposed(self) -> bool:
        """Whether others than the owner may read or write it."""
        return self.mode is not None and bool(self.mode & (stat.S_IRWXG | stat.S_IRWXO))


@dataclass(frozen=True)
class Facts:
    """One machine. Sizes in bytes; `workspace` says what is wrong with it, empty where nothing is."""

    workspace: str
    free: int
    shared_memory: int
    versions: dict[str, str]
    code: str  # SHA-256 over the project's own files as this machine imports them
    auth_mode: str  # RAY_AUTH_MODE as the processes there have it
    token: TokenFile
    devices: int  # GPUs that the system has
    gpus: int  # GPUs that torch sees


def gather(workspace: Path, own: bool = False) -> Facts:
    """The facts of the machine that this runs on. Loads torch only where the system has a GPU, and then in a process of its own.

    `own`: the workspace is this machine's alone, and is made by the first run where it is not there.
    """
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if own:
        workspace = next(place for place in (workspace, *workspace.parents) if place.exists())
    wrong = what_is_wrong(workspace)
    return Facts(
        workspace=wrong,
        free=0 if wrong else shutil.disk_usage(workspace).free,
        shared_memory=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0,
        versions=versions(),
        code=code_digest(),
        auth_mode=os.environ.get("RAY_AUTH_MODE", ""),
        token=token_file(),
        devices=devices,
        gpus=torch_gpus() if devices else 0,
    )


def what_is_wrong(workspace: Path) -> str:
    """Why nothing can be written there; empty if it can."""
    if not workspace.is_dir():
        return "is not a directory" if workspace.exists() else "is not there"
    return "" if os.access(workspace, os.R_OK | os.W_OK | os.X_OK) else "cannot be written by this user"


def versions() -> dict[str, str]:
    """Python's and the libraries' versions."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def code_digest(home: Path = Path(__file__).parents[2]) -> str:
    """SHA-256 over the names and bytes of the project's Python files below `home`."""
    state = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((home / package).rglob("*.py")):
            state.update(f"{path.relative_to(home).as_posix()}\0{path.stat().st_size}\0".encode())
            state.update(path.read_bytes())
    return state.hexdigest()


def token_file() -> TokenFile:
    """The token as Ray looks for it: RAY_AUTH_TOKEN, then the file RAY_AUTH_TOKEN_PATH, then ~/.ray/auth_token."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else None
    return TokenFile(str(path), mode, bool(os.environ.get("RAY_AUTH_TOKEN")))


def secure_token() -> bool:
    """Take the token file from everybody but its owner; whether anything had to be done."""
    found = token_file()
    if found.exposed:
        os.chmod(found.path, stat.S_IRUSR | stat.S_IWUSR)
    return found.exposed


def torch_gpus() -> int:
    """The GPUs that torch sees on this machine, whatever Ray shows to this process: a child without its mask counts."""
    bare = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    counting = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    try:
        done = subprocess.run(counting, env=bare, capture_output=True, text=True, timeout=COUNT_SECONDS)
    except subprocess.TimeoutExpired:
        return 0  # a driver that hangs gives no GPU to anybody
    return int(done.stdout) if done.returncode == 0 else 0
