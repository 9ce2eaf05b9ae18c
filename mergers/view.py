"""Sources, and which tensor of a source plays which tensor of the output.

A view renames a source's tensors to the output's names or leaves them out; today the identity. Beneath the views lies a trap: two saves of
ONE model can carry different names on disk, because transformers 5 writes the names of older releases unless told otherwise, and follows
the names of the checkpoint it loaded. So names are first brought into one namespace by the table of known renamings; the output keeps the
first source's names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from foundation.errors import InputError
from mergers.checkpoint import Checkpoint
from mergers.header import TensorEntry


class View(Protocol):
    """Which output tensor a source's tensor plays."""

    def output_name(self, tensor: str) -> str | None:
        """The output's name for a source's tensor; None leaves it out."""
        ...


@dataclass(frozen=True)
class Identity:
    """Every tensor plays itself."""

    def output_name(self, tensor: str) -> str | None:
        """The same name."""
        return tensor


@dataclass(frozen=True)
class Source:
    """One contributor to a merge: a name that says its role, a checkpoint, and a view of it.

    `origin` is the text that identifies it in the model card (a digest, a fingerprint, a hub id with revision): it should hold no local
    path.
    """

    name: str
    checkpoint: Checkpoint
    view: View = field(default_factory=Identity)
    origin: str = ""

    def tensors(self) -> dict[str, TensorEntry]:
        """Output name -> the tensor on disk that plays it."""
        seen: dict[str, TensorEntry] = {}
        for name, entry in self.checkpoint.tensors.items():
            output = self.view.output_name(name)
            if output is not None:
                claim(seen, output, entry, self.name)
        return seen


_LLAVA = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^(vision_tower|multi_modal_projector|image_newline)\b", r"model.\1"),
    (r"^model\.vision_tower\.vision_model\.", "model.vision_tower."),
)
_QWEN2_VL = (
    (r"^visual\.", "model.visual."),
    (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
)
RENAMINGS: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        (
            "llava",
            "llava_next",
            "llava_next_video",
            "llava_onevision",
            "vipllava",
            "paligemma",
            "internvl",
            "aya_vision",
            "gemma3",
            "mistral3",
        ),
        _LLAVA,
    ),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), _QWEN2_VL),
}
"""model_type -> the (pattern, replacement) steps from older names on disk to today's. Applied in order; today's names pass unchanged."""


def unify(sources: Sequence[Source]) -> tuple[list[dict[str, TensorEntry]], list[str]]:
    """Each source's tensors under one set of names (the first source's), and a sentence for each source that had to be renamed.

    Names that no known renaming joins are left as they are; the caller finds them missing or extra.
    """
    tensors = [source.tensors() for source in sources]
    steps = RENAMINGS.get(str(sources[0].checkpoint.config.get("model_type")))
    if steps is None or all(found.keys() == tensors[0].keys() for found in tensors):
        return tensors, []
    first = {modern(name, steps): name for name in tensors[0]}
    notes = []
    for index, source in enumerate(sources):
        renamed: dict[str, TensorEntry] = {}
        example = ""
        for name, entry in tensors[index].items():
            output = first.get(modern(name, steps), name)
            claim(renamed, output, entry, source.name)
            example = f"{name} -> {output}" if output != name and not example else example
        if example:
            notes.append(
                f"source '{source.name}' has other names on disk; they are read under those of '{sources[0].name}', e.g. {example}"
            )
            refuse_strays(renamed, first.values(), source, sources[0])
        tensors[index] = renamed
    return tensors, notes


def modern(name: str, steps: tuple[tuple[str, str], ...]) -> str:
    """Today's name of a tensor."""
    for pattern, replacement in steps:
        name = re.sub(pattern, replacement, name)
    return name


def claim(taken: dict[str, TensorEntry], output: str, entry: TensorEntry, source: str) -> None:
    """Enter `entry` as `output`; InputError if another tensor of that source already plays it."""
    if output in taken:
        raise InputError(f"source '{source}': '{taken[output].name}' and '{entry.name}' are both the output's '{output}'; only one can be")
    taken[output] = entry


def refuse_strays(renamed: Mapping[str, TensorEntry], known: object, source: Source, first: Source) -> None:
    """Raise InputError if a renamed source also has tensors that the first source lacks: their names in the output would not fit the
    others."""
    strays = sorted(renamed.keys() - set(known))  # type: ignore[call-overload]
    if strays:
        raise InputError(
            f"source '{source.name}' holds {len(strays)} of {len(renamed)} tensors that '{first.name}' lacks, e.g. '{strays[0]}', and "
            "names its tensors "
            f"differently on disk; put the source that holds all tensors first, or fix its view"
        )
