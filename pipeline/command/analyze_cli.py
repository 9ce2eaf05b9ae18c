"""The command line of `analyze`: what is typed, nothing else; `analyze.py` does the work."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Look inside models: numbers, layers, answers.", no_args_is_help=True, rich_markup_mode=None)

Tasks = Annotated[list[str], typer.Option("--task", metavar="T T ...", help="The tasks to ask.")]
Samples = Annotated[int, typer.Option(help="Samples of each task.", min=1)]
Output = Annotated[Path, typer.Option("--output", help="The directory to write; must not hold anything yet.")]
Asked = Annotated[str, typer.Option(help="test or validation.")]
Batch = Annotated[int, typer.Option(help="How many are asked at a time.", min=1)]


@app.command()
def numbers(
    checkpoints: Annotated[list[str], typer.Argument(help="Checkpoints, e.g. the steps of a stage.", show_default=False)],
    task: Tasks,
    output: Output,
    samples: Samples = 300,
    split: Asked = "test",
    batch_size: Batch = 16,
    max_new_tokens: Annotated[int | None, typer.Option(help="Length of an answer (default: the task's).", min=1)] = None,
) -> None:
    """How much each model leans towards saying a number: statistics of the number tokens while it answers."""
    from pipeline.command.analyze import analyze_numbers

    analyze_numbers(
        checkpoints, task, samples, output, split=split, batch_size=batch_size, max_new_tokens=max_new_tokens, console=Console()
    )


@app.command()
def layers(
    tuned: Annotated[list[str], typer.Argument(help="Checkpoints to compare with the base.", show_default=False)],
    base: Annotated[str, typer.Option(help="The checkpoint that they were tuned from.")],
    task: Tasks,
    output: Output,
    samples: Samples = 300,
    split: Asked = "test",
    batch_size: Batch = 8,
) -> None:
    """How far each layer's attention and MLP have come from the base, seen through the output embeddings."""
    from pipeline.command.analyze import analyze_layers

    analyze_layers(base, tuned, task, samples, output, split=split, batch_size=batch_size, console=Console())


@app.command()
def answers(
    run: Annotated[str, typer.Argument(help="A run, by name or directory.", show_default=False)],
    workspace: Annotated[Path, typer.Option(help="Where store and runs lie.")] = Path(),
    output: Annotated[Path | None, typer.Option(help="Where to write (default: the run's report/answers).")] = None,
    samples: Annotated[int, typer.Option(help="Questions of each task.", min=1)] = 100,
) -> None:
    """What a run's models answered, stage by stage, with the images, on one page."""
    from pipeline.command.analyze import analyze_answers

    analyze_answers(run, output, workspace, samples, console=Console())
