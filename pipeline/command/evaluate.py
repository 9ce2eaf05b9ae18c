"""`evaluate`: one model, asked a suite from the command line, without a store; or the suite's prompts, shown as a model reads them."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluators.scores import TaskScore
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError, Interrupted, ResourceError, interruption_in
from foundation.hints import unknown
from mergers import read_checkpoint, resolve_checkpoint
from pipeline.command.terminal import counting_bars, say
from pipeline.config.bases import streams_of
from pipeline.config.experiment import read_config
from pipeline.config.inputs import check_checkpoint, check_fits, check_new, make_place
from pipeline.config.settings import Evaluation, Stream
from pipeline.config.suite_file import SUITE, SuiteFile, read_suite
from pipeline.config.yaml_file import read_yaml
from tasks.registry import DIGITS_BASE, DIGITS_STREAM
from tasks.task import Split


@dataclass(frozen=True)
class Asking:
    """What the options say; None where the suite decides. `show`: so many prompts of each task are shown, and nothing is asked."""

    suite: Path | None = None
    tasks: Sequence[str] | None = None
    samples: int | None = None
    split: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    show: int = 0
    output: Path | None = None


def evaluate_checkpoint(text: str, asking: Asking, console: Console) -> None:
    """Ask the model and print its scores with their standard errors; or show what it would be asked."""
    found = suite_of(asking)
    suite = found.suite(list(asking.tasks) if asking.tasks else None)
    checkpoint = check_checkpoint(text) or resolve_checkpoint(text)
    refuse_pairs(checkpoint)
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours shows what is asked; theirs would run through it
    if asking.show:
        show_prompts(checkpoint, suite, asking.show, console)
        return
    check_fits(checkpoint, parts=())
    if asking.output is not None:
        make_place(asking.output.absolute().parent, "the directory for --output,")
    with tempfile.TemporaryDirectory() as nowhere, told_as_stopped(asking.output):
        place = asking.output or Path(nowhere) / "answers"
        with claimed(place) as parts:
            scores = asked(checkpoint, suite, found.evaluate, place, console, parts)
    print_scores(scores, suite, console)
    if asking.output is not None:
        say(console, f"every answer: {asking.output / 'samples.parquet'}")
    else:
        say(console, f"to keep every answer: python -m pipeline evaluate {shlex.join([text, *repeated(asking), '--output', 'answers'])}")


def parts_beside(output: Path) -> Path:
    """Where finished parts wait while an evaluation runs: beside its output, which stays empty until all is answered."""
    output = output.absolute()
    return output.with_name(f".{output.name}.parts")


@contextmanager
def claimed(output: Path) -> Iterator[Path]:
    """The directory of the parts, held against every other evaluation into `output`. ResourceError where one is at work."""
    parts = parts_beside(output)
    parts.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(parts / ".lock", timeout=0):
            check_new(output, "--output")  # one that was at work a moment ago may have written it
            yield parts
            shutil.rmtree(parts, ignore_errors=True)
    except Timeout as error:
        raise ResourceError(f"--output {output}: another evaluation writes it now; wait for it, or name another directory") from error


@contextmanager
def told_as_stopped(output: Path | None) -> Iterator[None]:
    """Ctrl-C says what is kept, also where it strikes inside Ray, which wraps it in an error of its own."""
    try:
        yield
    except Exception as stop:
        if interruption_in(stop) is None:
            raise
        kept = "what was answered is kept" if output is not None else "without --output nothing is kept"
        raise Interrupted(f"stopped; {kept}, run the same command again to {'go on' if output is not None else 'begin anew'}") from stop


def suite_of(asking: Asking) -> SuiteFile:
    """The suite that the options name (a suite file, an experiment's own, else the digits tasks), with what they change."""
    if asking.split not in (None, Split.TEST, Split.VALIDATION):
        raise ConfigError(f"--split: {unknown('split', str(asking.split), [Split.TEST.value, Split.VALIDATION.value])}")
    found = named_suite(asking.suite)
    known = [*found.targets, *found.held_out]
    for name in asking.tasks or ():
        if name not in known:
            raise ConfigError(f"--tasks: {unknown('task', name, known)}")
        if list(asking.tasks or ()).count(name) > 1:
            raise ConfigError(f"--tasks names {name!r} more than once; name each task once")
    told = {"samples": asking.samples, "split": asking.split, "batch_size": asking.batch_size, "workers": asking.workers}
    changed: dict[str, Any] = {key: value for key, value in told.items() if value is not None}
    if asking.tasks:
        changed["harness"] = None
    return found.model_copy(update={"evaluate": found.evaluate.model_copy(update=changed)})


def named_suite(file: Path | None) -> SuiteFile:
    """What a suite file says, or the suite of the first model that an experiment asks."""
    if file is None:
        return SuiteFile(targets=list(DIGITS_STREAM), held_out=list(DIGITS_BASE))
    if "recipe" not in read_yaml(file, SUITE).data:
        return read_suite(file)
    _, config = read_config(file)
    stream = next((stream for stream, _ in streams_of(config)), None)
    if not isinstance(stream, Stream):
        raise ConfigError(f"--suite {file}: recipe {config.recipe} asks sets of images with text, not a suite of tasks; name another file")
    return SuiteFile(targets=stream.tasks, held_out=stream.held_out, data=stream.data, evaluate=stream.evaluate)


def refuse_pairs(checkpoint: Path) -> None:
    """InputError for a model that answers no questions in words: a modality-expert transformer."""
    if (read_checkpoint(checkpoint).config or {}).get("model_type") == "modality_experts":
        raise InputError(
            f"{checkpoint} is a modality-expert transformer, which writes no answers; it is asked by the modality recipes, "
            "see experiments/modality_merging.yaml"
        )


def asked(checkpoint: Path, suite: Suite, how: Evaluation, place: Path, console: Console, parts: Path) -> dict[str, TaskScore]:
    """The scores, with a bar per task meanwhile. `parts`: where finished parts wait; removed in the end."""
    from evaluators.evaluate import evaluate
    from pipeline.graph.actors import RayActors
    from pipeline.graph.cluster import connected

    with (
        connected() if how.workers else nullcontext(),
        RayActors(how.workers, how.gpus, how.threads) if how.workers else nullcontext() as crew,
        counting_bars(console) as bar,
    ):
        bars = {name: bar.add_task(name, total=how.samples) for name in suite.names}

        def on_progress(task: str, done: int, total: int) -> None:
            bar.update(bars[task], completed=done, total=total)

        return evaluate(checkpoint, suite, place, how.batch_size, how.threads, on_progress, scratch=parts, crew=crew)


def show_prompts(checkpoint: Path, suite: Suite, count: int, console: Console) -> None:
    """The first questions of each task as the model reads them, with the right answer. Loads the processor alone.

    Raises InputError as an evaluation does for a model that the suite cannot be put to.
    """
    from evaluators.fit import check_askable
    from models.prompts import question_text

    processor = check_askable(checkpoint, suite)
    for task in suite.tasks:
        for example in task.examples(suite.split, count):
            shown = ", ".join(f"{image.width} x {image.height}" for image in example.images) or "no image"
            console.rule(Text(visible(f"{task.name}: {example.key} ({shown})")), align="left")
            say(console, visible(question_text(processor, len(example.images), example.question, example.before)))
            say(console, visible(f"→ right answer: {' | '.join(example.references or (example.answer,))}"))
            if example.choices:
                say(console, visible(f"→ choices: {' | '.join(example.choices)}"))
    for each in suite.harness:
        say(console, f"{each.name}: asked by {each.harness.value}, which writes its own prompts")


def visible(text: str) -> str:
    """A text of somebody's data in which what would steer a terminal (escapes, marks of direction) is written out."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def print_scores(scores: dict[str, TaskScore], suite: Suite, console: Console) -> None:
    """A row per task, its further figures and groups below it, the average last."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "samples", "accuracy %", "± standard error"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for name in suite.names:
        table.add_row(Text(name), *figures(scores[name]))
        for part in (part for part in scores if part.startswith(f"{name}/")):
            table.add_row(Text(f"  {part.removeprefix(name + '/')}"), *figures(scores[part]), style="dim")
    mean = sum(scores[name].accuracy for name in suite.names) / len(suite.names)
    table.add_row("[bold]average", "", f"[bold]{100 * mean:.1f}", "")
    console.print(table)


def figures(score: TaskScore) -> tuple[str, str, str]:
    """Samples, score and standard error as a table shows them."""
    return str(score.samples), f"{100 * score.accuracy:.1f}", f"{100 * score.stderr:.1f}"


def repeated(asking: Asking) -> list[str]:
    """The options again, as they would be typed."""
    given = {"--suite": asking.suite, "--samples": asking.samples, "--split": asking.split, "--batch-size": asking.batch_size}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return [*words, *(["--tasks", *asking.tasks] if asking.tasks else [])]
