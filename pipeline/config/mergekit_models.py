"""The models that a mergekit file lists, in `models` or in `slices`, and where the parameters of each are to be looked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.hints import unknown
from pipeline.config.complaints import is_what
from pipeline.config.yaml_file import Place, YamlFile

OWN_ORDER = "layers are merged each with its like here, none left out, repeated or moved (layer surgery is not merging)"
SLICEWISE = "give one slice over all layers, with a gradient or filters, or models"


@dataclass(frozen=True)
class Entry:
    """A model of the file: its text, where its own parameters stand, and where those of the slice and of the merge do, nearest first."""

    text: str
    own: Place
    outer: tuple[Place, ...]

    @property
    def scopes(self) -> tuple[Place, ...]:
        """Everywhere, nearest first."""
        return (self.own, *self.outer)


def entries_of(file: YamlFile) -> tuple[list[Entry], tuple[int, int] | None]:
    """The models in the file's order, and the layers that slices take of them (None: all)."""
    given = [key for key in ("models", "slices") if file.value((key,)) is not None]
    if len(given) != 1:
        raise file.error((given[-1],) if given else (), "a merge lists either models or slices; give one, e.g. models: [{model: path}]")
    (key,) = given
    count = len(list_at(file, (key,)))
    return slices(file, count) if key == "slices" else ([entry(file, (key, index), ()) for index in range(count)], None)


def entry(file: YamlFile, place: Place, outer: tuple[Place, ...], keys: tuple[str, ...] = ("model", "parameters")) -> Entry:
    """One model."""
    if "model" not in mapping_at(file, place, keys):
        raise file.error(place, "no model is named here; add model: path/or/hub-id")
    return Entry(reference(file, (*place, "model")), (*place, "parameters"), (*outer, ("parameters",)))


def slices(file: YamlFile, count: int) -> tuple[list[Entry], tuple[int, int]]:
    """The models of slices that go on from layer to layer with the same models, and the layers they take in all."""
    found: list[list[Entry]] = []
    end = 0
    for index in range(count):
        place: Place = ("slices", index)
        mapping_at(file, place, ("sources", "base_model", "parameters"))
        if file.value((*place, "base_model")) not in (None, file.value(("base_model",))):
            raise file.error((*place, "base_model"), "a slice cannot have a base of its own here; give one base_model for the whole merge")
        sources = [(*place, "sources", number) for number in range(len(list_at(file, (*place, "sources"))))]
        found.append([entry(file, source, ((*place, "parameters"),), ("model", "parameters", "layer_range")) for source in sources])
        end = last_layer(file, sources, end)
        if [one.text for one in found[-1]] != [one.text for one in found[0]]:
            raise file.error(place, f"this slice takes other models than the first; {OWN_ORDER}: list the same ones in the same order")
    if count > 1:
        refuse_slicewise(file, found)
    return found[0], (0, end)


def last_layer(file: YamlFile, sources: Sequence[Place], expected: int) -> int:
    """Where the range ends that all sources of a slice share; ConfigError unless it begins at layer `expected`."""
    ranges = []
    for place in sources:
        found = file.value((*place, "layer_range"))
        if not isinstance(found, list) or len(found) != 2 or any(type(number) is not int for number in found):
            raise file.error((*place, "layer_range"), f"layer_range {is_what(found)}; give the first layer and the one after the last")
        ranges.append(found)
        if found != ranges[0]:
            raise file.error((*place, "layer_range"), f"layer_range is {found} here, {ranges[0]} for the first source; {OWN_ORDER}")
    first, end = ranges[0]
    if first != expected or end <= first:
        raise file.error((*sources[0], "layer_range"), f"layer_range is {ranges[0]}, but layer {expected} comes next; {OWN_ORDER}")
    return int(end)


def refuse_slicewise(file: YamlFile, found: Sequence[Sequence[Entry]]) -> None:
    """ConfigError for what would differ from slice to slice."""
    for scope in dict.fromkeys(scope for entries in found for one in entries for scope in one.scopes[:-1]):
        if file.value(scope):
            raise file.error(scope, f"parameters of its own cannot be had for one of several slices; {SLICEWISE}")
    for name, value in (file.value(("parameters",)) or {}).items():
        values = [each.get("value") if isinstance(each, Mapping) else each for each in value] if isinstance(value, list) else []
        if any(isinstance(each, list) for each in values) or (values and not any(isinstance(each, Mapping) for each in value)):
            raise file.error(("parameters", name), f"mergekit begins a gradient anew in each of several slices; {SLICEWISE}")


def reference(file: YamlFile, place: Place) -> str:
    """A model's text; mergekit also takes {model: {path, revision}, lora: {path, revision}}."""
    found = file.value(place)
    if isinstance(found, Mapping):
        mapping_at(file, place, ("model", "lora"))
        return "+".join(revised(file, (*place, key)) for key in ("model", "lora") if found.get(key) is not None)
    return text_at(file, place)


def revised(file: YamlFile, place: Place) -> str:
    """A path, with its revision if it has one."""
    found = file.value(place)
    if not isinstance(found, Mapping):
        return text_at(file, place)
    mapping_at(file, place, ("path", "revision"))
    return text_at(file, (*place, "path")) + (f"@{text_at(file, (*place, 'revision'))}" if found.get("revision") is not None else "")


def mapping_at(file: YamlFile, place: Place, keys: Sequence[str]) -> Mapping[str, Any]:
    """The mapping at a place; ConfigError unless it is one and has only these keys."""
    found = file.value(place)
    if not isinstance(found, Mapping):
        raise file.error(place, f"{spelled(place)} {is_what(found)}; give keys and values: {', '.join(keys)}")
    strange = next((key for key in found if key not in keys), None)
    if strange is not None:
        raise file.error((*place, strange), unknown("key", strange, keys))
    return found


def list_at(file: YamlFile, place: Place) -> list[Any]:
    """The list at a place; ConfigError unless it is one, not empty."""
    found = file.value(place)
    if not isinstance(found, list) or not found:
        raise file.error(place, f"{spelled(place)} {is_what(found)}; give a list of at least one")
    return found


def text_at(file: YamlFile, place: Place) -> str:
    """The text at a place; ConfigError unless it is one, not empty."""
    found = file.value(place)
    if not isinstance(found, str) or not found:
        raise file.error(place, f"{spelled(place)} {is_what(found)}; give text, e.g. a path or hub id")
    return found


def spelled(place: Place) -> str:
    """The last key, with its number in a list."""
    return str(place[-1]) if isinstance(place[-1], str) else f"{place[-2]}[{place[-1]}]"
