"""The files of a comparison: its tables as CSV for machines, as Markdown for people, and a picture of the differences."""

from typing import TYPE_CHECKING

from pipeline.report.compare.models import Compare
from pipeline.report.compare.tables import (
    MEASURES_HEADER,
    TASKS_HEADER,
    measures_rows,
    merge_measures_grid,
    settings_grid,
    sides_grid,
    tasks_grid,
    tasks_rows,
)
from pipeline.report.tables import Grid, markdown
from pipeline.report.write import to_csv

if TYPE_CHECKING:
    from pipeline.compare import Comparisons

PICTURE = "comparison.png"


def comparison_files(found: "Comparisons") -> dict[str, str | bytes]:
    """File name -> content; `compare.md` is the one to read."""
    from pipeline.report.compare.plot import differences_plot

    return {**comparison_texts(found), PICTURE: differences_plot((*found.merges, *found.models))}


def comparison_texts(found: "Comparisons", picture: str = PICTURE) -> dict[str, str]:
    """The files without the picture."""
    everything = (*found.merges, *found.models)
    files = {
        "compare.md": comparison_markdown(found, picture),
        "tasks.csv": to_csv(TASKS_HEADER, tasks_rows(everything)),
        "measures.csv": to_csv(MEASURES_HEADER, measures_rows(everything)),
    }
    if found.settings:
        labels = [run.label for run in found.runs]
        files["settings.csv"] = to_csv(("key", *labels), [(key, *values) for key, values in found.settings.items()])
    return files


def comparison_markdown(found: "Comparisons", picture: str = PICTURE) -> str:
    """All tables on one page, differences beyond every interval in bold."""
    labels = [run.label for run in found.runs]
    parts = [f"# {' · '.join(run.name for run in found.runs)}: compared\n"]
    if labels != [run.name for run in found.runs]:
        parts.append("\n".join(f"- **{run.label}**: {run.name}" for run in found.runs) + "\n")
    parts += [f"> {note}\n" for note in found.notes]
    if len(found.runs) > 1:
        told = markdown(settings_grid(found.settings, labels)) if found.settings else "No setting differs.\n"
        parts.append(told)
    for each in found.merges:
        parts += [tasks_markdown(each), markdown(merge_measures_grid(each))]
    for each in found.models:
        parts.append(tasks_markdown(each))
    if found.models:
        parts.append(markdown(sides_grid(found.models)))
    if picture:
        parts.append(f"![differences with their 95 % intervals]({picture})\n")
    return "\n".join(parts)


def tasks_markdown(found: Compare) -> str:
    """The table of tasks, with what differs beyond every interval in bold."""
    grid = tasks_grid(found)
    place = grid.columns.index("difference")
    rows = tuple(
        tuple(f"**{cell}**" if line.beyond and index == place else cell for index, cell in enumerate(row))
        for line, row in zip(found.lines, grid.rows, strict=True)
    )
    return markdown(Grid(grid.title, grid.columns, rows, grid.labels, note=grid.note))
