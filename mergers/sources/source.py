"""Sources, and how their tensors are brought under one set of names: those of the anchor.

A source is a checkpoint seen through a view (`views.py`). The anchor is the source that the output looks like: its names on disk, its
shapes and dtypes, its config. It is the base, where there is one, else the first source; a source that is only a part of a model (a
language model in a vision-language model) cannot be it. Of experts inside one checkpoint it is the first, base or not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from foundation.errors import ConfigError, InputError
from mergers.checkpoints.checkpoint import Checkpoint
from mergers.checkpoints.header import TensorEntry
from mergers.sources.names import Steps, head_beside, modern, steps_of
from mergers.sources.views import Expert, Identity, LanguageModel, Prefix, Rename, View

__all__ = [
    "Expert",
    "Identity",
    "LanguageModel",
    "Prefix",
    "Rename",
    "Source",
    "View",
    "all_experts",
    "anchor_of",
    "claim",
    "modern",
    "shared_by_experts",
    "unify",
]


@dataclass(frozen=True)
class Source:
    """One contributor to a merge: a name that says its role, a checkpoint, and a view of it.

    `origin` is the text that identifies it in the model card (a digest, a fingerprint, a hub id with revision): it should hold no local
    path. `statistics` holds what a method asks to have been measured on this source (Fisher, Gram), by the source's own tensor names.
    """

    name: str
    checkpoint: Checkpoint
    view: View = field(default_factory=Identity)
    origin: str = ""
    statistics: Mapping[str, TensorEntry] = field(default_factory=dict)

    def tensors(self) -> dict[str, TensorEntry]:
        """Output name -> the tensor on disk that plays it. InputError for a view that does not fit the checkpoint."""
        names = list(self.checkpoint.tensors)
        try:
            idle = self.view.idle(names)
            outputs = [] if idle else self.view.outputs(names)
        except InputError as error:
            raise InputError(f"source '{self.name}': {error}") from None
        if idle:
            raise InputError(f"source '{self.name}' is seen {described(self)}, but {idle} in {self.checkpoint.path}; fix its view")
        seen: dict[str, TensorEntry] = {}
        for output, entry in zip(outputs, self.checkpoint.tensors.values(), strict=True):
            if output is not None:
                claim(seen, output, entry, self.name)
        return seen

    def owed(self, outputs: Iterable[str], steps: Steps = ()) -> list[str]:
        """Those of `outputs` (names on disk) that its view says it is to hold; `steps` lead to today's names."""
        left = {modern(name, steps) for tensor in self.checkpoint.tensors if (name := self.view.leaves(tensor)) is not None}
        return [
            name
            for name in outputs
            if modern(name, steps) not in left and (self.view.expects(name) or self.view.expects(modern(name, steps)))
        ]


def described(source: Source) -> str:
    """How a source is seen, in words that follow its name; empty for the identity."""
    words = source.view.describe()
    return words if words.startswith("as ") or not words else f"as {words}"


def shared_by_experts(sources: Sequence[Source], entries: Sequence[TensorEntry]) -> bool:
    """Whether the tensors that several sources hold are one and the same, which belongs to no expert of a checkpoint but to all.

    It is the model's own, so it is neither merged nor counted once per expert, but copied.
    """
    return len(entries) > 1 and all_experts(sources) and all(entry == entries[0] for entry in entries)


def all_experts(sources: Sequence[Source]) -> bool:
    """Whether every source is an expert inside a checkpoint."""
    return bool(sources) and all(isinstance(source.view, Expert) for source in sources)


def anchor_of(sources: Sequence[Source], base: Source | None = None) -> Source:
    """The source whose names, shapes, dtypes and config the output has: the base, else the first that is a whole model.

    Where all sources are experts it is the first of them, base or not: their checkpoint says what the output consists of. ConfigError if
    every source is only a part of a model.
    """
    ordered = [*([base] if base and not all_experts(sources) else []), *sources]
    found = next((source for source in ordered if source.view.whole), None)
    if found is None:
        parts = ", ".join(f"'{source.name}' ({described(source)})" for source in ordered)
        raise ConfigError(
            f"every source is seen as a part of a model: {parts}; one must be the whole, whose other tensors the output keeps"
        )
    return found


def unify(sources: Sequence[Source], anchor: Source | None = None) -> tuple[list[dict[str, TensorEntry]], list[str]]:
    """Each source's tensors under the anchor's names on disk, and a sentence for each source that is not read under its own.

    Names that neither a view nor a known renaming joins are left as they are; the caller finds them missing or extra. `anchor` is one of
    `sources` (default: `anchor_of` them). InputError for a view that does not fit, and for names of which it cannot be told what the
    anchor would call them.
    """
    anchor = anchor or anchor_of(sources)
    steps = steps_of(anchor.checkpoint.config)
    home = anchor.tensors()
    current: dict[str, TensorEntry] = {}
    for name, entry in home.items():
        claim(current, modern(name, steps), entry, anchor.name)
    known = dict(zip(current, home, strict=True))
    known.setdefault("lm_head.weight", head_beside(home) or "lm_head.weight")
    tensors, notes = [], []
    for source in sources:
        seen = home if source is anchor else source.tensors()
        renamed: dict[str, TensorEntry] = {}
        for name, entry in seen.items():
            claim(renamed, known.get(modern(name, steps), name), entry, source.name)
        notes += renaming_note(source, anchor, seen, renamed)
        strays = sorted(renamed.keys() - set(known.values()))
        if strays and renamed.keys() != seen.keys():
            raise InputError(
                f"source '{source.name}' holds {len(strays)} of {len(renamed)} tensors that '{anchor.name}' lacks, e.g. '{strays[0]}', and "
                "names its tensors differently on disk; put the source that holds all tensors first, or fix its view"
            )
        tensors.append(renamed)
    return tensors, notes


def renaming_note(source: Source, anchor: Source, seen: Mapping[str, TensorEntry], renamed: Mapping[str, TensorEntry]) -> list[str]:
    """A sentence on a source that is not read under its own names, with an example."""
    example = next((f", e.g. {entry.name} -> {name}" for name, entry in renamed.items() if entry.name != name), "")
    if source.view.describe():
        total = len(source.checkpoint.tensors)
        return [f"source '{source.name}' is seen {described(source)}: {len(renamed)} of its {total} tensors take part{example}"]
    if renamed.keys() != seen.keys():
        return [f"source '{source.name}' has other names on disk; they are read under those of '{anchor.name}'{example}"]
    return []


def claim(taken: dict[str, TensorEntry], output: str, entry: TensorEntry, source: str) -> None:
    """Enter `entry` as `output`; InputError if another tensor of that source already plays it."""
    if output in taken:
        raise InputError(f"source '{source}': '{taken[output].name}' and '{entry.name}' are both the output's '{output}'; only one can be")
    taken[output] = entry
