"""mergekit's YAML files, read unchanged for the methods of `mergekit_methods.py`.

What is the same: `models`, or `slices` that together take all layers of the models in order; `base_model`, `path@revision+adapter`;
parameters at the model before those of the slice, those before the whole file's; a number, a gradient over the layers, or a list of
`filter` and `value` of which the first that matches counts. Tensors outside the layers take a gradient's first value, as in mergekit.

What is stricter: what mergekit passes over in silence (an unknown key, a parameter that the method does not use, a filter that matches no
tensor) is an error, and so are layers in another order or number, `modules`, tokens of one's own and chat templates.

`dtype` and `out_dtype`: mergekit loads and computes in `dtype`, and writes `out_dtype`, else `dtype`, else what the files have. The same is
written here, but computed in float32 (float64 for float64 files) from the values on disk. Each method's own differences are noted in the
plan.
"""

from collections.abc import Sequence
from typing import Any

from foundation.hints import unknown
from mergers.checkpoints.vocabulary import KEYWORDS
from pipeline.config.complaints import is_what
from pipeline.config.merge_request import DTYPES, MergeRequest, SourceRequest
from pipeline.config.merge_values import build
from pipeline.config.mergekit_methods import MERGEKIT, OTHERS, Base, Shared
from pipeline.config.mergekit_models import Entry, entries_of, mapping_at, reference, text_at
from pipeline.config.mergekit_values import check_parameters, values_of
from pipeline.config.yaml_file import YamlFile

TOP = (
    "merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source", "tokenizer",
)  # fmt: skip
REFUSED = {
    "modules": "a model is merged as a whole here, its towers with it; write models in place of modules",
    "chat_template": "the output takes the chat template of its base, else of its first model; remove this line, and write another into "
    "the output as chat_template.jinja",
}
TOKENS = "a token that a model lacks takes the row of the first that has it, rows of no token are kept; mergekit averages and drops them"
COMPUTED = "computed in float32 and rounded once, where mergekit computes in {dtype}"


def read_mergekit(file: YamlFile) -> MergeRequest:
    """The merge that a mergekit file asks for; ConfigError with lines for what cannot be had. Opens no checkpoint."""
    for key, advice in REFUSED.items():
        if key in file.data:
            raise file.error((key,), f"{key}: {advice}")
    strange = next((key for key in file.data if key not in TOP), None)
    if strange is not None:
        raise file.error((strange,), unknown("key", strange, TOP))
    name, method = method_of(file)
    entries, layers = entries_of(file)
    check_parameters(file, name, method, entries)
    named = reference(file, ("base_model",)) if file.value(("base_model",)) is not None else None
    sources, base = roles(file, name, method, entries, named)
    values, normalized = values_of(file, name, method, sources)
    texts = [entry.text for entry in sources]
    names = names_of(texts)
    dtype = dtype_of(file)
    return MergeRequest(
        merger=build(method.ours, values, normalized),
        sources=tuple(map(SourceRequest, names, texts)),
        base=SourceRequest("base", base) if base else None,
        files_from=names[texts.index(named)] if named in texts else None,
        dtype=DTYPES[dtype] if dtype else None,
        tokenizer_source=tokenizer_of(file, dict(zip(texts, names, strict=True)), base, named),
        pad_to_multiple_of=padding_of(file),
        layers=layers,
        notes=notes_of(file, method, values),
    )


def method_of(file: YamlFile) -> tuple[str, Shared]:
    """The method of a file; ConfigError if it is not among those here."""
    name = file.data.get("merge_method")
    if name in OTHERS:
        raise file.error(("merge_method",), f"mergekit's {name} is not among the methods here: {OTHERS[str(name)]}")
    if name not in MERGEKIT:
        raise file.error(("merge_method",), unknown("merge_method", str(name), MERGEKIT))
    return str(name), MERGEKIT[str(name)]


