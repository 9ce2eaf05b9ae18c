"""The kinds of view: which tensor of the output a source's tensor plays, and which tensors of the output the source is to hold.

    identity                            every tensor plays itself
    expert     blocks.3.mlp.v.fc1       one of several experts inside one checkpoint, seen as blocks.3.mlp.fc1
    prefix     model.layers.0           a part of the output, here a language model in a VLM: model.language_model.layers.0
    rename     transformer.h.0          regular expressions, as for the prefixes that Lightning adds

A view renames a source's tensors or leaves them out; it never drops one that no rule of it speaks of. What it leaves out, and what lies
outside its part, comes from the other sources. `view_spec.py` reads views from YAML.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol

from foundation.errors import ConfigError, InputError
from foundation.hints import nearest
from mergers.sources.names import LANGUAGE_MODEL, OUTPUT_HEAD


class View(Protocol):
    """Which output tensor a source's tensor plays. A class that derives from it gets what the identity does."""

    whole: ClassVar[bool] = True
    """Whether the source is a model by itself, so that the output can take its names, forms and config."""

    def output_name(self, tensor: str) -> str | None:
        """The output's name for a source's tensor; None leaves it out. InputError for a tensor that no rule of the view speaks of."""
        return tensor

    def outputs(self, tensors: Collection[str]) -> list[str | None]:
        """`output_name` of each of a checkpoint's tensors: for a view that must know what else the checkpoint holds."""
        return [self.output_name(tensor) for tensor in tensors]

    def leaves(self, tensor: str) -> str | None:
        """The output tensor that is left to other sources because this one is left out, if that can be said."""
        return None

    def expects(self, output: str) -> bool:
        """Whether the source is to hold an output tensor (by today's name) that it does not leave to others."""
        return True

    def idle(self, tensors: Collection[str]) -> str:
        """A rule that speaks of no tensor, in words: an error; empty if there is none."""
        return ""

    def describe(self) -> str:
        """The view in a few words; empty for the identity."""
        return ""


@dataclass(frozen=True)
class Identity(View):
    """Every tensor plays itself."""


@dataclass(frozen=True)
class Expert(View):
    """One of the `experts` inside a checkpoint: `blocks.3.mlp.v.fc1.weight` is seen as `blocks.3.mlp.fc1.weight` by the expert `v`.

    A tensor without an expert's name among its dotted components is shared and plays itself. Where only other experts have a tensor (an
    expert may exist in some layers), it is left to them, and so it is where this one has it too but an expert of `unless` does. ConfigError
    unless `name` is one of two or more distinct experts, and those of `unless` are others of them.
    """

    name: str
    experts: tuple[str, ...]
    unless: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for expert in (*self.experts, self.name):
            if not expert or "." in expert or expert.isdigit():
                raise ConfigError(
                    f"expert view: {expert!r} cannot name an expert, which is one component of a tensor's name: without dots, and not a "
                    "number, since layers are numbered"
                )
        if self.name not in self.experts or len(set(self.experts)) < max(2, len(self.experts)):
            close = None if self.name in self.experts else nearest(self.name, self.experts)
            raise ConfigError(
                f"expert view: {self.name!r} of {', '.join(self.experts) or 'none'}: list every expert of the checkpoint once, this one too"
                + (f"; did you mean {close!r}?" if close else "")
            )
        strange = next((expert for expert in self.unless if expert not in self.experts or expert == self.name), None)
        if strange is not None:
            raise ConfigError(
                f"expert view: {self.name!r} unless {strange!r}: name other experts of the checkpoint, to which it leaves what they have: "
                + ", ".join(expert for expert in self.experts if expert != self.name)
            )

    def output_name(self, tensor: str) -> str | None:
        """The name without the expert's component; None for another expert's tensor."""
        owner, shared = self.split(tensor)
        return shared if owner in (None, self.name) else None

    def outputs(self, tensors: Collection[str]) -> list[str | None]:
        """The same, None too for what an expert of `unless` plays."""
        parts = [self.split(tensor) for tensor in tensors]
        taken = {shared for owner, shared in parts if owner in self.unless}
        return [shared if owner is None or (owner == self.name and shared not in taken) else None for owner, shared in parts]

    def leaves(self, tensor: str) -> str | None:
        """What another expert's tensor plays."""
        owner, shared = self.split(tensor)
        return None if owner in (None, self.name) else shared

    def idle(self, tensors: Collection[str]) -> str:
        """That no tensor is this expert's, or one's that it leaves tensors to."""
        owners = {self.split(tensor)[0] for tensor in tensors}
        lacking = next((expert for expert in (self.name, *self.unless) if expert not in owners), None)
        return "" if lacking is None else f"no tensor has a component '{lacking}' in its name"

    def describe(self) -> str:
        """Which of which."""
        told = f" where there is no {' or '.join(self.unless)}" if self.unless else ""
        return f"expert {self.name} of {', '.join(self.experts)}{told}"

    def split(self, tensor: str) -> tuple[str | None, str]:
        """(whose tensor it is, its name without that component)."""
        parts = tensor.split(".")
        found = [index for index, part in enumerate(parts) if part in self.experts]
        if len(found) > 1:
            raise InputError(
                f"tensor '{tensor}' has {len(found)} components that name an expert ({', '.join(parts[index] for index in found)}), so "
                "whose it is cannot be told; rename it, or leave an expert out of the list"
            )
        if not found:
            return None, tensor
        return parts.pop(found[0]), ".".join(parts)


