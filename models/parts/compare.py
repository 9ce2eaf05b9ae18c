"""Which selections share weights, as far as their words tell: so that a contradiction is refused before a model is there.

Patterns, and layers beside blocks, are compared in a model (`find.py`).
"""

from collections.abc import Sequence
from itertools import combinations

from foundation.errors import ConfigError
from models.parts.selections import INSIDE, Inside, Selection, parse_selection


def check_apart(selections: Sequence[Selection], where: str = "mm_tunable_parts") -> None:
    """ConfigError where two selections name the same weights, as far as their words tell; patterns are compared in a model."""
    for first, second in combinations(sorted(selections, key=lambda one: one.text), 2):
        if first.text == second.text:
            raise ConfigError(f"{where}: part {first.text!r} is named twice; name it once")
        for holder, held in ((first, second), (second, first)):
            if holds(holder, held):
                raise ConfigError(f"{where}: {holder.text!r} already holds {held.text!r}; name only one of them")
        if surely_overlap(first, second):
            raise ConfigError(f"{where}: {first.text!r} and {second.text!r} have weights in common; {instead(first, second)}")


def holds(holder: Selection, held: Selection) -> bool:
    """Whether all of `held` is in `holder`, by their words."""
    if holder.part is None or holder.part != held.part:
        return False
    if holder.inside and held.inside:
        return holder.inside.block == held.inside.block and holder.inside.roles >= held.inside.roles
    return holder.whole


def surely_overlap(first: Selection, second: Selection) -> bool:
    """Whether the words alone tell that two selections share weights."""
    if first.part is None or first.part != second.part:
        return False
    if first.inside and second.inside:
        return first.inside.block == second.inside.block and bool(first.inside.roles & second.inside.roles)
    if first.inside or second.inside:  # `all_but_last_layers(N)` may leave no layer, which the model tells
        return first.all_but_last is None and second.all_but_last is None
    return True


def surely_apart(first: Selection, second: Selection) -> bool:
    """Whether the words alone tell that two selections share nothing."""
    if first.part is None or second.part is None:
        return False
    if first.part != second.part:
        return True
    if first.inside and second.inside:
        return first.inside.block != second.inside.block or not first.inside.roles & second.inside.roles
    return False


def both_at_once(first: Selection, second: Selection) -> str | None:
    """The selection of the table that takes just what two selections within one block take together, if there is one."""
    if first.inside is None or second.inside is None or first.inside.block != second.inside.block:
        return None
    together = Inside(first.inside.part, first.inside.block, first.inside.roles | second.inside.roles)
    return next((text for text, inside in INSIDE.items() if inside == together), None)


def instead(first: Selection, second: Selection) -> str:
    """What to write in place of two selections that overlap."""
    if both := both_at_once(first, second):
        return f"write {both} for both, or keep one of them"
    return "keep one of them, or choose weights by pattern (regex:...)"


def check_rated(parts: Sequence[str], rated: Sequence[str], where: str = "learning rates") -> None:
    """ConfigError where a selection in `rated` (with a learning rate of its own) is unknown, shares weights with another, or, by their

    words, with none of `parts` (what is trained). What words cannot tell, `trainers.parameter_groups` refuses with the model at hand.
    """
    selections = [parse_selection(text, where) for text in rated]
    check_apart(selections, where)
    trained = [parse_selection(text) for text in parts]
    for selection in selections:
        if all(surely_apart(selection, part) for part in trained):
            raise ConfigError(
                f"{where}: {selection.text} has a rate of its own but is not trained (trained: {', '.join(parts)}); "
                "leave the rate out, or train the part"
            )
