"""What a person sees while a run goes on: bars with rate and time left on a terminal, one plain line per event elsewhere."""

import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipeline.graph.monitor import Progress as StepProgress
from pipeline.step import Step
from pipeline.steps import Evaluation
from pipeline.store import Store
from pipeline.titles import title_of


class Display:
    """Shows the steps of one run. Use as a context manager; every call comes from the driver's thread."""

    def __init__(self, console: Console, titles: dict[str, str], total: int, store: Store) -> None:
        self.console, self.titles, self.total, self.store = console, titles, total, store
        self.done = 0
        self.started: dict[str, float] = {}
        self.bars = _bars(console) if console.is_terminal else None
        self.tasks: dict[str, TaskID] = {}
        self.whole: TaskID | None = None

    def __enter__(self) -> "Display":
        if self.bars is not None:
            self.bars.start()
            self.whole = self.bars.add_task("[bold]all steps", total=self.total, note="", timed=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def progress(self, running: Mapping[str, StepProgress]) -> None:
        """Show how far the running steps are; a step is announced when it is first seen."""
        for key, state in running.items():
            if key not in self.started:
                self.started[key] = time.time()
                if self.bars is None:
                    self.line(f"{'start':>7}  {self.titles.get(key, key)}")
                else:
                    self.tasks[key] = self.bars.add_task(self.titles.get(key, key), total=None, note="", timed=True)
            if self.bars is not None:
                self.bars.update(self.tasks[key], completed=state.done, total=state.total or None, note=state.note)

    def finished(self, step: Step) -> None:
        """A step is stored."""
        self.done += 1
        record = self.store.record(step)
        seconds = record.content["seconds"] if record else 0
        self._gone(step)
        self.line(f"{self.done:>3}/{self.total:<3}  {title_of(step, self.titles)}  {seconds:.1f} s{self._figures(step)}")

    def failed(self, step: Step, error: BaseException) -> None:
        """A step failed; what does not rest on it goes on."""
        self._gone(step)
        self.line(f"{'failed':>7}  {title_of(step, self.titles)}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")

    def line(self, text: str) -> None:
        """One line above the bars."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _gone(self, step: Step) -> None:
        if self.bars is not None:
            if step.key in self.tasks:
                self.bars.remove_task(self.tasks.pop(step.key))
            if self.whole is not None:
                self.bars.update(self.whole, completed=self.done)

    def _figures(self, step: Step) -> str:
        record = self.store.record(step)
        if record is None or not isinstance(step, Evaluation):
            return ""
        found = [record.metrics[name]["accuracy"] for name in step.suite.names if name in record.metrics]
        return f"  accuracy {100 * sum(found) / len(found):.1f} %" if found else ""


class _Amount(ProgressColumn):
    """How far a task is, at what rate, and the time left; for all steps together only the count, since steps differ in length."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("starting", style="dim")
        amount = f"{task.completed:.0f}/{task.total:.0f}"
        if not task.fields["timed"] or not task.speed or task.time_remaining is None:
            return Text(amount)
        return Text(f"{amount}  {task.speed:.1f}/s  {timedelta(seconds=round(task.time_remaining))} left")


def _bars(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        _Amount(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console, transient=True, refresh_per_second=4)
