"""Every key of every form a user can write, mistyped by one edit: all refused, and nearly all with the right key named.

`MERGELINE_TYPOS` is how many typos each key gets (default 1, at most 4: a letter left out, put in, changed, and two swapped).
"""

import os
import random
import string
from collections import Counter
from collections.abc import Iterator
from typing import Any

from foundation.errors import ConfigError
from mergers.table import ROWS
from pipeline.config.complaints import _places_of
from pipeline.config.kinds import Settings, validated
from pipeline.config.merge_file import form_of
from pipeline.config.merge_values import knobs_of
from pipeline.config.suite_file import SuiteFile
from pipeline.config.yaml_file import YamlFile
from pipeline.recipes import RECIPES

PER_KEY = int(os.environ.get("MERGELINE_TYPOS", "1"))
RIGHT = 0.95
"""The share of typos whose message names the key that was meant; the others are nearer to another key, as `set` is to `sets`."""


def typos(word: str, chance: random.Random) -> list[str]:
    """The word with one edit of each kind."""
    inside, letter = chance.randrange(len(word)), chance.choice(string.ascii_lowercase)
    swapped = min(inside, len(word) - 2)
    found = [
        word[:inside] + word[inside + 1 :],
        word[:inside] + letter + word[inside:],
        word[:inside] + letter + word[inside + 1 :],
        word[:swapped] + word[swapped + 1] + word[swapped] + word[swapped + 2 :] if len(word) > 1 else word,
    ]
    chance.shuffle(found)
    return list(dict.fromkeys(typo for typo in found if typo not in ("", word)))


def forms() -> Iterator[tuple[str, Any]]:
    """Every pydantic model that a file is read with: recipes, suites, and a merge by each method."""
    yield from ((name, recipe.config) for name, recipe in RECIPES.items())
    yield "a suite", SuiteFile
    yield from ((f"merge by {method}", form_of(method, knobs_of(method))) for method in ROWS)


def refusal(model: type[Settings], group: str, typo: str) -> str | None:
    """What is said of a file in which `typo` stands in `group`; None if it is taken."""
    data: dict[str, Any] = {}
    place = data
    for part in group.split(".") if group else ():
        place = place.setdefault("any" if part == "<name>" else part, {})
    place[typo] = 1
    try:
        validated(model, YamlFile("f.yaml", data), relatives={name: recipe.config for name, recipe in RECIPES.items()})
    except ConfigError as error:
        return str(error)
    return None


def test_every_key_mistyped_is_refused_and_nearly_always_understood() -> None:
    counts, taken, misled = Counter[str](), [], []
    for name, model in forms():
        places = _places_of(model)
        for group, key in places:
            known = {other for where, other in places if where == group}
            tried = [typo for typo in typos(key, random.Random(f"{name} {group} {key}")) if typo not in known]
            for typo in tried[:PER_KEY]:
                told = refusal(model, group, typo)
                counts["tried"] += 1
                counts["right"] += told is not None and f"did you mean {key!r}" in told
                if told is None:
                    taken.append((name, group, typo))
                elif f"did you mean {key!r}" not in told:
                    misled.append((name, group, key, typo))
    share = counts["right"] / counts["tried"]
    print(f"typos: {counts['tried']} tried, {len(taken)} taken, {share:.1%} with the key that was meant; the others, e.g. {misled[:5]}")
    assert taken == []
    assert share >= RIGHT, misled
    assert counts["tried"] > 1000 * PER_KEY
