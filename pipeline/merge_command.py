"""`merge`: average checkpoints from the command line, as the seed system's script did, on Ray actors or in this process."""

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from foundation.errors import ConfigError
from mergers import InProcess, Source, WeightedAverage, execute, plan_merge, read_checkpoint, resolve_checkpoint

IN_PROCESS_THREADS = 4


def merge_checkpoints(
    texts: list[str],
    output: Path,
    alphas: list[float] | None,
    actors: int,
    partial: bool,
    replace: bool,
    verbose: bool,
    console: Console,
) -> None:
    """Plan the average, show it if `verbose`, carry it out, and say where the result is."""
    if len(texts) < 2:
        raise ConfigError(f"--checkpoints names {len(texts)} checkpoint; an average needs at least 2, e.g. --checkpoints A B")
    merger = WeightedAverage(None if alphas is None else tuple(alphas))
    names = [f"checkpoint {index}" for index in range(1, len(texts) + 1)]
    merger.check(names)
    checkpoints = [read_checkpoint(resolve_checkpoint(text)) for text in texts]
    sources = [Source(name, checkpoint, origin=checkpoint.path.name) for name, checkpoint in zip(names, checkpoints, strict=True)]
    plan = plan_merge(merger, sources, output, partial=partial, replace=replace)
    if verbose:
        for line in plan.describe():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        if actors:
            from pipeline.actors import RayActors
            from pipeline.cluster import connected

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


def _bar(console: Console) -> Progress:
    columns = (BarColumn(bar_width=40), DownloadColumn(), TransferSpeedColumn(), "left", TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
