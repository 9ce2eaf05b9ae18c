"""`merge`: any merge from a file or from options of the command line, planned, carried out on Ray actors or in this process, and told."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from foundation.errors import ConfigError, MergelineError
from mergers import MergeResult, Plan, WeightedAverage, WiseFT, execute, method_name
from mergers.engine.served import needs_torch
from pipeline.command.terminal import ByteProgress, say
from pipeline.command.workers import hire
from pipeline.config.merge_request import MergeRequest, open_request
from pipeline.config.merge_source import request_from_file, request_from_options

OPTIONS = {
    "fix its view, or set partial: true": "add --partial",
    "set allow_nonfinite": "add --allow-nonfinite",
    "allow_pickle: true": "--allow-pickle",
    "name one as base": "name one with --base",
}
"""How the library words an advice -> how it is followed with options of the command line; a merge file follows the library's words."""
ALWAYS = {"allow it to be replaced (replace)": "add --replace"}


@dataclass(frozen=True)
class Ways:
    """How a merge is carried out, whatever is merged: where to, on what, and whether it is to be planned only."""

    output: Path
    actors: int = 0
    processes: int | None = None
    device: str = "cpu"
    replace: bool = False
    plan_only: bool = False
    verbose: bool = False


def merge_file(path: Path, overrides: Sequence[str], changes: dict[str, object], ways: Ways, console: Console) -> None:
    """Merge as a file says, with what the command line lays over it."""
    request = replace(request_from_file(path, overrides), **changes)  # type: ignore[arg-type]
    carry_out(request, ways, ALWAYS, console)


def merge_checkpoints(
    method: str | None,
    texts: Sequence[str],
    base: str | None,
    alphas: Sequence[str] | None,
    overrides: Sequence[str],
    changes: dict[str, object],
    ways: Ways,
    console: Console,
) -> None:
    """Merge the checkpoints that the command line names; an average unless a method is named."""
    if len(texts) < 2 and method is None:
        raise ConfigError(f"--checkpoints names only {' '.join(texts)}; an average needs at least 2, e.g. --checkpoints A B")
    weights = None if alphas is None else weights_of(alphas)
    request = replace(request_from_options(method or "weighted_average", texts, base, weights, overrides), **changes)  # type: ignore[arg-type]
    carry_out(request, ways, {**ALWAYS, **OPTIONS}, console)


def carry_out(request: MergeRequest, ways: Ways, words: dict[str, str], console: Console) -> None:
    """Plan a merge, show the plan where asked, do it, and say where the result is."""
    try:
        plan = open_request(request, ways.output, ways.replace)
        if ways.plan_only or ways.verbose:
            show(plan, console)
        if ways.plan_only:
            return
        result = executed(plan, ways, console)
    except MergelineError as error:
        raise in_command_words(error, request, words) from error
    say(console, f"{ways.output} = {formula(request)}")
    moved = (result.bytes_read + result.bytes_written) / 1e6
    say(
        console,
        f"{result.tensors_merged} tensors merged, {result.tensors_copied} copied bit for bit, {result.parameters:,} parameters, "
        f"{result.bytes_written / 1e6:.1f} MB in {result.seconds:.1f} s ({moved / max(result.seconds, 1e-9):,.0f} MB/s read and written)",
    )
    say(console, f"sha256 {result.digest}")
    say(console, f"next: python -m pipeline evaluate {shlex.quote(str(ways.output))}")


def executed(plan: Plan, ways: Ways, console: Console) -> MergeResult:
    """The merge done, on actors or in this process, with a progress bar."""
    with ExitStack() as stack:
        torch = any(needs_torch(tensor, ways.device) for tensor in plan.tensors)
        executor = hire(stack, len(plan.items), ways.actors, ways.processes, ways.device, torch)
        return execute(plan, executor, stack.enter_context(ByteProgress(console)), ways.device)


def plan_file(path: Path, overrides: Sequence[str], console: Console) -> None:
    """Show what a merge file would do, into a directory that is not there yet. Reads headers only."""
    request = request_from_file(path, overrides)
    names = (Path(f"{path.stem}-merged{'-' * bool(number)}{number or ''}") for number in range(10**6))
    output = next(name for name in names if not name.exists())
    show(open_request(request, output), console)
    changed = ["--set", *overrides] if overrides else []
    say(console, f"next: python -m pipeline {shlex.join(['merge', '--config', str(path), str(output), *changed])}")


def show(plan: Plan, console: Console) -> None:
    """The plan's lines."""
    for line in plan.describe():
        say(console, line)


def validate_file(path: Path, overrides: Sequence[str]) -> str:
    """Check a merge file without opening a checkpoint; a sentence on what it would do."""
    request = request_from_file(path, overrides)
    request.check()
    return f"valid; {formula(request)}"


def formula(request: MergeRequest) -> str:
    """The merge in a line: a sum where it is one."""
    texts = [source.checkpoint for source in request.sources]
    if isinstance(request.merger, WiseFT):
        weights: Sequence[float] = tuple(request.merger.weights.values())
    elif isinstance(request.merger, WeightedAverage):
        weights = request.merger.weights_for(len(texts))
    else:
        base = f", base {request.base.checkpoint}" if request.base else ""
        return f"{method_name(request.merger)} of {', '.join(texts)}{base}"
    return " + ".join(f"{weight:g} x {text}" for weight, text in zip(weights, texts, strict=True))


def weights_of(texts: Sequence[str]) -> tuple[float, ...]:
    """The weights as numbers; ConfigError for a word that is none."""
    weights = []
    for text in texts:
        try:
            weights.append(float(text))
        except ValueError as error:
            advice = "give one weight per checkpoint with blanks between, e.g. --alphas 0.5 0.5"
            raise ConfigError(f"--alphas: {text!r} is not a number; {advice}") from error
    return tuple(weights)


def in_command_words(error: MergelineError, request: MergeRequest, words: dict[str, str]) -> MergelineError:
    """The error with this command's options in place of the library's words, and the checkpoints as they were typed."""
    message = str(error)
    for library, option in words.items():
        message = message.replace(library, option)
    told = type(error)(message)
    for note in getattr(error, "__notes__", []):
        told.add_note(note)
    typed = [f"{source.name} is {source.checkpoint}" for source in request.sources if source.name.startswith("checkpoint ")]
    numbered = [text for text in typed if text.partition(" is ")[0] in message]
    if numbered:
        told.add_note(", ".join(numbered))
    return told
