"""The model card (README.md) of a merged checkpoint: how it was made and from what.

The same merge writes the same card: no time, no host, no path. Sources stand by name and by the origin text they were given.
"""

from collections.abc import Mapping

from foundation.sizes import size
from mergers.merger import Merger
from mergers.plan import Plan
from mergers.sources.source import Source, described
from mergers.table import hyperparameters, method_name


def model_card(plan: Plan, merged: int, copied: int, digests: Mapping[str, str]) -> str:
    """The card's Markdown; `merged` and `copied` count tensors, `digests` maps weight files to their SHA-256."""
    rows = [
        f"| {cell(source.name)} | {cell(role)} | {cell(origin_of(source))} |"
        for source, role in zip(plan.sources, plan.merger.roles(plan.source_names), strict=True)
    ]
    base = [f"Base: {cell(plan.base.name)} ({cell(plan.base.origin) or 'origin not given'}).", ""] if plan.base else []
    notes = ["", *(f"- {note}" for note in plan.notes)] if plan.notes else []
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "tags:",
            "- merge",
            "- mergeline",
            "---",
            "# Merged checkpoint",
            "",
            f"Method: `{method_name(plan.merger)}` ({settings(plan.merger)}). Computed in float32 (float64 for float64 tensors), "
            "rounded once.",
            "",
            "| source | counts for | origin |",
            "|---|---|---|",
            *rows,
            "",
            *base,
            f"{plan.parameters:,} parameters, {size(plan.bytes_to_write)}. {merged} tensors merged; {copied} copied bit for bit, being "
            "the same in all "
            "sources that hold them.",
            *notes,
            "",
            "| file | SHA-256 |",
            "|---|---|",
            *(f"| {name} | `{digest}` |" for name, digest in sorted(digests.items())),
            "",
        ]
    )


def settings(merger: Merger) -> str:
    """The merger's hyperparameters as `name = value`."""
    return ", ".join(f"{name} = {value}" for name, value in hyperparameters(merger).items()) or "no hyperparameters"


def origin_of(source: Source) -> str:
    """Where a source comes from, and as what it is seen if not as it is."""
    seen = f", seen {described(source)}" if source.view.describe() else ""
    return (source.origin or "not given") + seen


def cell(text: str) -> str:
    """Text that cannot break out of a Markdown table cell."""
    return " ".join(text.replace("|", "\\|").split())
