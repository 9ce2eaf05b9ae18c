"""What a run came to, compared, on its pipeline's run in MLflow: what each merge changed on the same samples, intransigence, the tables.

Metrics of a run with one arm, with the stage as the step, a chart per task in each section:

    change/<task>          after − before the merge, on the same samples      change_p/<task>   of no difference
    change_low/<task>, change_high/<task>   its 95 % interval
    intransigence/stream   on the tracks after the merges, where a joint run is among the arms

With several arms: `<metric>/<arm>`, as `acc_average/wise_ft`: the mean over its seeds after each stage that all arms have done. The
tables and the picture of `compare` are artifacts in `comparison/`; the result stands in the run's description. All of it is made from
records alone.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from foundation.files import write_atomic
from pipeline.compare import Comparisons, Opened, compare_runs
from pipeline.report.compare.files import PICTURE, comparison_texts, tasks_markdown
from pipeline.report.compare.models import Compare, Line
from pipeline.report.compare.tables import interval_text, seeds_text
from pipeline.report.comparison import COMPARED, after_stage, arms_of, estimate, figures_of, percent
from pipeline.report.paired import AVERAGE, HELD_OUT_MEAN, STREAM_MEAN, Contrast, paired_scores
from pipeline.report.run_scores import AFTER, BEFORE, RunScores, stages_done
from pipeline.results import rows, run_scores
from pipeline.tracking.book import Metric
from pipeline.tracking.scores import metric_name

if TYPE_CHECKING:
    from pipeline.tracking.mirror import Mirror

LAYOUT = 1  # of what is written; a higher one has finished runs written again
FOLDER = "comparison"
MADE_TAG = "mergeline.comparison"
"""The digest of all that is written here, set last: so that it is sent once."""
NOTE_TAG = "mlflow.note.content"
MOST_LINES = 12
MOST_NOTE = 4500
"""Characters of a tag's value that MLflow takes from every version on (5,000), less what stands before the table."""
MEANS = {HELD_OUT_MEAN: "held_out", STREAM_MEAN: "stream", AVERAGE: "average"}
"""A mean in tables -> in the names of metrics, as in `acc/average`."""


def mirror_comparison(mirror: "Mirror") -> None:
    """Write what the merges changed and the comparison's tables onto the pipeline's run, as far as stages are done."""
    built, store = mirror.built, mirror.store
    found = rows(built.milestones, built.config.recipe)
    if any(row.family for row in found):
        return  # merges within one experiment have no stages: `analyze` and their report compare them
    scores = tuple(of for each in mirror.scores if (of := run_scores(each.rows, store)).stages and stages_done(of))
    if not scores:
        return
    finished = {row.evaluation: record.content["finished"] for row in found if (record := store.by_key(row.evaluation)) is not None}
    ends = {(row.arm, row.seed, row.stage): finished[row.evaluation] for row in found if row.role == AFTER and row.evaluation in finished}
    run = mirror.pipeline_run()
    points = {run: list(_merges(scores, ends) if len(mirror.scores) == 1 else _arms(scores, ends))}
    for each in mirror.scores if any(other.joint for other in scores) else ():
        of, tracks = run_scores(each.rows, store), each.track_runs()
        if tracks and not of.joint:
            points[tracks[-1]] = list(_intransigence(of, scores, ends))
    lacking = sum(row.evaluation not in finished for row in found)
    _write(mirror, run, points, compare_runs([Opened(built.run_directory, built.name, scores, len(found), lacking)]))


def _merges(scores: Sequence[RunScores], ends: dict[tuple[str, int, int], float]) -> Iterable[Metric]:
    """What every merge changed, stage by stage."""
    for contrast in paired_scores(scores).merges:
        time = ends[contrast.arm, contrast.seeds[0], contrast.stage]
        yield from _contrast(contrast, time)


def _contrast(contrast: Contrast, time: float) -> Iterable[Metric]:
    named = [(MEANS[each.name], each.found) for each in contrast.means] + [(metric_name(each.name), each.found) for each in contrast.tasks]
    if named and "average" not in dict(named):
        named.append(("average", named[0][1]))  # without held-out tasks the mean over the stream is that over all
    for name, found in named:
        for figure, value in {"change": found.difference, "change_low": found.low, "change_high": found.high, "change_p": found.p}.items():
            yield Metric(f"{figure}/{name}", value, time, contrast.stage)


def _arms(scores: Sequence[RunScores], ends: dict[tuple[str, int, int], float]) -> Iterable[Metric]:
    """Each arm's figures over the stages that all arms have done, the mean over its seeds: a section per figure, a chart per arm."""
    for arm in arms_of(scores):
        for stage in range(1, arm.stage + 1):
            figures = [figures_of(run, stage, scores) for run in arm.runs]
            time = max(ends[arm.name, run.seed, stage] for run in arm.runs)
            for metric in (metric for metric in COMPARED if all(metric in each for each in figures)):
                key = f"{metric.replace('/', '_')}/{metric_name(arm.name).replace('/', '_')}"
                yield Metric(key, estimate([each[metric] for each in figures]).mean, time, stage)


