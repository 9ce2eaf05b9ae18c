"""`evaluate`: one model, asked from the command line, without Ray or a store."""

import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from evaluators.suite import Suite
from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers import resolve_checkpoint
from pipeline.config.inputs import check_checkpoint, check_fits
from tasks.registry import DIGITS_BASE, DIGITS_STREAM, get_task
from tasks.task import Split


def evaluate_checkpoint(text: str, tasks: list[str] | None, samples: int, split: str, output: Path | None, console: Console) -> None:
    """Ask the model and print its score on each task, with standard errors."""
    if split not in (Split.TEST, Split.VALIDATION):
        raise ConfigError(f"--split: {unknown('split', split, [Split.TEST.value, Split.VALIDATION.value])}")
    twice = [task for task in tasks or [] if (tasks or []).count(task) > 1]
    if twice:
        raise ConfigError(f"--tasks names {twice[0]!r} more than once; name each task once")
    suite = Suite(tuple(map(get_task, tasks or [*DIGITS_BASE, *DIGITS_STREAM])), split=Split(split), samples=samples)
    checkpoint = check_checkpoint(text) or resolve_checkpoint(text)
    check_fits(checkpoint, parts=())
    from transformers.utils import logging

    from evaluators.evaluate import evaluate

    logging.disable_progress_bar()  # ours shows what is asked; theirs would run through it
    with tempfile.TemporaryDirectory() as scratch, Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        bars = {task.name: bar.add_task(task.name, total=samples) for task in suite.tasks}
        place = output or Path(scratch)
        scores = evaluate(
            checkpoint, suite, place, on_progress=lambda task, done, total: bar.update(bars[task], completed=done, total=total)
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "samples", "accuracy %", "± standard error"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for name, score in scores.items():
        table.add_row(name, str(score.samples), f"{100 * score.accuracy:.1f}", f"{100 * score.stderr:.1f}")
    mean = sum(score.accuracy for score in scores.values()) / len(scores)
    table.add_row("[bold]average", "", f"[bold]{100 * mean:.1f}", "")
    console.print(table)
    if output is not None:
        console.print(f"every answer: {output / 'samples.parquet'}", highlight=False, soft_wrap=True)
