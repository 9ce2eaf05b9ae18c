"""What a command is given from outside, checked before anything runs: places to write in, checkpoints, a cluster's address."""

import socket
from collections.abc import Sequence
from pathlib import Path

from foundation.errors import ConfigError, InputError, ResourceError

CONNECT_SECONDS = 5.0


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


def check_checkpoint(text: str) -> Path | None:
    """The local checkpoint that `text` names, whole by its headers; None for a hub id. Raises InputError; loads no torch."""
    from mergers import read_checkpoint, resolve_checkpoint
    from mergers.checkpoints.resolve import is_hub_id

    if is_hub_id(text):
        return None
    place = resolve_checkpoint(text)
    if not read_checkpoint(place).config:
        raise InputError(f"{place} has no config.json, so it cannot be loaded; copy or download the checkpoint again")
    return place


def check_fits(place: Path, parts: Sequence[str]) -> None:
    """InputError unless the tensors are exactly the model's, the model has all `parts`, and a processor is there. Loads no weights.

    A model on the `meta` device has names and shapes without memory. It takes the seconds that importing transformers takes.
    """
    from transformers.utils import logging

    from models.load import FAULTS, class_for, describe_fault, load_processor
    from models.parts import tunable_parameters

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = class_for(place).from_pretrained(
            place, output_loading_info=True, device_map={"": "meta"}, dtype="auto", trust_remote_code=False, ignore_mismatched_sizes=True
        )
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    faults = [describe_fault(fault, report[f"{fault}_keys"]) for fault in FAULTS if report[f"{fault}_keys"]]
    if faults:
        raise InputError(f"{place}: the tensors do not fit {type(model).__name__}: {'; '.join(faults)}; save the checkpoint again")
    tunable_parameters(model, parts)
    load_processor(place)


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
