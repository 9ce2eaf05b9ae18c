"""What every sample of every trial scored: what differences between trials are paired by. Parquet: trial, task, row, score.

While a search runs each trial has a file of its own beside `trials.jsonl`, written whole before the trial counts as ended. `write_answers`
makes one file of them.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from foundation.files import write_atomic
from pipeline.search.spec import Trial

if TYPE_CHECKING:
    import numpy as np

ANSWERS_FILE = "answers.parquet"
FOLDER = "answers"
MOST_ROWS = 20_000_000
"""Of the one file: of more, the trials of lowest value are left out. At most 8 bytes a row and mostly under one, as scores repeat."""


@dataclass(frozen=True)
class Answers:
    """One trial's: for each task the rows that were asked, ascending, and their scores."""

    rows: "Mapping[str, np.ndarray]"
    scores: "Mapping[str, np.ndarray]"

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())


def answers_of(scored: Mapping[str, Mapping[int, float]]) -> Answers:
    """From task -> row -> score."""
    import numpy as np

    ordered = {task: sorted(rows) for task, rows in scored.items()}
    return Answers(
        {task: np.array(rows, np.int32) for task, rows in ordered.items()},
        {task: np.array([scored[task][row] for row in rows], np.float64) for task, rows in ordered.items()},
    )


def place_of(scratch: Path, number: int) -> Path:
    """The file of one trial."""
    return scratch / FOLDER / f"{number}.parquet"


def keep(scratch: Path, number: int, answers: Answers) -> None:
    """Write a trial's answers, whole and through to disk."""
    import pyarrow.parquet as pq

    path, buffer = place_of(scratch, number), io.BytesIO()
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table_of(number, answers), buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def table_of(number: int, answers: Answers) -> Any:
    """A trial's answers as an Arrow table."""
    import numpy as np
    import pyarrow as pa

    def joined(parts: Iterable["np.ndarray"], kind: type) -> Any:
        return np.concatenate([np.empty(0, kind), *parts])

    tasks = pa.array([task for task, rows in answers.rows.items() for _ in range(len(rows))], pa.string()).dictionary_encode()
    return pa.table(
        {
            "trial": pa.array(np.full(len(answers), number, np.int32)),
            "task": tasks,
            "row": pa.array(joined(answers.rows.values(), np.int32)),
            "score": pa.array(joined(answers.scores.values(), np.float64)),
        }
    )


def write_answers(scratch: Path, trials: Sequence[Trial], path: Path, most: int = MOST_ROWS) -> int:
    """Write the answers of `trials`, by number, into the one file `path`, and give how many trials are in it.

    Of more than `most` rows those of the trials of highest value stay. A trial that has left none is not in it.
    """
    import pyarrow.parquet as pq

    chosen, room = [], most
    for trial in sorted(trials, key=lambda trial: (trial.stopped, -trial.value, trial.number)):
        if place_of(scratch, trial.number).exists():
            room -= pq.read_metadata(place_of(scratch, trial.number)).num_rows
            if room < 0:
                break
            chosen.append(trial.number)
    writer = None
    for number in sorted(chosen):
        table = pq.read_table(place_of(scratch, number))
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return len(chosen)


def read_answers(path: Path, numbers: Sequence[int] | None = None) -> dict[int, Answers]:
    """Number -> answers, from a file of `write_answers`, of these trials (default: all) as far as they are in it; empty where there is no
    file. InputError for one that is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return {}
    try:
        file = pq.ParquetFile(path)
        tables = [file.read_row_group(place, ["trial", "task", "row", "score"]) for place in range(file.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as the answers of a search ({error}); remove it, or search again") from error
    found: dict[int, Answers] = {}
    wanted = None if numbers is None else set(numbers)
    for number, parts in groupby((table for table in tables if len(table)), key=lambda table: table["trial"][0].as_py()):
        if wanted is None or number in wanted:
            found[number] = answers_in(pa.concat_tables(parts))
    return found


def answers_in(table: Any) -> Answers:
    """One trial's answers from its table, in which the rows of a task stand together."""
    import numpy as np

    tasks = np.asarray(table["task"].to_pylist(), object)
    rows, scores = table["row"].to_numpy(), table["score"].to_numpy()
    starts = [0, *(int(place) + 1 for place in np.flatnonzero(tasks[1:] != tasks[:-1])), len(tasks)]
    spans = {str(tasks[start]): slice(start, end) for start, end in pairwise(starts) if end > start}
    return Answers({task: rows[span] for task, span in spans.items()}, {task: scores[span] for task, span in spans.items()})
