"""The page's file: gathers what it shows from runs' directories, and writes it in one piece beside the other files of the report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foundation.errors import ConfigError, InputError
from foundation.files import write_atomic
from pipeline.report.page.changed import Changed, changed_answers
from pipeline.report.page.facts import facts_of
from pipeline.report.page.page import Content, report_page
from pipeline.report.paired import PairedScores
from pipeline.report.run_scores import RunScores

PAGE_FILE = "report.html"
PAGE_BYTES = 15_000_000
"""The most that a page weighs: an answer that would make it heavier is left out, and the page says how many are shown."""
PICTURES_BYTES = 3_000_000
"""The most that pictures of searches weigh; the others stay beside the page."""
SEARCH_PICTURES = {"curve": "score over the parameter", "parallel": "every trial", "frontier_held_out": "new task against held-out tasks"}


def write_page(
    directory: Path,
    runs: Sequence[Path],
    scores: Sequence[RunScores],
    paired: PairedScores,
    pictures: Sequence[Path] = (),
    most_bytes: int = PAGE_BYTES,
) -> Path:
    """Write `report.html` of the runs in `runs` (their directories) into `directory`; gives its path.

    `scores`: what `pipeline.results.all_scores` gives for them, `paired`: what `paired_scores` gives for those. `pictures`: files of the
    searches' report. Raises InputError for runs with gaps.
    """
    title = ", ".join(run.name for run in runs)
    shown, left_out = search_pictures(pictures)
    content = Content(title, scores, [facts_of(run) for run in runs], paired, pictures=shown, left_out=left_out)
    room = most_bytes - len(report_page(content).encode())
    content = replace(content, changed=answers_of(runs, room))
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / PAGE_FILE, report_page(content))
    return directory / PAGE_FILE


def answers_of(runs: Sequence[Path], room: int) -> Changed | str:
    """The answers that changed, or in words why they cannot be shown: the figures stand without them."""
    try:
        return changed_answers(runs, room)
    except (InputError, ConfigError) as error:
        return f"The answers cannot be shown: {error}"


def search_pictures(files: Sequence[Path]) -> tuple[dict[str, bytes], int]:
    """Caption -> PNG, of those of `files` that the page shows, as far as they fit; and how many do not."""
    known = [(path, start) for start in SEARCH_PICTURES for path in files if path.name.startswith(start) and path.suffix == ".png"]
    shown: dict[str, bytes] = {}
    for path, start in known:
        arm = path.stem[len(start) :].strip("_-").replace("-", " ")
        png = path.read_bytes()
        if sum(map(len, shown.values())) + len(png) > PICTURES_BYTES:
            break
        shown[f"{arm}: {SEARCH_PICTURES[start]}" if arm else SEARCH_PICTURES[start]] = png
    return shown, len(known) - len(shown)
