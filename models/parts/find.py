"""Look selections up in a model in memory. What cannot be honoured exactly is refused.

That is: a selection that matches nothing, one that would need half of a fused tensor, a block whose projections have names that are not
known, two selections with weights in common.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import combinations
from typing import TYPE_CHECKING

from foundation.errors import InputError
from models.parts.layouts import BLOCKS, LAYOUTS, roles_of
from models.parts.names import Names, names_of, plain_name
from models.parts.selections import RESAMPLER, WHOLE_MLP, Inside, Role, Selection, parse_selection

if TYPE_CHECKING:
    from torch import nn

SHOWN = 3


def find(selection: Selection, names: Names) -> set[str]:
    """The plain names that `selection` takes; InputError where it matches none or cannot be honoured exactly."""
    if selection.pattern is not None:
        found = {name for name in names.plain if selection.pattern.fullmatch(name)}
    elif selection.inside is not None:
        found = find_inside(selection.text, selection.inside, names)
    elif selection.last is not None or selection.all_but_last is not None:
        found = find_layers(selection, names)
    else:
        found = {name for name, part in names.parts.items() if part == selection.part}
    if not found:
        raise InputError(nothing_found(selection, names))
    return found


def find_inside(text: str, wanted: Inside, names: Names) -> set[str]:
    """The weights of a block with the wanted roles, in every layer of the part."""
    places = names.layers(wanted.part)
    block = {name: rest for name, (_, rest) in places.items() if rest.split(".")[0] in BLOCKS[wanted.block]}
    without = {layer for layer, _ in places.values()} - {places[name][0] for name in block}
    if block and without:
        raise InputError(
            f"part {text!r}: layer {min(without)} of {names.title} has no {wanted.block} by a name that is known "
            f"({', '.join(BLOCKS[wanted.block])}); choose its weights by pattern (regex:...)"
        )
    if wanted.roles == WHOLE_MLP:
        return set(block)
    found = set()
    for name, rest in block.items():
        roles = roles_of(rest, wanted.block)
        if roles is None:
            raise InputError(
                f"part {text!r}: what {name!r} of {names.title} does in its {wanted.block} is not known; "
                "choose its weights by pattern (regex:...)"
            )
        if roles & wanted.roles and not roles <= wanted.roles:
            raise InputError(
                f"part {text!r} wants {in_order(wanted.roles)}, but {names.title} holds {in_order(roles)} in one tensor, "
                f"{name!r}; a part of a tensor cannot be frozen: name a part that takes all of it"
            )
        if roles & wanted.roles:
            found.add(name)
    return found


def in_order(roles: frozenset[Role]) -> str:
    """Roles as they are listed in `Role`."""
    return ", ".join(role for role in Role if role in roles)


def find_layers(selection: Selection, names: Names) -> set[str]:
    """The last N layers, or the ones before, with all of the language model that is in no layer."""
    whole = {name for name, part in names.parts.items() if part == selection.part}
    places = names.layers(selection.part or "")
    layers = 1 + max((layer for layer, _ in places.values()), default=-1)
    count = selection.last or selection.all_but_last or 0
    if count > layers:
        raise InputError(f"part {selection.text!r}: {names.title} has {layers} numbered layers; give a count up to that")
    chosen = range(layers - count, layers) if selection.last else range(layers - count)
    return {name for name in whole if name not in places or places[name][0] in chosen}


def nothing_found(selection: Selection, names: Names) -> str:
    """The sentence for a selection that matches no parameter: what the model has, and what the user may have meant."""
    if selection.part == RESAMPLER:
        families = sorted(family for family, layout in LAYOUTS.items() if layout.resampler)
        return f"part {RESAMPLER!r}: {names.title} has no resampler; leave it out (families with one: {', '.join(families)})"
    has = sorted({part for part in names.parts.values() if part})
    told = f"part {selection.text!r} matches no parameter of {names.title}; it has {', '.join(has)}"
    if selection.pattern is None:
        return f"{told}, with names such as {names.plain[0]!r} and {names.plain[-1]!r}; name a part it has in mm_tunable_parts"
    for name, owner in names.tied.items():
        if selection.pattern.fullmatch(name):
            return f"part {selection.text!r}: {name!r} of {names.title} is tied to {owner!r}, which holds the weights; name that one"
    forms = sorted({re.sub(r"\d+", "0", name) for name in names.plain})
    pattern = re.sub(r"\d+", "0", selection.text.partition(":")[2].replace("\\", ""))
    close = get_close_matches(pattern, forms, n=SHOWN, cutoff=0.3) or forms[:SHOWN]
    return f"{told}; names in memory (on disk they may differ) are such as {', '.join(map(repr, close))}"


def selected(model: "nn.Module", parts: Sequence[str]) -> dict[str, list[str]]:
    """Names of the parameters that each of `parts` selects, sorted; InputError for one that matches none, or two that overlap.

    `model` may be wrapped; the names are those of its own `named_parameters()`. A tied weight has one name and counts once.
    """
    names = names_of(model)
    found = {part: find(parse_selection(part), names) for part in parts}
    for (first, mine), (second, other) in combinations(found.items(), 2):
        if both := sorted(mine & other):
            raise InputError(
                f"parts {first!r} and {second!r} have {len(both)} parameters of {names.title} in common, e.g. {both[0]!r}; "
                "choose parts without weights in common"
            )
    own: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        own.setdefault(plain_name(name), []).append(name)
    return {part: sorted(name for plain in chosen for name in own[plain]) for part, chosen in found.items()}


def parameters_of(model: "nn.Module", part: str) -> list[str]:
    """Names in memory of the parameters of one selection, sorted; InputError where the model has none."""
    return selected(model, [part])[part]


def tunable_parameters(model: "nn.Module", parts: Sequence[str]) -> list[str]:
    """Names in memory of the parameters that `parts` select, sorted; InputError as `selected`."""
    return sorted(name for names in selected(model, parts).values() for name in names)
