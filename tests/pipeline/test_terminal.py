"""Progress of bytes: nothing for short work, plain lines for long work where there is no terminal."""

from io import StringIO

import pytest
from rich.console import Console

from pipeline.command import terminal
from pipeline.command.terminal import ByteProgress


def test_plain_lines_tell_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 11.0, 12.0, 40.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock, 40.0))
    text = StringIO()
    with ByteProgress(Console(file=text, width=200)) as progress:
        for done in (1, 11, 12, 40):
            progress(done * 10**8, 40 * 10**8)
    assert text.getvalue().splitlines() == [" 28 % of 4.00 GB read and written, 100.00 MB/s, 29 s left"]
