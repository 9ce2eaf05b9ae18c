"""What holds where every source is an expert inside a checkpoint, and they are merged into a model without experts.

The output consists of what the experts' checkpoint does, seen without its experts' components. A tensor that belongs to all experts, or
that one of them plays alone, is the checkpoint's own and keeps its bytes, whatever the method: so of a base (the checkpoint that the
experts started from) only those tensors have a part that two experts or more play.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from foundation.errors import ConfigError, InputError
from foundation.hints import nearest
from mergers.checkpoints.header import TensorEntry
from mergers.depth import numbers_in, towers
from mergers.sources.agreement import check_cover
from mergers.sources.source import Source, all_experts, shared_by_experts
from mergers.sources.views import Expert

Tensors = Mapping[str, TensorEntry]

SHARED = {"modality_experts": ("sharing", "shared", ("v", "l", "vl"))}
"""model_type -> the key of its config that says which parts are an expert's own, what it says where none are, and its experts."""


def cover(
    sources: Sequence[Source], base: Source | None, tensors: Sequence[dict[str, TensorEntry]], partial: bool, anchor: Source
) -> tuple[list[dict[str, TensorEntry]], list[str]]:
    """The tensors of each source, then of the base, that take part, and what a user should know; InputError if some lack what they owe."""
    if base is None or not all_experts(sources):
        check_cover([*sources, base] if base else sources, tensors, partial, anchor, base)
        return list(tensors), []
    check_cover(sources, tensors[:-1], partial, anchor)
    return fit_base(sources, base, tensors)


def check_whole(sources: Sequence[Source]) -> None:
    """Raise InputError if all sources are experts, and a tensor would be lost because none of those that have it is among them."""
    if not all_experts(sources):
        return
    owners: dict[str, str] = {}
    for source in sources:
        assert isinstance(source.view, Expert)
        for tensor in source.checkpoint.tensors:
            owner, name = source.view.split(tensor)
            owners.setdefault(name, owner or source.name)
    lost = sorted(owners.keys() - set().union(*(source.tensors() for source in sources)))
    if lost:
        raise InputError(
            f"{len(lost)} of {len(owners)} tensors would be lost, e.g. '{lost[0]}', which expert '{owners[lost[0]]}' has and none of "
            f"{', '.join(source.name for source in sources)} plays; add that expert to the sources, or change their views"
        )


def is_merged(name: str, sources: Sequence[Source], played: Sequence[Tensors]) -> bool:
    """Whether two experts or more play a tensor, each with its own."""
    holders = [(source, held[name]) for source, held in zip(sources, played, strict=True) if name in held]
    return len(holders) > 1 and not shared_by_experts([source for source, _ in holders], [entry for _, entry in holders])


def fit_base(
    sources: Sequence[Source], base: Source, tensors: Sequence[dict[str, TensorEntry]]
) -> tuple[list[dict[str, TensorEntry]], list[str]]:
    """The sources' tensors and those of the base (the last) that have a part in merging experts, and a sentence on what is left out.

    Heads may be on one side only: those of the experts' checkpoint are the output's. InputError if the base lacks a tensor that experts are
    measured from, or has layers that they have not.
    """
    *played, below = tensors
    union = sorted(set().union(*played))
    measured = [name for name in union if is_merged(name, sources, played)]
    experts = ", ".join(source.name for source in sources)
    if not measured:
        raise InputError(f"no tensor is played by two of the experts {experts}, so base '{base.name}' has no part; add an expert to merge")
    lacking = [name for name in measured if name not in below]
    if lacking:
        close = nearest(lacking[0], below)
        like = f" (it holds '{close}')" if close else ""
        raise InputError(
            f"base '{base.name}' lacks {len(lacking)} of {len(measured)} tensors that the experts {experts} are measured from, e.g. "
            f"'{lacking[0]}'{like}; name the checkpoint that they started from, without experts"
        )
    left, stacks = sorted(below.keys() - set(union)), towers(union)
    layers = [name for name in left if any(prefix in stacks for prefix, _ in numbers_in(name))]
    if layers:
        raise InputError(
            f"base '{base.name}' holds {len(layers)} tensors in its layers that the experts {experts} have not, e.g. '{layers[0]}'; name "
            "the checkpoint that they started from, with as many layers and the same parts"
        )
    told = f"{len(left)} tensors that only base '{base.name}' holds are left out, e.g. '{left[0]}'" if left else ""
    return [*played, {name: below[name] for name in measured}], [f"{told}: it is what experts are measured from"] if left else []


def check_shared(sources: Sequence[Source], config: Mapping[str, Any], outputs: Sequence[str]) -> None:
    """Raise ConfigError if all sources are experts, but some are left in `outputs`, or the output's config would say so."""
    found = SHARED.get(str(config.get("model_type")))
    if found is None or not all_experts(sources):
        return
    key, value, experts = found
    left = next(((name, part) for name in outputs for part in name.split(".") if part in experts), None)
    if left:
        raise ConfigError(
            f"'{left[0]}' would stay in the output as a tensor of all experts, though it is the expert {left[1]}'s; name every expert of "
            f"the checkpoint in the views: of: [{', '.join(experts)}]"
        )
    if config.get(key, value) != value:
        raise ConfigError(
            f"the experts are merged into one model, but its config.json would say {key}: {config[key]} and look for experts; set "
            f"config: {{{key}: {value}}}"
        )