@dataclass(frozen=True)
class Prefix(View):
    """A part of the output: tensors under one prefix are seen under another, e.g. ("model.", "model.language_model.").

    The longest prefix that fits counts; None in place of the second leaves tensors out. The source takes part under the second prefixes
    only. ConfigError for a prefix that is given twice, and if all is left out.
    """

    pairs: tuple[tuple[str, str | None], ...]

    whole: ClassVar[bool] = False

    def __post_init__(self) -> None:
        firsts = [first for first, _ in self.pairs]
        twice = next((first for first in firsts if firsts.count(first) > 1), None)
        if twice is not None:
            raise ConfigError(f"prefix view: '{twice}' is given twice; it can be seen as one other prefix only")
        if all(second is None for _, second in self.pairs):
            raise ConfigError("prefix view: it leaves everything out; say as what at least one prefix is to be seen")

    def output_name(self, tensor: str) -> str | None:
        """The name under the other prefix."""
        fitting = [pair for pair in self.pairs if tensor.startswith(pair[0])]
        if not fitting:
            known = ", ".join(f"'{first}'" for first, _ in self.pairs)
            raise InputError(
                f"tensor '{tensor}' begins with none of {known}, so the prefix view does not say what it plays; name its prefix too, with "
                "null as the other prefix if it is to be left out"
            )
        first, second = max(fitting, key=lambda pair: len(pair[0]))
        return None if second is None else second + tensor.removeprefix(first)

    def expects(self, output: str) -> bool:
        """What lies under the second prefixes."""
        return any(second is not None and output.startswith(second) for _, second in self.pairs)

    def idle(self, tensors: Collection[str]) -> str:
        """A prefix that no tensor has."""
        lacking = next((first for first, _ in self.pairs if not any(tensor.startswith(first) for tensor in tensors)), None)
        return "" if lacking is None else f"no tensor's name begins with '{lacking}'"

    def describe(self) -> str:
        """Each prefix, and as what it is seen."""
        return ", ".join(f"{first}* left out" if second is None else f"{first}* as {second}*" for first, second in self.pairs)


@dataclass(frozen=True)
class LanguageModel(Prefix):
    """A language model seen as that of a vision-language model: `model.*` as `model.language_model.*` in today's names, head as head.

    What the family calls its language model, and what its file calls it, need not be known: `names.py` brings them together.
    """

    pairs: tuple[tuple[str, str | None], ...] = (("model.", LANGUAGE_MODEL), (OUTPUT_HEAD, OUTPUT_HEAD))

    def idle(self, tensors: Collection[str]) -> str:
        """That there is no language model. One whose head is tied has no head."""
        return Prefix(self.pairs[:1]).idle(tensors)

    def describe(self) -> str:
        """What it is."""
        return "as the language model"


@dataclass(frozen=True)
class Rename(View):
    r"""Regular expressions and what replaces them, applied in order wherever they match: ("^model\.", "") takes a prefix away.

    None in place of the replacement leaves the matching tensors out, to be supplied by other sources under the name they have by then.
    ConfigError for what is not well formed.
    """

    pairs: tuple[tuple[str, str | None], ...]

    def __post_init__(self) -> None:
        for pattern, replacement in self.pairs:
            try:
                re.compile(pattern).sub(replacement or "", "")
            except (re.error, IndexError) as error:
                raise ConfigError(
                    f"rename view: {pattern!r} -> {replacement!r} is not a regular expression and its replacement: {error}"
                ) from None

    def output_name(self, tensor: str) -> str | None:
        """The name after all replacements."""
        name, last = self._applied(tensor)
        return name if last is None else None

    def leaves(self, tensor: str) -> str | None:
        """The name that a tensor had by the time it was left out."""
        name, last = self._applied(tensor)
        return None if last is None else name

    def idle(self, tensors: Collection[str]) -> str:
        """An expression that matches no tensor, as it is called by then."""
        names = list(tensors)
        for pattern, replacement in self.pairs:
            if not any(re.search(pattern, name) for name in names):
                return f"{pattern!r} matches no tensor" + (f", e.g. not '{names[0]}'" if names else "")
            names = [name if replacement is None else re.sub(pattern, replacement, name) for name in names]
        return ""

    def describe(self) -> str:
        """Each expression and its replacement."""
        return ", ".join(f"{pattern} left out" if new is None else f"{pattern} -> {new or 'nothing'}" for pattern, new in self.pairs)

    def _applied(self, tensor: str) -> tuple[str, str | None]:
        """The tensor's name by the end, or by the time that an expression left it out, and that expression."""
        name = tensor
        for pattern, replacement in self.pairs:
            if re.search(pattern, name):
                if replacement is None:
                    return name, pattern
                name = re.sub(pattern, replacement, name)
        return name, None
