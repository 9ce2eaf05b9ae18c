"""Where a checkpoint comes from: its parents, and the same as text with links for MLflow's model page."""

from collections.abc import Mapping

from pipeline.step import Measurement, Step
from pipeline.steps import Merge, MergePicked
from pipeline.store import Record
from pipeline.titles import title_of


def parents_of(step: Step) -> list[Step]:
    """The steps whose checkpoints this step's checkpoint was made from."""
    return [needed for needed in step.inputs if not isinstance(needed, Measurement)]


def model_note(step: Step, record: Record, parents: Mapping[Step, str], experiment: str, titles: dict[str, str]) -> str:
    """Markdown for a model's page: how it was made, its parents as links, its place and digest."""
    roles = record.content["details"].get("sources", {})
    named = (
        {source.key: f"{name}, {roles.get(name, '')}" for name, source in step.sources.items()}
        if isinstance(step, Merge | MergePicked)
        else {}
    )
    lines = [f"**{title_of(step, titles)}** · made by `{step.kind}`", ""]
    for parent, model in parents.items():
        says = f" ({named[parent.key]})" if parent.key in named else ""
        lines.append(f"- from [{title_of(parent, titles)}](#/experiments/{experiment}/models/{model}){says}")
    lines += ["", f"Checkpoint: `{record.checkpoint}`", "", f"SHA-256 over its files: `{record.digest}`"]
    return "\n".join(lines)
