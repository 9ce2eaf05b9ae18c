"""From what a user types to a checkpoint directory: a local directory, a Trainer's output directory, or a Hugging Face hub id.

A mistyped local path must never turn into a network call, so a text counts as a hub id only if it has that form (`org/name` or
`org/name@revision`) and nothing local suggests that a path was meant.
"""

import re
import shutil
from pathlib import Path

from foundation.errors import InputError
from foundation.hints import nearest
from mergers.checkpoint import INDEX, SINGLE, no_weights, read_checkpoint

HUB_ID = re.compile(r"^(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-]+))?$")
TRAINER_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def resolve_checkpoint(text: str) -> Path:
    """The checkpoint directory that `text` names.

    A directory with weights is itself; a Trainer's output directory is its newest complete `checkpoint-N`; `org/name[@revision]` is
    downloaded. Raises InputError if there is no such checkpoint, with the nearest existing name.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return path if has_weights(path) else newest_checkpoint(path)
    if path.is_file():
        raise InputError(f"{text} is a file; name the checkpoint directory it lies in: {path.parent}")
    hub = HUB_ID.match(text)
    if hub is None or looks_like_path(text):
        raise InputError(missing(text, path))
    return download(hub["id"], hub["revision"])


def is_hub_id(text: str) -> bool:
    """Whether `text` names a checkpoint on the hub: it has the form, and nothing local is, or could be meant to be, of that name."""
    return HUB_ID.match(text) is not None and not Path(text).expanduser().exists() and not looks_like_path(text)


def has_weights(path: Path) -> bool:
    """Whether `path` itself holds a model's safetensors files."""
    return (path / SINGLE).exists() or (path / INDEX).exists()


def newest_checkpoint(path: Path) -> Path:
    """The highest-numbered complete `checkpoint-N` of a Trainer's output directory; names without a number do not count."""
    numbered = [(int(found[1]), child) for child in path.iterdir() if child.is_dir() and (found := TRAINER_CHECKPOINT.match(child.name))]
    if not numbered:
        raise InputError(no_weights(path))
    errors = []
    for _, child in sorted(numbered, reverse=True):
        try:
            read_checkpoint(child)
        except InputError as error:
            errors.append(error)
        else:
            return child
    raise InputError(f"{path} has no complete checkpoint; the newest: {errors[0]}")


def looks_like_path(text: str) -> bool:
    """Whether a text that does not exist was meant as a local path rather than a hub id."""
    return text.startswith((".", "/", "~")) or text.count("/") != 1 or Path(text).expanduser().parent.is_dir()


def missing(text: str, path: Path) -> str:
    """What to say of a path that does not exist: how far it does, and the nearest name there."""
    part = path
    while not part.parent.is_dir() and part.parent != part:
        part = part.parent
    home = part.parent
    close = nearest(part.name, sorted(child.name for child in home.iterdir() if child.is_dir()))
    hint = f"did you mean {home / close}?" if close else f"{home.resolve()} has no directory of a similar name"
    return f"checkpoint {text!r} does not exist: there is no '{part.name}' in {home.resolve()}; {hint}"


def download(hub_id: str, revision: str | None, directory: Path | None = None) -> Path:
    """Fetch a checkpoint's safetensors and small files from the hub (never pickles or code), into `directory` or the hub's cache; where."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=HUB_FILES, local_dir=directory))
    except Exception as error:  # the hub client raises many unrelated kinds; all mean: not fetched
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = f"{hub_id}@{revision}" if revision else hub_id
        raise InputError(
            f"there is no local directory '{where}', and fetching it from the Hugging Face hub failed: {reason}. Check the name, "
            "the network and, for a private model, your access token"
        ) from error


def fetch(text: str, directory: Path) -> str:
    """Fetch the checkpoint of a hub id into `directory` itself; the commit it came from. Raises InputError if it cannot be had whole."""
    hub = HUB_ID.match(text)
    if hub is None:
        raise InputError(f"{text!r} is not a hub id; write org/name or org/name@revision")
    download(hub["id"], hub["revision"], directory)
    notes = sorted((directory / ".cache").rglob("*.metadata"))  # the client notes the commit beside each file it fetches
    commit = notes[0].read_text().splitlines()[0] if notes else "unknown"
    shutil.rmtree(directory / ".cache", ignore_errors=True)
    read_checkpoint(directory)
    return commit
