"""What commands that move bytes show: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from foundation.sizes import size

LINE_SECONDS = 10
"""Between plain lines: short work says nothing."""


class ByteProgress:
    """Shows how many bytes of how many have been moved; called with both. A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (BarColumn(bar_width=40), DownloadColumn(), TransferSpeedColumn(), "left", TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=None)
        self.began = self.told = time.monotonic()

    def __enter__(self) -> "ByteProgress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total)
        now = time.monotonic()
        if self.console.is_terminal or now - self.told < LINE_SECONDS or done >= total:
            return
        self.told = now
        rate = done / (now - self.began)
        left = (total - done) / rate if rate else 0.0
        say(self.console, f"{100 * done / total:3.0f} % of {size(total)} read and written, {size(rate)}/s, {left:.0f} s left")


def counting_bars(console: Console) -> Progress:
    """Bars that count things, named, with the time left; on a terminal only, and gone when they end."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=40), MofNCompleteColumn(), "left", TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def say(console: Console, line: str) -> None:
    """A line as it is, neither coloured nor broken."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
