"""`merge`: average checkpoints from the command line, as the seed system's script did, on Ray actors or in this process."""

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from foundation.errors import ConfigError, MergelineError
from mergers import InProcess, Plan, Source, WeightedAverage, execute, plan_merge, read_checkpoint, resolve_checkpoint

IN_PROCESS_THREADS = 4
COMMAND_WORDS = {"fix its view, or set partial: true": "add --partial", "allow it to be replaced (replace)": "add --replace"}
"""How the library words an advice -> how it is followed on the command line."""


def merge_checkpoints(
    texts: list[str],
    output: Path,
    alphas: list[str] | None,
    actors: int,
    partial: bool,
    replace: bool,
    verbose: bool,
    console: Console,
) -> None:
    """Plan the average, show it if `verbose`, carry it out, and say where the result is."""
    if len(texts) < 2:
        raise ConfigError(f"--checkpoints names only {' '.join(texts)}; an average needs at least 2, e.g. --checkpoints A B")
    merger = WeightedAverage(None if alphas is None else weights_of(alphas))
    try:
        plan = _planned(merger, texts, output, partial, replace)
    except MergelineError as error:
        raise _in_command_words(error, texts) from error
    if verbose:
        for line in plan.describe():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        if actors:
            from pipeline.graph.actors import RayActors
            from pipeline.graph.cluster import connected

            stack.enter_context(connected())
        bar = stack.enter_context(_bar(console))
        task = bar.add_task("", total=plan.bytes_to_write)
        result = execute(
            plan, RayActors(actors) if actors else InProcess(IN_PROCESS_THREADS), lambda done, total: bar.update(task, completed=done)
        )
    weights = " + ".join(f"{weight:g} x {text}" for weight, text in zip(merger.weights_for(len(texts)), texts, strict=True))
    console.print(f"{output} = {weights}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{result.tensors_merged} tensors merged, {result.tensors_copied} copied bit for bit, {result.parameters:,} parameters, "
        f"{result.bytes_written / 1e6:.1f} MB in {result.seconds:.1f} s; sha256 {result.digest[:16]}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"next: python -m pipeline evaluate {output}", highlight=False, markup=False, soft_wrap=True)


def weights_of(texts: list[str]) -> tuple[float, ...]:
    """The weights as numbers; ConfigError for a word that is none."""
    weights = []
    for text in texts:
        try:
            weights.append(float(text))
        except ValueError as error:
            advice = "give one weight per checkpoint with blanks between, e.g. --alphas 0.5 0.5"
            raise ConfigError(f"--alphas: {text!r} is not a number; {advice}") from error
    return tuple(weights)


def _planned(merger: WeightedAverage, texts: list[str], output: Path, partial: bool, replace: bool) -> Plan:
    names = [f"checkpoint {index}" for index in range(1, len(texts) + 1)]
    merger.check(names)
    checkpoints = [read_checkpoint(resolve_checkpoint(text)) for text in texts]
    sources = [Source(name, checkpoint, origin=checkpoint.path.name) for name, checkpoint in zip(names, checkpoints, strict=True)]
    return plan_merge(merger, sources, output, partial=partial, replace=replace)


def _in_command_words(error: MergelineError, texts: list[str]) -> MergelineError:
    """The error with this command's options in place of the library's, and the checkpoints as they were typed."""
    message = str(error)
    for library, option in COMMAND_WORDS.items():
        message = message.replace(library, option)
    told = type(error)(message)
    numbered = [f"checkpoint {index} is {text}" for index, text in enumerate(texts, start=1) if f"checkpoint {index}" in message]
    if numbered:
        told.add_note(", ".join(numbered))
    return told


def _bar(console: Console) -> Progress:
    columns = (BarColumn(bar_width=40), DownloadColumn(), TransferSpeedColumn(), "left", TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
