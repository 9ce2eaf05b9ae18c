"""Sources brought together for a merge: every check that needs neither the method's numbers nor an output, and one set of names.

What `plan_merge` (a merge into files) and `LiveMerge` (a merge in memory) have in common, from headers and configs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergers.engine.layout import TensorPlan
from mergers.match import plan_proof
from mergers.sources.agreement import check_configs, check_names, drop_tied_heads
from mergers.sources.inside import check_whole, cover
from mergers.sources.source import Source, anchor_of, unify

if TYPE_CHECKING:
    from mergers.checkpoints.header import TensorEntry
    from mergers.checkpoints.vocabulary import Alignment


@dataclass(frozen=True)
class Gathered:
    """Sources that fit each other: what each holds under the anchor's names on disk (the base last), tied heads to be proven redundant, and
    what a user should know."""

    sources: tuple[Source, ...]
    base: Source | None
    anchor: Source
    held: tuple[dict[str, TensorEntry], ...]
    proofs: tuple[TensorPlan, ...]
    notes: tuple[str, ...] = ()
    vocabulary: Alignment | None = None

    @property
    def everyone(self) -> tuple[Source, ...]:
        """The sources, then the base if there is one."""
        return (*self.sources, self.base) if self.base else self.sources

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources, then of the base."""
        return tuple(source.name for source in self.everyone)


def gather(
    sources: Sequence[Source], base: Source | None, partial: bool, tokenizer_source: str | None = None, pad_to_multiple_of: int = 1
) -> Gathered:
    """The sources (and base), checked against each other.

    `partial` lets tensors be merged over the sources that hold them; the vocabulary is as `checkpoints/vocabulary.py` has it. Raises
    ConfigError, InputError for sources that do not fit.
    """
    everyone = [*sources, base] if base else list(sources)
    check_names([source.name for source in everyone])
    anchor = anchor_of(sources, base)
    notes = check_configs(everyone, anchor)
    named, renamed = unify(everyone, anchor)
    held, proofs = drop_tied_heads(everyone, named, anchor)
    vocabulary = align(everyone, held, anchor, tokenizer_source, pad_to_multiple_of)
    held = vocabulary.tensors if vocabulary else held
    check_whole(sources)
    held, left = cover(sources, base, held, partial, anchor)
    told = (*notes, *renamed, *left, *(vocabulary.notes if vocabulary else ()))
    return Gathered(tuple(sources), base, anchor, tuple(held), tuple(plan_proof(*proof) for proof in proofs), told, vocabulary)


def align(
    everyone: Sequence[Source], held: Sequence[Mapping[str, TensorEntry]], anchor: Source, choice: str | None, pad_to_multiple_of: int
) -> Alignment | None:
    """All sources on one vocabulary, if the user has chosen which; else InputError where vocabularies differ."""
    from mergers.checkpoints.vocabulary import align_vocabularies, check_vocabularies

    if choice is None and pad_to_multiple_of == 1:
        check_vocabularies(everyone, held)
        return None
    return align_vocabularies(everyone, held, anchor, choice or "base", pad_to_multiple_of)
