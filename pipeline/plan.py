"""What a run would do, before it does it: every step with the reason why it runs or does not."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from pipeline.config.experiment import Built
from pipeline.step import Step, topological
from pipeline.store import Store
from pipeline.titles import step_titles, title_of


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan."""

    title: str
    key: str
    runs: bool
    why: str


def needed(targets: Iterable[Step], store: Store) -> dict[str, Step]:
    """The steps that have to run so that all targets are stored, inputs first, by key."""
    store.look()
    wanted = {target.key for target in targets}
    found: dict[str, Step] = {}
    for step in reversed(topological(targets)):  # from the targets down: a step is wanted by a target's user or by one that has to run
        if step.key in wanted and store.record(step) is None:
            found[step.key] = step
            wanted.update(required.key for required in step.inputs)
    return dict(reversed(found.items()))


def plan_steps(built: Built, store: Store) -> list[PlannedStep]:
    """The steps in the order they would run, each stored or to run, and why."""
    titles = step_titles(built.milestones)
    to_run = needed(built.targets, store)
    numbers = {step.key: number for number, step in enumerate(built.steps, start=1)}
    planned = []
    for step in built.steps:
        missing = store.why_not(step)
        if step.key in to_run:
            waits = [str(numbers[required.key]) for required in step.inputs if required.key in to_run]
            why = f"{missing}; after {' and '.join(waits)}" if waits else missing or ""
        else:
            why = "" if missing is None else f"{missing}, but nothing that has to run needs it"
        planned.append(PlannedStep(title_of(step, titles), step.key, step.key in to_run, why))
    return planned


def print_plan(planned: list[PlannedStep], console: Console) -> None:
    """The plan as a table, and how many steps it comes to."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("", justify="right")
    for name in ("", "step", "why"):
        table.add_column(name, overflow="fold")
    wide = console.width >= 110
    if wide:
        table.add_column("in the store as", style="dim", no_wrap=True)
    for number, step in enumerate(planned, start=1):
        state = "[yellow]run[/]" if step.runs else "[green]stored[/]"
        table.add_row(str(number), state, step.title, step.why, *([step.key[:-16]] if wide else []))
    console.print(table)
    running = sum(step.runs for step in planned)
    console.print(f"\n{running} of {len(planned)} steps to run, {len(planned) - running} stored.", highlight=False)
