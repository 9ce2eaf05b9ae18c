"""The report that fits what a run's rows are: stages of a stream, or merges that are held against one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipeline.report import RunScores, write_report
from pipeline.report.paired import PairedScores, paired_scores
from pipeline.report.search_figures import by_arm
from pipeline.report.tables import print_grids
from pipeline.report.terminal import print_tables
from pipeline.results import Row, all_scores, outcomes
from pipeline.searches import searches
from pipeline.store import Store


@dataclass(frozen=True)
class Written:
    """The files of a report, the one to read first last; and what was found on the same samples, which the terminal shows too."""

    files: list[Path]
    paired: PairedScores | None = None


def report_of(run_directory: Path, found: Sequence[Row], store: Store, directory: Path) -> Written:
    """Write the report of a run into `directory`."""
    from pipeline.report.search_write import write_search_report

    title = run_directory.name
    if has_families(found):
        from pipeline.report.modality_write import write_modality_report

        return Written(write_modality_report(outcomes(found, store), directory, title, asked_notes(found, store)))
    made = searches(found, store)
    chosen = write_search_report(made, directory / "search", f"{title}: what was searched") if made else []
    written = stages_report([run_directory], all_scores(found, store), directory, chosen)
    return Written([*chosen, *written.files], written.paired)


def stages_report(run_directories: Sequence[Path], scores: Sequence[RunScores], directory: Path, searched: Sequence[Path] = ()) -> Written:
    """Write the report of runs of stages, whose `scores` these are, into `directory`; `report.html` is the file to read first.

    `searched`: the files of the report of their searches.
    """
    from pipeline.report.page import write_page

    paired = paired_scores(scores)
    files = write_report(scores, directory, ", ".join(place.name for place in run_directories), paired)
    return Written([*files, write_page(directory, run_directories, scores, paired, searched)], paired)


def print_report(found: Sequence[Row], store: Store, console: Console, paired: PairedScores | None = None) -> None:
    """Lay a run's tables on the terminal. `paired`: what was found on the same samples, looked for now where that is None."""
    if has_families(found):
        from pipeline.report.modality_tables import print_modality

        print_modality(outcomes(found, store), console)
        if lacking := unfinished(found, store):
            console.print(f"\n{lacking}", highlight=False, soft_wrap=True)
        return
    if made := searches(found, store):
        from pipeline.report.search_tables import picks_grid, seeds_grid

        print_grids([seeds_grid(members) or picks_grid(members) for members in by_arm(made).values()], console)
    print_tables(all_scores(found, store), console, paired)


def has_families(found: Sequence[Row]) -> bool:
    """Whether the rows are merges and what they are held against."""
    return any(row.family for row in found)


def asked_notes(found: Sequence[Row], store: Store) -> list[str]:
    """Which split the models were asked on, and how many records of each set."""
    lacking = unfinished(found, store)
    record = next((record for row in found if (record := store.by_key(row.evaluation)) is not None), None)
    if record is None:
        return []
    details = record.content["details"]
    count = "all records" if details["samples"] is None else f"{details['samples']} records"
    return [f"Every model was asked {count} of each set's {details['split']} split.", *([lacking] if lacking else [])]


def unfinished(found: Sequence[Row], store: Store) -> str:
    """How many evaluations of a run are not there; empty where all are."""
    lacking = sum(store.by_key(row.evaluation) is None for row in found)
    return f"Unfinished: {lacking} of {len(found)} evaluations are not there; run the experiment again to go on." if lacking else ""
