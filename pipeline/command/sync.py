"""`sync`: a run's records and journal brought to MLflow, without Ray: after an outage, to a new or emptied server, from a copied workspace.

It is written as the run itself would have written it, with the same times and the same end, from the first event on.
"""

import math
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from foundation.errors import ConfigError, InputError, MergelineError, ResourceError
from pipeline.command.summary import run_directory
from pipeline.command.terminal import LINE_SECONDS, say
from pipeline.config.experiment import EXPERIMENT_FILE, Built, build
from pipeline.results import read_identity
from pipeline.runner import alone
from pipeline.store import Store
from pipeline.tracking.admission import check_tracking
from pipeline.tracking.backend import tracking_uri, without_secrets
from pipeline.tracking.tracker import keep_journal, mark, refused_line
from pipeline.tracking.writing.journal import journal_file
from pipeline.tracking.writing.process import WriterProcess
from pipeline.tracking.writing.written import Written

LOOK_SECONDS = 0.2
START_SECONDS = 60
"""What the process may take to start before that counts as silence."""


def sync_runs(names: list[str], workspace: Path, tracking: str | None, wait: float, console: Console) -> None:
    """Write every named run to its MLflow, or to the one at `tracking`. ResourceError if it is silent for `wait` seconds."""
    if len(set(names)) < len(names):
        raise ConfigError(f"a run is named twice: {' '.join(names)}; name each once")
    if math.isnan(wait):
        raise ConfigError("--wait is no number; give the seconds without an answer after which it is given up")
    if tracking is not None:
        tracking = tracking_uri(tracking, workspace, "--tracking")
    found = [built_run(run_directory(name, workspace)) for name in names]
    process = WriterProcess()
    done = False
    try:
        for built in found:
            sync_run(built, tracking, wait, process, console)
        done = True
    finally:
        process.end(at_once=not done)


def built_run(directory: Path) -> Built:
    """The experiment of a run by the file that it left, wherever its workspace lies now; InputError where it cannot be made again."""
    workspace = directory.parents[1]
    try:
        built = build(directory / EXPERIMENT_FILE, [f"workspace={workspace}"])
    except MergelineError as error:
        raise InputError(f"run {directory.name} cannot be read again, so its steps are not known: {error}") from error
    if built.run_directory != directory:
        raise InputError(f"{directory} is the run {built.name!r} by its {EXPERIMENT_FILE}; give it back that name, in a directory runs/")
    if built.identity != read_identity(directory):
        raise InputError(
            f"{directory / EXPERIMENT_FILE} asks for other steps than the run made (this version of the code, or a base or data file, is "
            f"another one); run it again: python -m pipeline run {directory / EXPERIMENT_FILE}"
        )
    return built


def sync_run(built: Built, tracking: str | None, wait: float, process: WriterProcess, console: Console) -> None:
    """Write one run and say what was written."""
    own = without_secrets(tracking_uri(built.config.tracking.uri, built.workspace))
    uri = without_secrets(tracking) if tracking else own
    if wrong := check_tracking(built, tracking):
        raise ResourceError(f"no MLflow tracking server at {uri}: {wrong}; check the address")
    with ExitStack() as held:
        try:
            held.enter_context(alone(built.run_directory))
        except ResourceError as error:
            raise ResourceError(f"{built.run_directory} is in use: the run goes on, or another sync writes it; wait for its end") from error
        keep_journal(built, Store(built.workspace / "store"))
        process.write(built.run_directory, tracking, whole=True)
        written = _written(built, process, wait, uri, console)
    if written.place is not None and written.uri == own and not written.refused:
        mark(built, written.place)
    told = written.wrote
    say(console, f"{built.name}: {told.runs} runs, {told.models} models and {told.points} points written to {written.uri}")
    if refused := refused_line(built.run_directory, written):
        raise ResourceError(refused)


def _written(built: Built, process: WriterProcess, wait: float, uri: str, console: Console) -> Written:
    """What the process wrote; ResourceError once nothing has changed for `wait` seconds, or it does not stay alive."""
    size = journal_file(built.run_directory).stat().st_size
    before, since, told = None, time.monotonic(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=40), DownloadColumn(), "of its journal")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(built.name, total=size)
        while True:
            lives = process.wait(LOOK_SECONDS) or process.alive
            written, now = process.written, time.monotonic()
            if written is not None and written.place is not None:
                return written
            progress = None if written is None else (written.offset, written.wrote)
            if written is None and now - told < START_SECONDS:
                since = now  # it loads MLflow
            if written is not None:
                bars.update(bar, completed=written.offset, description=f"{built.name}: {written.wrote.points} points written,")
            if progress != before:
                before, since = progress, now
            if now - since > wait or not lives:
                raise ResourceError(
                    f"MLflow at {uri} could not be written for {wait:g} s ({process.trouble or 'no answer'}); "
                    "check that it runs and its address, then sync again: what is written already is not written twice"
                )
            if not console.is_terminal and now - told > LINE_SECONDS and written is not None:
                say(console, f"{built.name}: {written.offset} of {size} bytes of its journal, {written.wrote.points} points written")
                told = now
