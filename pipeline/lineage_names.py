"""Which model of a lineage a text names: a checkpoint's directory or a copy of it, its place, a digest, a step's key, or a run.

What MLflow gives names to (its models, runs and registered versions) is found in `pipeline/tracking/ancestry.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from foundation.errors import InputError
from foundation.files import directory_manifest, manifest_digest
from foundation.hints import nearest
from pipeline.lineage import SHOWN, Lineage

PLACE = "mergeline://"
"""What the place of a checkpoint begins with where a URI is asked for."""

LEAST = 6
"""Characters of a digest that are taken for one."""

LONGEST = 200
"""Characters of a name that an error repeats."""

TOLD = 4
"""Final models of a run that an error names."""

Runs = Mapping[str, Sequence[tuple[str, str]]]
"""A run's name -> (arm and seed, key) of the model that each of its streams ends with."""


def find_model(lineage: Lineage, text: str, runs: Runs | None = None, asked: Callable[[str], str | None] | None = None) -> str:
    """The key of the step that made the model `text` names.

    `text`: a checkpoint's directory (one outside the store is known by the digest of its files), its place as it was recorded, a key or a
    digest or the beginning of one, or the name or directory of a run, for the model it ends with. `asked` looks elsewhere, for what is
    nothing of these. Raises InputError where nothing, or more than one model, is meant.
    """
    if text.startswith(PLACE):  # as a registered version's source has it
        text = unquote(text.removeprefix(PLACE))
        text = f"sha256:{text.removeprefix('sha256/')}" if text.startswith("sha256/") else text
    place, runs = place_of(text), runs or {}
    if place is not None and (place / "run.json").is_file() and place.name in runs:
        return stored(lineage, place.name, final_of(runs, place.name))
    if place is not None:
        return by_place(lineage, place)
    if text in runs:
        return stored(lineage, text, final_of(runs, text))
    wanted, written = text.removeprefix("sha256:"), text.rstrip("/")
    found = [key for key in lineage.models if key == text] or [key for key, model in lineage.models.items() if model.place == written]
    found = found or [
        key for key, model in lineage.models.items() if key.startswith(text) or (len(wanted) >= LEAST and model.digest.startswith(wanted))
    ]
    if len({lineage.models[key].digest for key in found}) > 1:
        raise InputError(f"{text!r} begins the names of {len(found)} models, e.g. {found[0]} and {found[1]}; write more of it")
    if found:
        return first_made(lineage, found)
    if asked is not None and (elsewhere := asked(text)) is not None:
        return elsewhere
    close = nearest(text, [*lineage.models, *runs])
    advice = f"did you mean {close!r}? " if close else ""
    raise InputError(
        f"no model here is called {brief(text)!r}; {advice}give a step's key, sha256:…, a checkpoint's directory or a run's name"
    )


def place_of(text: str) -> Path | None:
    """The directory that a text names, as it is without links; None where there is none, or no file could be called so."""
    try:
        place = Path(text).expanduser()
        return place.resolve() if text and place.is_dir() else None
    except (OSError, RuntimeError, ValueError):
        return None


def by_place(lineage: Lineage, place: Path) -> str:
    """The key of the step whose checkpoint lies at `place`, or has the same files."""
    there = [key for key, model in lineage.models.items() if Path(model.place).exists() and Path(model.place).resolve() == place]
    if there:
        return first_made(lineage, there)
    if not (place / "config.json").is_file():
        raise InputError(f"{place} has no config.json, so it is no checkpoint; name a checkpoint's directory, a step's key or sha256:…")
    digest = manifest_digest(directory_manifest(place))
    same = [key for key, model in lineage.models.items() if model.digest == digest]
    if same:
        return first_made(lineage, same)
    raise InputError(f"{place} (sha256:{digest[:SHOWN]}) is no checkpoint that is known here, nor a copy of one; name its --workspace")


def stored(lineage: Lineage, run: str, key: str) -> str:
    """The key of the model that a run ends with; InputError where that is not there, or not any more."""
    if key not in lineage.models:
        raise InputError(f"{run} ends with {key}, which is not stored: run it (again) to its end, or name a model that is there by its key")
    return key


def first_made(lineage: Lineage, keys: Sequence[str]) -> str:
    """Of steps whose checkpoints are the same bytes, the one that was done first: the others chose or made it again."""
    return min(keys, key=lambda key: (lineage.models[key].finished, key))


def final_of(runs: Runs, name: str) -> str:
    """The key of the model that a run ends with; InputError where it ends with several."""
    finals = dict(runs[name])
    if len(set(finals.values())) == 1:
        return next(iter(finals.values()))
    if not finals:
        raise InputError(f"{name} names no model that it ends with; name one by its step's key, sha256:… or directory")
    told = "\n".join(f"  {stream}: {key}" for stream, key in list(finals.items())[:TOLD])
    more = f"\n  and {len(finals) - TOLD} more" if len(finals) > TOLD else ""
    raise InputError(f"{name} ends with {len(set(finals.values()))} models; name one of them by its key:\n{told}{more}")


def runs_of(workspace: Path) -> dict[str, list[tuple[str, str]]]:
    """The runs of a workspace, by what they left: the model that each arm and seed ends with. Reports on several runs are none."""
    found = {}
    for path in sorted(workspace.glob("runs/*/run.json")):
        try:
            rows = json.loads(path.read_text())["milestones"]
            ends = {stream_name(row["arm"], row["seed"]): row["model"] for row in rows if row["role"] == "after"}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read as a run ({error}); run the experiment again to write it anew") from error
        found[path.parent.name] = list(ends.items())
    return found


def stream_name(arm: str, seed: int) -> str:
    """One arm and seed in words."""
    return f"{arm}, seed {seed}"


def find_data(lineage: Lineage, text: str) -> tuple[str, tuple[str, ...]] | None:
    """(name, digests) of the data set that `text` names, by its name or by the beginning of its digest; None where there is none."""
    known = lineage.data_sets()
    if text in known:
        return text, known[text]
    wanted = text.removeprefix("sha256:")
    found = [(name, digest) for name, digests in known.items() for digest in digests if len(wanted) >= LEAST and digest.startswith(wanted)]
    if len({digest for _, digest in found}) > 1:
        raise InputError(f"{text!r} begins the digests of {len(found)} data sets, e.g. of {found[0][0]}; write more of it")
    return (found[0][0], (found[0][1],)) if found else None


def need_data(lineage: Lineage, text: str) -> tuple[str, tuple[str, ...]]:
    """As `find_data`; InputError where no model rests on such data."""
    found = find_data(lineage, text)
    if found is None:
        close = nearest(text, list(lineage.data_sets()))
        advice = f"did you mean {close!r}?" if close else f"known: {', '.join(lineage.data_sets()) or 'none'}"
        raise InputError(f"--data {text}: no model here rests on data of that name; {advice}")
    return found


def brief(text: str) -> str:
    """A name as an error repeats it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
