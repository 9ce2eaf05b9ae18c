"""`compare`: a run before and after its merges, or several runs against the first; as tables, files, JSON, and as MLflow's pages."""

import json
import shlex
import socket
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from foundation.errors import ConfigError, ResourceError
from foundation.files import write_atomic
from pipeline.command.summary import run_directory
from pipeline.command.terminal import say
from pipeline.compare import Comparisons, Opened, compare_runs, open_run, other_runs
from pipeline.config.inputs import make_place
from pipeline.report.compare.files import comparison_files
from pipeline.report.compare.tables import as_data
from pipeline.report.terminal import print_comparisons
from pipeline.tracking.pages import Pages, pages_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHORT = 14
"""Letters of a run's name that a column has room for; where one is longer, the runs go by letters."""


@dataclass(frozen=True)
class Shown:
    """Where the comparison goes beside the terminal."""

    output: Path | None = None
    as_json: bool = False
    open_page: bool = False


def show_comparison(names: Sequence[str], workspace: Path, stage: int | None, shown: Shown, console: Console) -> None:
    """Print the comparison, write and open what `shown` asks for, and end with a next command.

    Raises InputError for a run that is not there or has nothing to compare yet, ConfigError for one named twice, ResourceError where the
    page cannot be opened.
    """
    directories = [run_directory(name, workspace) for name in names]
    if len({path.resolve() for path in directories}) < len(directories):
        raise ConfigError(f"a run is named twice: {' '.join(names)}; name each once")
    runs = [open_run(path, label) for path, label in zip(directories, _labels(directories), strict=True)]
    found = compare_runs(runs, stage)
    pages = pages_of(found)
    following = _next(found, pages, names, workspace)
    if shown.output is not None:
        make_place(shown.output.absolute(), "--output")
        for name, content in comparison_files(found).items():
            write_atomic(shown.output / name, content)
    if shown.as_json:
        print(json.dumps(_data(found, pages, following), indent=2, ensure_ascii=False))
    else:
        _print(found, pages, shown, console)
    if shown.open_page:
        _open(pages, _home(found.runs[0]))
    if not shown.as_json:
        say(console, f"next: {following}")


def _labels(directories: Sequence[Path]) -> list[str]:
    names = [path.name for path in directories]
    if len(names) == 1 or (len(set(names)) == len(names) and all(len(name) <= SHORT for name in names)):
        return names
    return list(LETTERS[: len(names)]) if len(names) <= len(LETTERS) else [f"run {place}" for place in range(1, len(names) + 1)]


def _print(found: Comparisons, pages: Pages, shown: Shown, console: Console) -> None:
    for run in found.runs:
        if run.label != run.name:
            say(console, f"{run.label}  {run.name}  ({run.directory})")
    print_comparisons(found, console)
    for note in (*found.notes, *pages.notes):
        console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if shown.output is not None:
        say(console, f"files    {shown.output}/compare.md and {len(comparison_files(found)) - 1} beside it")
    for name, link in pages.links.items():
        say(console, f"{name:<8} {link}")


def _next(found: Comparisons, pages: Pages, names: Sequence[str], workspace: Path) -> str:
    """What helps most: finish, bring to MLflow, see the pages, or go on to another comparison."""
    place = ["--workspace", str(workspace)] if workspace != Path() else []
    unfinished = next((run for run in found.runs if run.lacking), None)
    if unfinished is not None:
        return _command("run", str(unfinished.file))
    if pages.lacking:
        return _command("sync", *(run.name for run in pages.lacking), "--workspace", str(_home(pages.lacking[0])))
    if pages.links and pages.local and not _listens(pages.base):
        return f"{_command('ui', '--workspace', str(_home(found.runs[0])))}   (then open the links above)"
    others = other_runs(found.runs[0]) if len(names) == 1 else []
    if others:
        return _command("compare", names[0], others[0], *place)
    if pages.links:
        return _command("compare", *names, "--open", *place)
    return _command("report", *names, *place)


def _command(*words: str) -> str:
    return f"python -m pipeline {shlex.join(words)}"


def _home(run: Opened) -> Path:
    """The workspace of a run."""
    return run.directory.parents[1]


def _data(found: Comparisons, pages: Pages, following: str) -> dict[str, Any]:
    return {
        "runs": [
            {
                "label": run.label,
                "name": run.name,
                "directory": str(run.directory),
                "evaluations": run.asked,
                "lacking": run.lacking,
            }
            for run in found.runs
        ],
        "settings": {key: dict(zip((run.label for run in found.runs), values, strict=True)) for key, values in found.settings.items()},
        "merges": [as_data(each) for each in found.merges],
        "models": [as_data(each) for each in found.models],
        "notes": [*found.notes, *pages.notes],
        "links": pages.links,
        "next": following,
    }


def _open(pages: Pages, workspace: Path) -> None:
    """Open the compare page in the user's browser; `workspace` is that of the first run."""
    link = pages.links.get("compare")
    if link is None:
        raise ResourceError("there is no page to open: " + ("; ".join(pages.notes) or "the runs are not in MLflow"))
    if not _listens(pages.base):
        start = f"; start it in another terminal: {_command('ui', '--workspace', str(workspace))}" if pages.local else ""
        raise ResourceError(f"nothing answers at {pages.base}, so the page was not opened{start}")
    if pages.local and not _knows(pages):
        raise ResourceError(
            f"the MLflow at {pages.base} does not know this run: it shows another workspace; end it, and start "
            f"{_command('ui', '--workspace', str(workspace))}"
        )
    if not webbrowser.open(link):
        raise ResourceError(f"no browser was found here; open this where there is one: {link}")


def _listens(base: str) -> bool:
    where = urlsplit(base)
    try:
        port = where.port or (443 if where.scheme == "https" else 80)
        with socket.create_connection((where.hostname or "127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def _knows(pages: Pages) -> bool:
    """Whether the server of this machine shows the database that holds the runs."""
    try:
        with urllib.request.urlopen(f"{pages.base}/api/2.0/mlflow/runs/get?run_id={pages.runs[0]}", timeout=20):
            return True
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except OSError:
        return False
