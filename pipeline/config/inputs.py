"""What a command is given from outside, checked before anything runs: places to write in, checkpoints, a cluster's address."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError, ResourceError

if TYPE_CHECKING:
    from models.skeleton import PartCounts

CONNECT_SECONDS = 5.0
WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")


def check_place(path: Path, what: str) -> None:
    """ConfigError unless `path` is a directory or could be made one; makes nothing."""
    for part in (path, *path.parents):
        if part.is_dir():
            return
        if part.exists():
            problem = "is a file" if part == path else f"lies below {part}, which is a file"
            raise ConfigError(f"{what} {path} {problem}; name a directory, or one that can be made")


def make_place(path: Path, what: str) -> None:
    """Make the directory `path`; ConfigError if a file is in the way, ResourceError if the system refuses."""
    check_place(path, what)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ResourceError(
            f"{what} {path} cannot be written ({error.strerror}); choose a directory that this user may write in"
        ) from error


def check_new(path: Path, what: str) -> None:
    """ConfigError if `path` holds something already, or could not be made."""
    check_place(path, what)
    if path.is_dir() and (held := sorted(entry.name for entry in path.iterdir())):
        raise ConfigError(f"{what} {path} exists and is not empty (it holds {held[0]}); choose another directory, or remove it")


def is_config_only(place: Path) -> bool:
    """Whether `place` is a model's directory without its weights: it can be planned with, but not run."""
    if not (place / "config.json").is_file():
        return False
    return not any(path.suffix in WEIGHTS or path.name.startswith("checkpoint-") for path in place.iterdir())


def check_checkpoint(text: str, planning: bool = False) -> Path | None:
    """The local checkpoint that `text` names, whole by its headers; None for a hub id. Raises InputError; loads no torch.

    `planning`: a directory with a config.json and no weights will do.
    """
    from mergers import read_checkpoint, resolve_checkpoint
    from mergers.checkpoints.resolve import is_hub_id

    if is_hub_id(text):
        return None
    bare = Path(text).expanduser()
    if planning and bare.is_dir() and is_config_only(bare):
        return bare
    place = resolve_checkpoint(text)
    if not read_checkpoint(place).config:
        raise InputError(f"{place} has no config.json, so it cannot be loaded; copy or download the checkpoint again")
    return place


def check_fits(place: Path, parts: Sequence[str]) -> "PartCounts":
    """How many weights learn; InputError unless the tensors are exactly the model's, the model has all `parts`, and a processor is there.

    Loads no weights: a model on the `meta` device has names and shapes without memory. It takes the seconds of importing transformers.
    """
    from models.load import load_processor
    from models.skeleton import count_parameters

    counts = count_parameters(place, parts)
    if not is_config_only(place):
        load_processor(place)
    return counts


def check_address(address: str) -> None:
    """ConfigError unless `address` has the form of a Ray cluster's, ResourceError unless something listens there. Starts no Ray."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{address!r} is not the address of a Ray cluster; give host:port, ray://host:port or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ResourceError(
            f"no Ray cluster answers at {address} ({error}); check --address or RAY_ADDRESS, or leave both out to run on this machine"
        ) from error
