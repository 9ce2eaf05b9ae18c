"""What `compare` shows as tables: grids in percent for the terminal and Markdown, rows of fractions for CSV and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.compare.models import MEASURES, Compare, Line, LineOf, Side, measures
from pipeline.report.comparison import Estimate, after_stage, estimate_text, percent
from pipeline.report.paired_tables import p_text
from pipeline.report.run_scores import AFTER, BASE, BEFORE
from pipeline.report.tables import SIGNED, Grid

TASKS_HEADER = (
    *("first", "second", "stage", "of", "name", "base", "first_score", "second_score", "difference", "seeds", "seeds_low", "seeds_high"),
    *("samples", "paired", "low", "high", "p", "p_holm", "beyond"),
)
MEASURES_HEADER = ("first", "second", "measure", "first_value", "second_value", "difference", "seeds", "low", "high")
SHORT_WORDS = {
    "acc/average": "average",
    "acc/held_out": "held-out",
    "acc/stream": "stream",
    "learning/own": "own task",
    "learning/gain": "learned",
    "learning/final_gain": "still there",
    "forgetting/stream": "forgotten",
    "drift/held_out": "held-out drift",
    "transfer/backward": "backward transfer",
    "transfer/forward": "forward transfer",
    "intransigence": "behind joint",
}
"""The words for measures as the heads of columns, in two lines."""
WHOLE = "every task, with intervals: --output DIR, or --json"
BEFORE_NAME, AFTER_NAME, BASE_NAME, LAST_NAME = "before", "after", "base", "last"


def heading(found: Compare) -> str:
    """What stands against what: "wise_ft after the last stage (next): before → after its merge (0.5 x previous + 0.5 x tuned)"."""
    first, second = found.first, found.second
    when = after_stage(second.stage, second.runs[0].stream)
    if first.role == BEFORE:
        weights = {run.weights for run in second.runs}
        merge = f" ({weights.pop()})" if len(weights) == 1 else ""
        return f"{second.name} {when} ({second.trained}): before → after its merge{merge}"
    if first.role == BASE:
        return f"{second.name} {when} ({second.trained}): base → this model; nothing was merged"
    if first.stage == second.stage and first.stages == second.stages:
        return f"{first.name} → {second.name}, {when}"
    return f"{first.name} {after_stage(first.stage, first.runs[0].stream)} → {second.name} {when}"


def sides_names(found: Compare) -> tuple[str, str]:
    """The columns of both sides."""
    if found.first.role == AFTER:
        return found.first.name, found.second.name
    return (BEFORE_NAME, AFTER_NAME) if found.first.role == BEFORE else (BASE_NAME, LAST_NAME)


def tasks_grid(found: Compare) -> Grid:
    """A row per task and mean: both sides, the difference, its intervals over seeds and samples, and p."""
    with_base = found.first.role == BEFORE
    columns = ["task", *([BASE_NAME] if with_base else []), *sides_names(found), "difference"]
    columns += [*(["95 % of seeds"] if found.several else []), "95 % of samples" if found.several else "95 % interval", "p", "Holm p"]
    rows = []
    for line in found.lines:
        scores = [percent(value) for value in ((line.base or 0.0, line.first, line.second) if with_base else (line.first, line.second))]
        cells = [*scores, percent(line.difference, signed=True), *([seeds_text(line)] if found.several else [])]
        rows.append((line.name, *cells, interval_text(line.low, line.high), *_ps(line)))
    return Grid(f"{heading(found)}, in %{_seeds(found)}", tuple(columns), tuple(rows), note="\n".join(_notes(found)))


def _ps(line: Line) -> tuple[str, str]:
    return ("unpaired" if line.low is not None else "–", "–") if line.p is None else (p_text(line.p), p_text(line.adjusted or 0.0))


def _notes(found: Compare) -> list[str]:
    names = sides_names(found)
    over = "; of seeds: Student's t over the differences within each seed" if found.several else ""
    notes = [f"interval: paired bootstrap over the same samples, 95 %{over}; bold: beyond every interval"]
    for own, name in zip(found.apart, names, strict=True):
        if own:
            notes.append(f"asked of {name} alone, in no mean: {', '.join(own)}")
    return [*notes, *found.notes]


def _seeds(found: Compare) -> str:
    seeds = [run.seed for run in found.second.runs]
    return f", mean of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""


def interval_text(low: float | None, high: float | None) -> str:
    """ "+1.2 to +3.4" in points, "–" for none."""
    return "–" if low is None or high is None else f"{percent(low, signed=True)} to {percent(high, signed=True)}"


def seeds_text(line: Line) -> str:
    """The 95 % interval of a difference over seeds."""
    half = line.seeds.half_width
    return "–" if half is None else interval_text(line.seeds.mean - half, line.seeds.mean + half)


def brief_grid(comparisons: Sequence[Compare]) -> Grid:
    """Many pairs in one table: a row for each mean of each pair."""
    several, first = any(found.several for found in comparisons), comparisons[0].first
    against = first.role == AFTER
    title = f"minus {first.name}, on the same samples" if against else "before → after the merge (base → last where nothing is merged)"
    columns = ("arm", "mean over", *((first.name, "own") if against else (BEFORE_NAME, AFTER_NAME)), "difference")
    intervals = ("95\u00a0% of seeds", "95\u00a0% of samples") if several else ("95\u00a0% interval",)
    rows = []
    for found in comparisons:
        name = found.second.name
        for line in (line for line in found.lines if line.of is LineOf.MEAN):
            spread = (seeds_text(line),) if several else ()
            cells = (percent(line.first), percent(line.second), percent(line.difference, signed=True))
            mean = line.name.removesuffix(" mean")
            rows.append((name, mean, *cells, *spread, interval_text(line.low, line.high), _ps(line)[0]))
            name = ""
    notes = dict.fromkeys(f"{found.second.name}: {note}" for found in comparisons for note in found.notes)
    when = f"stage {comparisons[0].second.stage}"
    return Grid(f"{title}, {when}, in %", (*columns, *intervals, "p"), tuple(rows), 2, note="\n".join((*notes, WHOLE)))


def rows_grid(models: Sequence[Compare]) -> Grid:
    """The continual measures of many sides: a row per side, means over its seeds."""
    sides = [(models[0].first, {metric: own[0] for found in models for metric, own in measures(found.first, found.second).items()})]
    sides += [(found.second, {metric: own[1] for metric, own in measures(found.first, found.second).items()}) for found in models]
    shown = [metric for metric in SHORT_WORDS if any(own.get(metric) is not None for _, own in sides)]
    rows = [
        (each.name, *("–" if (value := own.get(metric)) is None else percent(value.mean, metric in SIGNED) for metric in shown))
        for each, own in sides
    ]
    words = tuple(SHORT_WORDS[metric] for metric in shown)
    return Grid("continual measures, in %", ("arm", *words), tuple(rows), blocks=tuple((word,) for word in words), note=WHOLE)


def merge_measures_grid(found: Compare) -> Grid:
    """The continual measures of both sides, and the difference."""
    rows = [
        (words, *(_cell(value, metric) for value in own[:2]), estimate_text(own[2], signed=True))
        for metric, words, own in ((metric, MEASURES[metric], own) for metric, own in measures(found.first, found.second).items())
    ]
    note = "± standard error over seeds" if found.several else ""
    return Grid("continual measures, in %", ("measure", *sides_names(found), "difference"), tuple(rows), note=note)


def sides_grid(models: Sequence[Compare]) -> Grid:
    """The continual measures of all sides next to each other, with what each differs from the first (in brackets, where several)."""
    if len(models) == 1:
        return merge_measures_grid(models[0])
    first, each = models[0].first, [measures(found.first, found.second) for found in models]
    rows = []
    for metric, words in MEASURES.items():
        if any(metric in own for own in each):
            start = next((own[metric][0] for own in each if metric in own), None)
            cells = [_beside(own.get(metric), metric) for own in each]
            rows.append((words, _cell(start, metric), *cells))
    names = (first.name, *(found.second.name for found in models))
    note = f"in brackets: minus {first.name}, within each seed that both have"
    return Grid("continual measures, in %", ("measure", *names), tuple(rows), blocks=tuple((name,) for name in names), note=note)


def _beside(own: tuple[Estimate | None, Estimate | None, Estimate | None] | None, metric: str) -> str:
    if own is None or own[1] is None:
        return "–"
    return _cell(own[1], metric) + (f" ({percent(own[2].mean, signed=True)})" if own[2] is not None else "")


def _cell(value: Estimate | None, metric: str) -> str:
    return estimate_text(value, signed=metric in SIGNED)


def settings_grid(settings: Mapping[str, tuple[str, ...]], labels: Sequence[str]) -> Grid:
    """The settings that differ, a column per run."""
    rows = tuple((key, *values) for key, values in settings.items())
    return Grid("settings that differ", ("key", *labels), rows, blocks=tuple((label,) for label in labels))


def tasks_rows(comparisons: Sequence[Compare]) -> list[tuple[object, ...]]:
    """Rows under TASKS_HEADER; fractions in full."""
    rows = []
    for found in comparisons:
        for line in found.lines:
            half = line.seeds.half_width
            ends = (None, None) if half is None else (line.seeds.mean - half, line.seeds.mean + half)
            told = (*_names(found), found.second.stage, line.of.value, line.name, line.base, line.first, line.second, line.difference)
            rows.append(
                (*told, line.seeds.count, *ends, line.samples, line.paired, line.low, line.high, line.p, line.adjusted, line.beyond)
            )
    return rows


def measures_rows(comparisons: Sequence[Compare]) -> list[tuple[object, ...]]:
    """Rows under MEASURES_HEADER."""
    rows: list[tuple[object, ...]] = []
    for found in comparisons:
        for metric, (first, second, difference) in measures(found.first, found.second).items():
            half = None if difference is None else difference.half_width
            ends = (None, None) if half is None or difference is None else (difference.mean - half, difference.mean + half)
            values = [None if value is None else value.mean for value in (first, second, difference)]
            rows.append((*_names(found), metric, *values, None if difference is None else difference.count, *ends))
    return rows


def _names(found: Compare) -> tuple[str, str]:
    """Both sides so that they are told apart among many."""
    if found.first.role == AFTER:
        return found.first.name, found.second.name
    return f"{found.second.name} {sides_names(found)[0]}", f"{found.second.name} {sides_names(found)[1]}"


def as_data(found: Compare) -> dict[str, Any]:
    """One comparison for JSON: its rows by name, and what was not compared."""
    tasks = [dict(zip(TASKS_HEADER[2:], row[2:], strict=True)) for row in tasks_rows([found])]
    told = [dict(zip(MEASURES_HEADER[2:], row[2:], strict=True)) for row in measures_rows([found])]
    names = _names(found)
    return {
        "first": _side(found.first, names[0]),
        "second": _side(found.second, names[1]),
        "tasks": [row for row in tasks if row["of"] == LineOf.TASK],
        "means": [row for row in tasks if row["of"] == LineOf.MEAN],
        "measures": told,
        "asked_of_first_alone": found.apart[0],
        "asked_of_second_alone": found.apart[1],
        "notes": found.notes,
    }


def _side(each: Side, name: str) -> dict[str, Any]:
    return {"name": name, "role": each.role, "stage": each.stage, "of": each.stages, "seeds": [run.seed for run in each.runs]}