def roles(file: YamlFile, name: str, method: Shared, entries: list[Entry], base: str | None) -> tuple[list[Entry], str | None]:
    """The sources in our method's order, and the base checkpoint if it works with one."""
    listed = [entry for entry in entries if entry.text == base]
    others = [entry for entry in entries if entry.text != base]
    if base is None and method.base in (Base.ANCHOR, Base.FIRST):
        raise file.error(("merge_method",), f"{name} needs a base_model; add base_model: path/or/hub-id")
    if method.base is Base.FILES:
        if base is not None and not listed:
            raise file.error(
                ("base_model",), f"{name} measures nothing from a base, and '{base}' is not among its models; remove base_model, or list it"
            )
        if name == "passthrough" and len(entries) != 1:
            raise file.error(("models",), f"passthrough takes one model as it is, got {len(entries)}; to merge them choose a method")
        return entries * 2 if name == "passthrough" else entries, None
    if not others:
        raise file.error(("models",), f"there is nothing to merge into the base '{base}'; list another model")
    if method.base is Base.FIRST:
        if len(others) != 1:
            raise file.error(("merge_method",), f"{name} merges base_model with exactly one other model, got {len(others)} others")
        first = listed[0] if listed else Entry(str(base), ("base_model",), others[0].outer)
        return [first, others[0]], None
    return others, base


def names_of(texts: Sequence[str]) -> list[str]:
    """A short name for each model, no two alike, none that means something by itself (`base`)."""
    short = [text.rstrip("/").rpartition("/")[2] or text for text in texts]
    numbered = [short.count(name) > 1 or name in KEYWORDS for name in short]
    return [f"{name} ({short[: index + 1].count(name)})" if numbered[index] else name for index, name in enumerate(short)]


def dtype_of(file: YamlFile) -> str | None:
    """The dtype to write, in mergekit's word."""
    for key in ("dtype", "out_dtype"):
        value = file.value((key,))
        if value is not None and value not in DTYPES:
            raise file.error((key,), unknown(key, str(value), DTYPES))
    return file.value(("out_dtype",)) or file.value(("dtype",))


def tokenizer_of(file: YamlFile, names: dict[str, str], base: str | None, named: str | None) -> str | None:
    """Whose tokenizer the output is to have: a source's name, `base`, or `union`."""
    if "tokenizer" in file.data and "tokenizer_source" in file.data:
        raise file.error(("tokenizer_source",), "tokenizer and tokenizer_source say the same thing; keep one of them")
    place: tuple[Any, ...] = ("tokenizer_source",)
    if "tokenizer" in file.data:
        if "tokens" in mapping_at(file, ("tokenizer",), ("source", "tokens", "pad_to_multiple_of")):
            raise file.error(("tokenizer", "tokens"), "rows of tokens are taken as the sources have them, none by choice; remove tokens")
        place = ("tokenizer", "source")
    if file.value(place) is None:
        return None
    wanted = file.value(place) if isinstance(file.value(place), dict) else text_at(file, place)
    if wanted == "union":
        return "union"
    text = named if wanted == "base" else reference(file, place)
    if text is not None and text == base:
        return "base"
    if text not in names:
        where = "no base_model is named" if wanted == "base" else f"'{text}' is neither the base nor among the models"
        raise file.error(place, f"tokenizer source: {where}; known: union, base, {', '.join(names)}")
    return names[text]


def padding_of(file: YamlFile) -> int:
    """What the number of rows of the vocabulary is to be a multiple of."""
    place = ("tokenizer", "pad_to_multiple_of")
    value = file.value(place)
    if value is not None and (type(value) is not int or value < 1):
        raise file.error(place, f"pad_to_multiple_of {is_what(value)}; give a whole number, e.g. 64")
    return value or 1


def notes_of(file: YamlFile, method: Shared, values: dict[str, Any]) -> tuple[str, ...]:
    """Where the result differs from mergekit's, as far as it applies to these values."""
    thins = any(values.get(field, 1.0) != 1.0 for field in ("density", "select"))
    notes = [*method.notes, *(method.thinned if thins else ()), *(method.rescaled if thins and values.get("rescale") else ())]
    if "tokenizer_source" in file.data or "tokenizer" in file.data:
        notes.append(TOKENS)
    if file.value(("dtype",)) not in (None, "float32", "float64"):
        notes.append(COMPUTED.format(dtype=file.value(("dtype",))))
    return tuple(f"unlike mergekit: {note}" for note in notes)
