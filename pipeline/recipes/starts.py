"""The modality-expert model an experiment starts from, as a step, and what is known of its shape before anything runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from foundation.files import directory_manifest, file_sha256, manifest_digest
from pipeline.config.pair_settings import ModalityStream, PairStage
from pipeline.step import Step
from pipeline.steps import DIGESTS_FILE, StartExperts, pretrained


@dataclass(frozen=True)
class Model:
    """A step that makes a modality-expert model, and the shape that the model has."""

    step: Step
    sharing: str = "shared"
    heads: tuple[str, ...] = ()
    image_size: int | None = None
    token_types: int = 2
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def starting_experts(c: ModalityStream, seed: int, store: Path) -> Model:
    """The model that the experiment names: a checkpoint as it is, or one made with the heads that its first stage needs."""
    start = c.model
    if start.checkpoint is not None:
        shape = shape_of(Path(start.checkpoint).expanduser())
        return Model(pretrained(start.checkpoint, store / DIGESTS_FILE), **shape)
    first = next(stage for stage in c.in_order() if stage is not None)
    config = {**start.config, **(start.new or {}), **shape_for(c, first)}
    source = start.beit or start.vlmo
    places = {name: str(Path(text).expanduser().absolute()) for name, text in (("source", source), ("tokenizer", start.tokenizer)) if text}
    step = StartExperts(
        start.origin,
        seed,
        config,
        source=digest_of(places.get("source")),
        tokenizer=digest_of(places.get("tokenizer")),
        copy_to_experts=start.copy_to_experts,
        source_place=places.get("source", ""),
        tokenizer_place=places.get("tokenizer", ""),
    )
    shape = {name: config[name] for name in ("sharing", "image_size", "token_types") if name in config}
    return Model(step, heads=tuple(config["heads"]), choices=c.choices(first), **shape)


def check_start(c: ModalityStream) -> None:
    """InputError unless what the model is made from is there, and a checkpoint is one of a modality-expert model. Reads no weights."""
    start = c.model
    if start.checkpoint is not None:
        shape_of(Path(start.checkpoint).expanduser())
    for text in (start.beit, start.vlmo, start.tokenizer):
        if text is not None:
            existing(text)


def existing(place: str) -> Path:
    """The path; InputError if nothing is there."""
    path = Path(place).expanduser()
    if not path.exists():
        raise InputError(f"{place} does not exist; give the path of the weights or of the tokenizer that the model is made from")
    return path


def shape_for(c: ModalityStream, stage: PairStage) -> dict[str, Any]:
    """The keys of a configuration that let a model take up a stage."""
    size = {} if stage.image_size is None else {"image_size": stage.image_size}
    types = {"token_types": 3} if "nlvr2" in stage.heads else {}
    return {"heads": list(stage.heads), **size, **types, **{word: list(words) for word, words in c.choices(stage).items()}}


def shape_of(directory: Path) -> dict[str, Any]:
    """The shape that the config.json of a checkpoint tells, as fields of `Model`; InputError where it is of another kind of model."""
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory} has no config.json, so it is no checkpoint; name the directory of a modality-expert model")
    try:
        config: Mapping[str, Any] = json.loads((directory / "config.json").read_text())
        if config.get("model_type") != "modality_experts":
            raise InputError(
                f"{directory} holds a model of type {config.get('model_type')!r}, not a modality-expert model; "
                "start from one of this project's directories, or from model: {beit: …} or {vlmo: …}"
            )
        told = {name: config[name] for name in ("sharing", "image_size", "token_types")}
        choices = {word: tuple(config[word]) for word in ("answers", "classes") if config.get(word)}
        return {**told, "heads": tuple(config["heads"]), "choices": choices}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{directory}: its config.json cannot be read ({error}); copy the checkpoint again") from error


def digest_of(place: str | None) -> str:
    """SHA-256 of a file, or over the files of a directory; empty where there is none."""
    if place is None:
        return ""
    path = existing(place)
    return f"sha256:{file_sha256(path) if path.is_file() else manifest_digest(directory_manifest(path))}"
