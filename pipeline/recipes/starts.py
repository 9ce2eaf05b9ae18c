"""The modality-expert model an experiment starts from, as a step, and what is known of its shape before anything runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foundation.errors import ConfigError, InputError
from foundation.files import directory_manifest, file_sha256, manifest_digest
from pipeline.config.model_settings import ModelSizes
from pipeline.config.pair_settings import ModalityStream, PairStage
from pipeline.step import Step
from pipeline.steps import DIGESTS_FILE, StartExperts, pretrained

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


@dataclass(frozen=True)
class Model:
    """A step that makes a modality-expert model, and the shape that the model has."""

    step: Step
    sharing: str = "shared"
    heads: tuple[str, ...] = ()
    image_size: int | None = None
    token_types: int = 2
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def starting_experts(c: ModalityStream, seed: int, store: Path | None) -> Model:
    """The model that the experiment names: a checkpoint as it is, or one made with the heads that its first stage needs.

    Without a `store`, to see whether an experiment can be planned: no digest is taken, so the step is none to run.
    """
    start = c.model
    if start.checkpoint is not None:
        shape = shape_of(Path(start.checkpoint).expanduser())
        if store is None:
            return Model(StartExperts(start.origin, seed, source_place=start.checkpoint), **shape)
        return Model(pretrained(start.checkpoint, store / DIGESTS_FILE), **shape)
    first = next(iter(c.stages.values()), None)
    if first is None:
        raise ConfigError(f"model: {start.origin} is a model that has learned nothing; add fine_tune, or start from a checkpoint")
    config = {**start.sizes, **shape_for(c, first)}
    source = start.beit or start.vlmo
    places = {name: str(Path(text).expanduser().absolute()) for name, text in (("source", source), ("tokenizer", start.tokenizer)) if text}
    step = StartExperts(
        start.origin,
        seed,
        config,
        source=digest_of(places.get("source")) if store else "",
        tokenizer=digest_of(places.get("tokenizer")) if store else "",
        copy_to_experts=start.copy_to_experts,
        source_place=places.get("source", ""),
        tokenizer_place=places.get("tokenizer", ""),
    )
    shape = {name: config[name] for name in ("sharing", "image_size", "token_types") if name in config}
    return Model(step, heads=tuple(config["heads"]), choices=c.choices(first), **shape)


def check_start(c: ModalityStream) -> int | None:
    """The pixels of the model's patches, where its config tells; InputError unless what the model is made from is there."""
    start = c.model
    if start.checkpoint is not None:
        place = Path(start.checkpoint).expanduser()
        shape_of(place)
        if not has_words(place):
            raise InputError(f"{place} has none of {', '.join(TOKENIZER_FILES)}, so its words are not known; copy the checkpoint again")
        told: int | None = json.loads((place / "config.json").read_text()).get("patch_size")
        return told
    if start.vlmo is not None and existing(start.vlmo).is_dir():
        raise InputError(f"{start.vlmo} is a directory; give the .ckpt file in it")
    if start.beit is not None and not (existing(start.beit) / "config.json").is_file():
        raise InputError(f"{start.beit} has no config.json, so it is no checkpoint; name the directory of a BEiT model")
    if start.tokenizer is not None and not has_words(existing(start.tokenizer)):
        raise InputError(f"{start.tokenizer} has none of {', '.join(TOKENIZER_FILES)}; name the directory of a tokenizer")
    return start.patch_size


def has_words(directory: Path) -> bool:
    """Whether the words of a tokenizer are there; without them one of special tokens alone would be read."""
    return any((directory / name).is_file() for name in TOKENIZER_FILES)


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
        sizes = ModelSizes.model_validate({name: config[name] for name in ModelSizes.model_fields if name in config}).given
        told = {name: sizes[name] for name in ("sharing", "image_size", "token_types")}
        choices = {word: tuple(config[word]) for word in ("answers", "classes") if config.get(word)}
        return {**told, "heads": tuple(config["heads"]), "choices": choices}
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{directory}: its config.json has {first['loc'][0]}: {first['input']!r}; copy the checkpoint again") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{directory}: its config.json cannot be read ({error}); copy the checkpoint again") from error


def digest_of(place: str | None) -> str:
    """SHA-256 of a file, or over the files of a directory; empty where there is none."""
    if place is None:
        return ""
    path = existing(place)
    return f"sha256:{file_sha256(path) if path.is_file() else manifest_digest(directory_manifest(path))}"
