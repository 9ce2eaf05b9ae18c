"""The configuration's schema: every key's typo is refused with the right key named, the seed systems' words and defaults hold."""

import string
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from commands import EXPERIMENT, changed
from pydantic import BaseModel

from foundation.errors import ConfigError
from pipeline.config.experiment import read_config
from pipeline.config.kinds import validated
from pipeline.config.train_settings import Train
from pipeline.config.yaml_file import apply_override, parse_yaml
from trainers.spec import TrainSpec


def keys_of(model: type[BaseModel], group: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a configuration, with the groups it stands in."""
    for name, item in model.model_fields.items():
        yield (*group, name)
        if isinstance(item.annotation, type) and issubclass(item.annotation, BaseModel):
            yield from keys_of(item.annotation, (*group, name))


def typos(word: str) -> Iterator[str]:
    """All words one edit away: a letter left out, doubled by another, changed, or two letters swapped."""
    letters = Random(word).sample(string.ascii_lowercase, 3)
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]
        yield word[:place] + word[place + 1 : place + 2] + word[place : place + 1] + word[place + 2 :]
        for letter in letters:
            yield word[:place] + letter + word[place:]
            yield word[:place] + letter + word[place + 1 :]


def test_every_typo_of_every_key_is_refused_and_nearly_all_name_the_right_key(tmp_path: Path) -> None:
    file, config = read_config(write(tmp_path, EXPERIMENT))
    keys = list(keys_of(type(config)))
    assert len(keys) > 40
    tried, named = 0, 0
    for place in keys:
        siblings = {other[-1] for other in keys if other[:-1] == place[:-1]}
        for typo in {word for word in typos(place[-1]) if word and word not in siblings}:
            mistaken = deepcopy(file)
            apply_override(mistaken, f"{'.'.join((*place[:-1], typo))}=1")
            with pytest.raises(ConfigError) as refused:
                validated(type(config), mistaken)
            tried += 1
            named += f"{place[-1]!r}" in str(refused.value).partition("Known")[0]
    assert tried > 1000
    assert named / tried >= 0.95, f"{named} of {tried}"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "e.yaml"
    file.write_text(text)
    return file


def train(**keys: Any) -> TrainSpec:
    return Train(**keys).spec(seed=0)


@pytest.mark.parametrize(
    "words", ["mm_mlp_adapter,mm_language_model", "mm_mlp_adapter, mm_language_model", ["mm_mlp_adapter", "mm_language_model"]]
)
def test_the_seed_words_for_full_tuning(words: str | list[str]) -> None:
    spec = train(mm_tunable_parts=words)
    assert spec.parts == ("language_model", "projector")
    assert spec.learning_rate == 2e-5


def test_the_seed_words_for_tuning_the_mlps_only() -> None:
    spec = train(mm_tunable_parts="mm_language_model", mm_language_model_train_mlp_only=True)
    assert spec.parts == ("language_model.mlp",)
    assert spec.learning_rate == 5e-6


def test_a_learning_rate_that_is_given_is_taken() -> None:
    assert train(learning_rate=3e-4).learning_rate == 3e-4


def test_left_out_is_full_tuning_for_one_epoch_as_in_the_seed() -> None:
    spec = Train().spec(seed=7)
    assert (spec.parts, spec.epochs, spec.max_steps, spec.seed) == (("language_model", "projector"), 1.0, None, 7)


def test_yaml_spells_numbers_and_flags_as_people_do(tmp_path: Path) -> None:
    keys = "  learning_rate: 1e-4\n  mm_tunable_parts: mm_language_model\n  mm_language_model_train_mlp_only: True\n"
    _, config = read_config(write(tmp_path, changed("  max_steps: 8\n", keys)))
    assert config.train.learning_rate == 1e-4
    assert config.train.spec(0).parts == ("language_model.mlp",)


@pytest.mark.parametrize("text", ["a: [b, c]", "a: {b: 1}", "a: 1"])
def test_places_are_lines(text: str) -> None:
    assert parse_yaml(f"\n\n{text}\n", "f").at(("a", "unknown")) == "f:3"
