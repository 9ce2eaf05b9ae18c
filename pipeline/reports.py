"""The report that fits what a run's rows are: stages of a stream, or merges that are held against one another."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pipeline.report import write_report
from pipeline.report.tables import print_tables
from pipeline.results import Row, all_scores, outcomes
from pipeline.store import Store


def report_of(found: Sequence[Row], store: Store, directory: Path, title: str) -> list[Path]:
    """Write the report of a run into `directory`; its files, `report.md` last."""
    if has_families(found):
        from pipeline.report.modality_write import write_modality_report

        return write_modality_report(outcomes(found, store), directory, title, asked_notes(found, store))
    return write_report(all_scores(found, store), directory, title)


def print_report(found: Sequence[Row], store: Store, console: Console) -> None:
    """Lay a run's tables on the terminal."""
    if has_families(found):
        from pipeline.report.modality_tables import print_modality

        print_modality(outcomes(found, store), console)
    else:
        print_tables(all_scores(found, store), console)


def has_families(found: Sequence[Row]) -> bool:
    """Whether the rows are merges and what they are held against."""
    return any(row.family for row in found)


def asked_notes(found: Sequence[Row], store: Store) -> list[str]:
    """Which split the models were asked on, and how many records of each set."""
    record = next((record for row in found if (record := store.by_key(row.evaluation)) is not None), None)
    if record is None:
        return []
    details = record.content["details"]
    count = "all records" if details["samples"] is None else f"{details['samples']} records"
    return [f"Every model was asked {count} of each set's {details['split']} split."]
