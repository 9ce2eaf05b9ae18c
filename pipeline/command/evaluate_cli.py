"""The command line of `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint directory or hub id.", show_default=False)],
    suite: Annotated[Path | None, typer.Option(help="A suite file, or an experiment with its suite (default: digits).")] = None,
    tasks: Annotated[list[str] | None, typer.Option(metavar="T T ...", help="Ask these tasks of the suite alone.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples of each task (default: as the suite says, else 300).", min=1)] = None,
    split: Annotated[str | None, typer.Option(help="test or validation (default: as the suite says, else test).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="How many samples are asked at a time.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Ray actors that share the samples; 0 = no Ray.", min=0)] = None,
    show: Annotated[int, typer.Option(help="Show so many prompts of each task as the model reads them, and ask nothing.", min=0)] = 0,
    output: Annotated[Path | None, typer.Option(help="Keep every answer here (samples.parquet, scores.json).")] = None,
) -> None:
    """Ask one model a suite of tasks, alone."""
    from pipeline.command.evaluate import Asking, evaluate_checkpoint
    from pipeline.config.inputs import check_new

    if output is not None:
        check_new(output, "--output")
    evaluate_checkpoint(checkpoint, Asking(suite, tasks, samples, split, batch_size, workers, show, output), Console())
