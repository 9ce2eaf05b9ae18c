"""How deep a tensor lies in its model, from its name alone.

In `model.layers.7.mlp.up_proj.weight` of a model whose `model.layers.` end at 21 it is 7/21. Every tower (language model, vision tower)
numbers its own layers. What lies outside numbered layers has depth 0.
"""

from collections.abc import Iterable, Iterator


def depths(names: Iterable[str]) -> dict[str, float]:
    """Tensor name -> how deep its layer lies in its tower, from 0 to 1; 0 for tensors outside numbered layers.

    A tower is a prefix under which names go on with every number from 0 to some highest, at least 1: so not a projector whose linear layers
    are called 0 and 2. Of several numbers in a name the first that counts layers is taken (an expert's number follows its layer's).
    """
    places = {name: list(numbers_in(name)) for name in names}
    highest = towers(places)
    return {name: next((number / highest[prefix] for prefix, number in found if prefix in highest), 0.0) for name, found in places.items()}


def towers(names: Iterable[str]) -> dict[str, int]:
    """The prefix of each tower of layers -> its highest layer."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        for prefix, number in numbers_in(name):
            numbers.setdefault(prefix, set()).add(number)
    return {prefix: max(found) for prefix, found in numbers.items() if 1 < len(found) == max(found) + 1}


def numbers_in(name: str) -> Iterator[tuple[str, int]]:
    """(what stands before it, number) of each part of a name that is a number."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isascii() and part.isdigit():
            yield ".".join(parts[:index]), int(part)
