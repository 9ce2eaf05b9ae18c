"""From what a user types to a checkpoint: a directory, a Trainer's output directory, a Hugging Face hub id, a pickled file, an adapter.

    path/or/org/name[@revision][+adapter[@revision]]...

A mistyped local path must never turn into a network call, so a text counts as a hub id only if it has that form (`org/name` or
`org/name@revision`) and nothing local suggests that a path was meant.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from foundation.errors import InputError
from foundation.hints import nearest
from mergers.checkpoints.adapters import adapter_tensors, base_of, is_adapter, open_adapter
from mergers.checkpoints.checkpoint import PICKLES, SAFETENSORS, Checkpoint, holds, no_weights, read_checkpoint
from mergers.checkpoints.pickles import PICKLED

HUB_ID = re.compile(r"^(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-]+))?$")
TRAINER_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def open_source(text: str, allow_pickle: bool = False) -> Checkpoint:
    """The checkpoint that a user's `text` names, in any of the forms a source may have.

    `base+adapter` is the base with a LoRA adapter on it (several may follow, each on what stands before it); an adapter alone goes on the
    base that its config names. Pickles are read only with `allow_pickle`, as tensors and nothing else. Raises InputError for what does not
    exist, is damaged or does not fit.
    """
    first, *others = split_adapters(text)
    path = locate(first, allow_pickle)
    adapters = [(other, locate(other, allow_pickle)) for other in others]
    if is_adapter(path):
        adapters.insert(0, (first, path))
        named = base_of(path)
        path = locate(named, allow_pickle)
        if is_adapter(path):
            raise InputError(
                f"the base of {first} is {named}, itself an adapter; write all of them, the model first: model+{named}+{first}"
            )
    found = read_checkpoint(path, allow_pickle)
    for name, directory in adapters:
        if not is_adapter(directory):
            raise InputError(f"{text!r}: {name!r} stands after a +, but {directory} is no LoRA adapter: it has no adapter_config.json")
        found = open_adapter(directory, found, allow_pickle)
    return found


def split_adapters(text: str) -> list[str]:
    """The base and the adapters of `base+adapter+...`. A path that exists may hold plus signs of its own."""
    first, *pieces = text.split("+") if not Path(text).expanduser().exists() else [text]
    found, current = [], first
    for piece in pieces:
        if Path(current).expanduser().exists() or is_hub_id(current):
            found.append(current)
            current = piece
        else:
            current = f"{current}+{piece}"
    if pieces and not found:
        raise InputError(missing(first, Path(first).expanduser()))
    return [*found, current]


def resolve_checkpoint(text: str, allow_pickle: bool = False) -> Path:
    """Where the whole model lies that `text` names, for callers who need a path: `open_source` also takes adapters.

    A directory with weights is itself; a Trainer's output directory is its newest complete `checkpoint-N`; `org/name[@revision]` is
    downloaded; with `allow_pickle`, a file that torch.save wrote is itself. Raises InputError if there is no such checkpoint, with the
    nearest existing name.
    """
    path = locate(text, allow_pickle)
    if is_adapter(path):
        raise InputError(no_weights(path))
    return path


def locate(text: str, allow_pickle: bool) -> Path:
    """The directory (of a model or an adapter) or the pickled file that a text without a plus names."""
    path = Path(text).expanduser()
    if path.is_dir():
        return path if has_weights(path, allow_pickle) or is_adapter(path) else newest_checkpoint(path, allow_pickle)
    if path.is_file():
        if path.suffix in PICKLED and not path.name.startswith("pytorch_model"):
            return path
        raise InputError(f"{text} is a file; name the checkpoint directory it lies in: {path.parent}")
    hub = HUB_ID.match(text)
    if hub is None or looks_like_path(text):
        raise InputError(missing(text, path))
    found = download(hub["id"], hub["revision"])
    if allow_pickle and not has_weights(found) and not is_adapter(found):
        return download(hub["id"], hub["revision"], patterns=[*HUB_FILES, "pytorch_model*.bin"])
    return found


def is_hub_id(text: str) -> bool:
    """Whether `text` names a checkpoint on the hub: it has the form, and nothing local is, or could be meant to be, of that name."""
    return HUB_ID.match(text) is not None and not Path(text).expanduser().exists() and not looks_like_path(text)


def has_weights(path: Path, allow_pickle: bool = False) -> bool:
    """Whether the directory `path` itself holds a whole model's weights, in a form that may be read."""
    return holds(path, SAFETENSORS) or (allow_pickle and holds(path, PICKLES))


def newest_checkpoint(path: Path, allow_pickle: bool = False) -> Path:
    """The highest-numbered complete `checkpoint-N` of a Trainer's output directory; names without a number do not count."""
    numbered = [(int(found[1]), child) for child in path.iterdir() if child.is_dir() and (found := TRAINER_CHECKPOINT.match(child.name))]
    if not numbered:
        raise InputError(no_weights(path, allow_pickle))
    errors = []
    for _, child in sorted(numbered, reverse=True):
        try:
            if is_adapter(child):
                adapter_tensors(child, allow_pickle)
            else:
                read_checkpoint(child, allow_pickle)
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


def download(hub_id: str, revision: str | None, directory: Path | None = None, patterns: Sequence[str] = HUB_FILES) -> Path:
    """Fetch a checkpoint's safetensors and small files (never code; pickles only if asked for) from the hub, into `directory` or the hub's
    cache; where."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns), local_dir=directory))
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
