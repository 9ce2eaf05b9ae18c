"""Views as users write them in YAML: from a plain value to a view, with errors that name the nearest right word.

view: language_model
view: {expert: v, of: [v, l, vl]}
view: {expert: v, of: [v, l, vl], unless: vl}                           # leaves to vl what vl has (or to each of a list)
view: {prefix: {"model.": "model.language_model.", "lm_head.": null}}        # null leaves out
view: {rename: [['^model\\.', ''], ['\\.inv_freq$', null]]}
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers.sources.views import Expert, Identity, LanguageModel, Prefix, Rename, View

WORDS = {"identity": Identity, "language_model": LanguageModel}
KINDS = {"expert": ("expert", "of", "unless"), "prefix": ("prefix",), "rename": ("rename",)}
"""Kind of view -> the keys of its mapping."""
EXAMPLE = "write identity, language_model, {expert: v, of: [v, l, vl]}, {prefix: {from: to}} or {rename: [[pattern, replacement]]}"


def parse_view(value: Any) -> View:
    """The view that a value from YAML or JSON describes; None is the identity. ConfigError for anything else."""
    if value is None:
        return Identity()
    if isinstance(value, str):
        if value in KINDS:
            raise ConfigError(f"view {value!r} says too little; {EXAMPLE}")
        if value not in WORDS:
            raise ConfigError(f"{unknown('view', value, [*WORDS, *KINDS])}; {EXAMPLE}")
        return WORDS[value]()
    if not isinstance(value, Mapping):
        raise ConfigError(f"a view is a word or a mapping, not {value!r}; {EXAMPLE}")
    kinds = [kind for kind in KINDS if kind in value]
    if len(kinds) != 1:
        strange = [key for key in value if key not in KINDS]
        told = (
            f"names {' and '.join(kinds)}, but can be one of them only"
            if kinds
            else unknown("kind", str(strange[0]), KINDS)
            if strange
            else "is empty"
        )
        raise ConfigError(f"view {dict(value)}: {told}; {EXAMPLE}")
    strange = [key for key in value if key not in KINDS[kinds[0]]]
    if strange:
        raise ConfigError(f"view {dict(value)}: {unknown('key', str(strange[0]), KINDS[kinds[0]])}")
    return {"expert": expert, "prefix": prefix, "rename": rename}[kinds[0]](value)


def expert(value: Mapping[str, Any]) -> Expert:
    """{expert: v, of: [v, l, vl]}, and `unless` if it leaves tensors to another expert that has them."""
    name, experts, unless = value["expert"], value.get("of"), value.get("unless", ())
    unless = (unless,) if isinstance(unless, str) else unless
    if not isinstance(name, str) or not is_list(experts) or not all(isinstance(one, str) for one in experts):
        raise ConfigError(
            f"view {dict(value)}: name the expert and, as `of`, all experts of the checkpoint, e.g. {{expert: v, of: [v, l, vl]}}"
        )
    if not is_list(unless) or not all(isinstance(one, str) for one in unless):
        raise ConfigError(f"view {dict(value)}: unless names an expert, or a list of them, to which tensors that it has are left")
    return Expert(name, tuple(experts), tuple(unless))


def prefix(value: Mapping[str, Any]) -> Prefix:
    """{prefix: {from: to}}."""
    pairs = value["prefix"]
    if not isinstance(pairs, Mapping) or not pairs or not all(isinstance(one, str) and is_name(two) for one, two in pairs.items()):
        raise ConfigError(
            f"view {dict(value)}: prefix maps each prefix to the one it is seen as, or to null, e.g. "
            "{prefix: {'model.': 'model.language_model.'}}"
        )
    return Prefix(tuple(pairs.items()))


def rename(value: Mapping[str, Any]) -> Rename:
    """{rename: [[pattern, replacement], ...]}."""
    pairs = value["rename"]
    if (
        not is_list(pairs)
        or not pairs
        or not all(is_list(one) and len(one) == 2 and isinstance(one[0], str) and is_name(one[1]) for one in pairs)
    ):
        raise ConfigError(
            f"view {dict(value)}: rename lists pairs of a regular expression and its replacement, or null, e.g. "
            "{rename: [['^model\\.', '']]}"
        )
    return Rename(tuple((one, two) for one, two in pairs))


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list, and not a text."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_name(value: Any) -> bool:
    """Whether a value can stand for a name: a text, or None for what is left out."""
    return value is None or isinstance(value, str)
