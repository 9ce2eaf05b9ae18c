"""Whether a model can be asked a set: has it the head, and do head and set choose among the same answers. Decided before any asking."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.pairs.comparisons import IMAGE_TYPES
from evaluators.pairs.suite import Asked
from foundation.errors import InputError
from tasks.pairs.records import Kind

HEAD: dict[Kind, str] = {Kind.CAPTIONS: "itc", Kind.QUESTIONS: "vqa", Kind.COMPARISONS: "nlvr2", Kind.LABELS: "classification"}
"""The head that a kind of set is asked with; `itm` beside it to re-rank."""

CHOICES: dict[Kind, str] = {Kind.QUESTIONS: "answers", Kind.LABELS: "classes"}
"""Where the model's config names what the head chooses among."""

OBJECTIVES: dict[str, str] = {"itc": "itc or retrieval", "itm": "itm"}
"""The objectives that give a model a head, where it is not the objective of the head's own name."""

SHOWN = 3


def check_fit(checkpoint: Path, config: Any, asked: Asked) -> None:
    """InputError where the model in `checkpoint` with this config cannot be asked the set; the message says what to do."""
    kind = asked.set.kind
    for head in (HEAD[kind], "itm") if asked.rerank else (HEAD[kind],):
        if head not in config.heads:
            what = "re-ranked" if head == "itm" else "asked"
            raise InputError(
                f"set {asked.name!r} is {what} with the head {head!r}, and {checkpoint} has {', '.join(config.heads) or 'no heads'}; "
                f"train a stage with the objective {OBJECTIVES.get(head, head)} first, or leave the set{_less(head)} out of the suite"
            )
    if kind is Kind.COMPARISONS and config.token_types <= max(IMAGE_TYPES):
        raise InputError(
            f"set {asked.name!r} shows two images, and {checkpoint} has token types for {config.token_types - 1}; "
            f"train a stage with the objective nlvr2 first (token_types {max(IMAGE_TYPES) + 1})"
        )
    if kind in CHOICES:
        _check_choices(checkpoint, CHOICES[kind], getattr(config, CHOICES[kind]), asked)


def _less(head: str) -> str:
    return "'s rerank" if head == "itm" else ""


def _check_choices(checkpoint: Path, what: str, held: Sequence[str], asked: Asked) -> None:
    """InputError unless the model's choices are the set's, in the same order."""
    wanted = list(asked.set.choices())
    if list(held) == wanted:
        return
    only_model, only_set = sorted(set(held) - set(wanted)), sorted(set(wanted) - set(held))
    clauses = [
        f"{len(names)} only {where}, e.g. {', '.join(map(repr, names[:SHOWN]))}"
        for names, where in ((only_model, "in the model"), (only_set, "in the set"))
        if names
    ]
    raise InputError(
        f"the {what} of {checkpoint} ({len(held)}) are not those of set {asked.name!r} ({len(wanted)}): "
        f"{'; '.join(clauses) or 'the same names in another order'}; ask the set that the head was trained on, or train it on this one"
    )