def _intransigence(run: RunScores, beside: Sequence[RunScores], ends: dict[tuple[str, int, int], float]) -> Iterable[Metric]:
    """How far each stage stays behind joint training, on the track after the merges."""
    for stage in range(1, stages_done(run) + 1):
        figures = figures_of(run, stage, beside)
        if "intransigence" in figures:
            yield Metric("intransigence/stream", figures["intransigence"], ends[run.arm, run.seed, stage], stage)


def _write(mirror: "Mirror", run: str, points: dict[str, list[Metric]], found: Comparisons) -> None:
    """The points, the tables and the picture, and the result in the description; all of it once, and again only if it changed."""
    client, book = mirror.book.client, mirror.book
    files: dict[str, str | bytes] = {**comparison_texts(found, picture="")}
    tables = {f"{FOLDER}/{name}.json": table for name, table in _tables(found).items()}
    digest = sha256(repr([LAYOUT, list(points.values()), files, tables]).encode()).hexdigest()
    tags = client.get_run(run).data.tags
    if tags.get(MADE_TAG) == digest:
        return
    from pipeline.report.compare.plot import differences_plot

    for each, told in points.items():
        book.log(each, told)
    files[PICTURE] = differences_plot((*found.merges, *found.models))
    with TemporaryDirectory() as directory:
        for name, content in files.items():
            write_atomic(Path(directory) / name, content)
        client.log_artifacts(run, directory, FOLDER)
    for place, table in tables.items():
        client.log_dict(run, table, place)
    client.set_tag(run, "mlflow.loggedArtifacts", json.dumps([{"path": place, "type": "table"} for place in tables]))
    note = tags.get(NOTE_TAG, "").split("\n\n", 1)[0]
    if note.startswith("`"):  # ours; somebody's own words are left alone
        client.set_tag(run, NOTE_TAG, f"{note}\n\n{_note(found)}")
    client.set_tag(run, MADE_TAG, digest)


def _tables(found: Comparisons) -> dict[str, dict[str, list[Any]]]:
    """The tables as JSON that MLflow's pages show as such, the columns that count first: a page shows six, and the others on demand."""
    tables: dict[str, dict[str, list[Any]]] = {}
    for name, pairs in {"merges": found.merges, "arms": found.models}.items():
        sides = ["first arm", "this arm"] if name == "arms" else ["before", "after"]
        columns = ["arm", "task", *sides, "difference", "95 % interval", "p", "base", "stage"]
        rows = [[each.second.name, line.name, *_cells(line), each.second.stage] for each in pairs for line in each.lines]
        skipped = 0 if len({each.second.name for each in pairs}) > 1 or name == "arms" else 1
        if rows:
            tables[name] = {"columns": columns[skipped:], "data": [row[skipped:] for row in rows]}
    return tables


def _cells(line: Line) -> list[Any]:
    """Percent and points with one decimal; of several seeds the interval over these."""
    percents = [round(100 * value, 1) for value in (line.first, line.second, line.difference)]
    interval = seeds_text(line) if line.seeds.half_width is not None else interval_text(line.low, line.high)
    return [*percents, interval, line.p, None if line.base is None else round(100 * line.base, 1)]


def _note(found: Comparisons) -> str:
    """The result in a line per arm, then the tables of as many arms as there is room for."""
    lines = [f"- {_result(each)}" for each in found.merges]
    told = "\n".join(lines[:MOST_LINES]) + "\n\n"
    for each in found.merges:
        table = tasks_markdown(each)
        if len(told) + len(table) > MOST_NOTE:
            break
        told += table + "\n"
    return f"{told}All tables and the picture: artifacts, `{FOLDER}/`; over the stages: metrics `change/…`."


def _result(found: Compare) -> str:
    """ "wise_ft, after the last stage: average **83.3 %**, before the merge 51.9 (+31.4, 95 % +29.8 to +33.0)"."""
    line = found.lines[-1]
    against = "before the merge" if found.first.role == BEFORE else "of the base"
    told = seeds_text(line) if line.seeds.half_width is not None else interval_text(line.low, line.high)
    interval = f", 95 % {told}" if line.low is not None or line.seeds.half_width is not None else ""
    when = after_stage(found.second.stage, found.second.runs[0].stream)
    change = f"{percent(line.difference, signed=True)}{interval}"
    return f"{found.second.name}, {when}: average **{percent(line.second)} %**, {against} {percent(line.first)} ({change})"
