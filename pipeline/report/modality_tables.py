"""The tables of a modality-merging experiment: scores of all arms, differences within seeds, distances, and how well these foretell scores.

Scores are percent with one decimal, distances have three digits. For a terminal or Markdown through `Grid`, as all tables of a report.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.report.comparison import Estimate, estimate, estimate_text, percent
from pipeline.report.modality import (
    RECALLS,
    UNMERGED,
    Outcome,
    Setting,
    When,
    difference,
    parts_of,
    plain_merge,
    reference_of,
    sets_of,
    settings_of,
    spread,
    tuned_words,
    unmerged_of,
    whens_of,
)
from pipeline.report.modality_correlation import RankCorrelation, common_scope, correlations, followed, metric_words, metrics_of
from pipeline.report.tables import Grid, print_grids

if TYPE_CHECKING:
    from rich.console import Console

MERGE_ONLY, TUNED = "merge only", "tuned"
CORRELATION_NOTE = """\
pooled: over all points; distinct: how many values the metric has among them
lost by merging: the mean of the unmerged model of the same experts minus that of the merge
undefined: the metric or the target does not vary, or there are fewer than 3 points
points of one seed share their experts and are not independent, so no p-value is given"""


def grids_of(settings: Sequence[Setting], asked: str) -> list[Grid]:
    """All tables of one set, in the order of a report: scores, spread, differences, distances, correlations."""
    found = [scores_grid(settings, asked), spread_grid(settings, asked), difference_grid(settings, asked)]
    found += [distance_grid(settings, asked), correlation_grid(settings, asked)]
    found += [correlation_grid(settings, asked, merge) for merge in followed(settings)]
    return [grid for grid in found if grid is not None]


def print_modality(outcomes: Sequence[Outcome], console: "Console") -> None:
    """Lay scores, their spread and their differences on the terminal; distances and correlations are in the report alone. InputError as
    `settings_of`."""
    settings = settings_of(outcomes)
    for asked in sets_of(settings):
        found = (scores_grid(settings, asked), spread_grid(settings, asked), difference_grid(settings, asked))
        print_grids((grid for grid in found if grid is not None), console)


def scores_grid(settings: Sequence[Setting], asked: str) -> Grid:
    """One row per arm: the set's parts and their mean as merged, and the mean after fine-tuning; parts of what alone was asked."""
    parts, whens, tuned = parts_of(settings, asked), whens_of(settings, asked), tuned_words(settings)
    names = [name.split("/", 1)[1] for name in parts]
    means = ("mean", TUNED) if len(whens) > 1 else ("mean",)
    rows = []
    for setting in settings:
        cells = [score_cell(setting, name, whens[0]) for name in (*parts, asked)]
        rows.append((setting.arm, *cells, *(score_cell(setting, asked, when) for when in whens[1:])))
    groups = (tuple(name for name in names if name.startswith("TR@")), tuple(name for name in names if not name.startswith("TR@")), means)
    told = {1: tuned if When.TUNED in whens else "", 2: f"merge only, but for the last column; {TUNED}: the mean {tuned}"}[len(whens)]
    blocks = tuple(group for group in groups if group)
    what = "retrieval" if any(name in RECALLS for name in names) else "scores"
    note = "\n".join(filter(None, (seeds_note(settings), told)))
    return Grid(f"{asked}: {what} of every arm, in %", ("arm", *names, *means), tuple(rows), 1, blocks, note)


def score_cell(setting: Setting, name: str, when: When) -> str:
    """ "67.2 ± 1.3", with the number of seeds where not all of the arm's have the score; "–" for none."""
    value = setting.figure(name, when)
    some = value is not None and value.count < len(setting.outcomes)
    return estimate_text(value) + (f" ({value.count})" if some and value is not None else "")


def seeds_note(settings: Sequence[Setting]) -> str:
    """What ± means here, and over which seeds."""
    counts = sorted({len(setting.outcomes) for setting in settings})
    if counts == [1]:
        return "one seed each, so no standard error over seeds"
    seeds = "/".join(map(str, counts))
    asked = [each.tuned for setting in settings for each in setting.outcomes]
    some = any(asked) and not all(asked)
    return f"mean ± standard error over {seeds} seeds" + ("; a number in brackets: over so many of them only" if some else "")


def spread_grid(settings: Sequence[Setting], asked: str) -> Grid | None:
    """How far all merges lie apart, beside the noise of a comparison; None for fewer than two merges."""
    words = {When.MERGED: MERGE_ONLY, When.TUNED: TUNED}
    rows = []
    for found in (spread(settings, asked, when) for when in When):
        if found is not None:
            noise = "–" if found.noise is None else percent(found.noise)
            cells = (percent(found.lowest), percent(found.highest), percent(found.highest - found.lowest), noise)
            rows.append((words[found.when], str(found.merges), *cells))
    note = "noise: median standard error of the difference within seeds between two merges, in points"
    columns = ("model", "merges", "lowest mean", "highest mean", "apart", "noise")
    return Grid(f"{asked}: how far the merges lie apart, in %", columns, tuple(rows), note=note) if rows else None


def difference_grid(settings: Sequence[Setting], asked: str) -> Grid | None:
    """Each arm minus the unmerged one, and minus the plain merge, within seeds; None where there is neither."""
    references = [each for each in (reference_of(settings, UNMERGED), plain_merge(settings)) if each is not None]
    against = [(when, each) for when in When for each in references if each.figure(asked, when)]
    columns = {(when, each.arm): f"{f'{TUNED} ' if when is When.TUNED else ''}minus {each.arm}" for when, each in against}
    rows = []
    for setting in settings:
        pairs = [(when, same_experts(settings, each, setting)) for when, each in against]
        cells = ["" if each in (None, setting) else difference_cell(each, setting, asked, when) for when, each in pairs]
        rows.append((setting.arm, *cells))
    note = "mean ± standard error of the difference within each seed, in points\nin brackets: seeds in which the arm scored higher"
    if any(setting.on_the_way for setting in settings):
        note += f"\narms of a step: minus {UNMERGED} of that step"
    groups = (tuple(column for (when, _), column in columns.items() if when is each) for each in When)
    blocks = tuple(group for group in groups if group)
    title = f"{asked}: paired differences of the mean"
    return Grid(title, ("arm", *columns.values()), tuple(rows), 1, blocks, note) if against else None


def same_experts(settings: Sequence[Setting], reference: Setting, setting: Setting) -> Setting | None:
    """What `setting` is held against: the unmerged model of its own step, and no merge of other experts."""
    if not setting.on_the_way:
        return reference
    return unmerged_of(settings, setting) if reference.family == UNMERGED else None


def difference_cell(first: Setting, second: Setting, name: str, when: When) -> str:
    """ "-5.4 ± 1.2 (0/3)"; "–" where the arms share no seed."""
    found = difference(first, second, name, when)
    return "–" if found is None else f"{estimate_text(found.value, signed=True)} ({found.better}/{found.value.count})"


def distance_grid(settings: Sequence[Setting], asked: str) -> Grid | None:
    """Every metric beside the scores it may foretell, of the arms that hold one; None where no distance was measured."""
    metrics, tuned, whens = metrics_of(settings), tuned_words(settings), whens_of(settings, asked)
    measured = [setting for setting in settings if any(each.distances for each in setting.outcomes)]
    if not measured:
        return None
    scope = common_scope(metrics)
    distances = tuple(metric_words(metric, scope is None) for metric in metrics)
    means = tuple(MERGE_ONLY if when is When.MERGED else TUNED for when in whens)
    cells = [distance_cells(measured, metric) for metric in metrics]
    cells += [[score_cell(setting, asked, when) for setting in measured] for when in whens]
    rows = list(zip([setting.arm for setting in measured], *cells, strict=True))
    note = "mean ± standard error over seeds; scores are means in %" + (f"; {TUNED}: {tuned}" if When.TUNED in whens else "")
    title = f"{asked}: {scope_words(scope)} beside the mean score"
    return Grid(title, ("arm", *distances, *means), tuple(rows), 1, (distances, means), note)


def scope_words(scope: str | None) -> str:
    """ "distances (experts)", or "distances" where metrics have no scope or several."""
    return f"distances ({scope.replace('_', ' ')})" if scope else "distances"


def distance_cells(settings: Sequence[Setting], metric: str) -> list[str]:
    """A column of "12.3 ± 0.4": the largest mean with three digits, the others with as many decimals.

    "undefined" where the metric has no value in any seed, "–" where it was not measured.
    """
    held = [[each.distances[metric] for each in setting.outcomes if metric in each.distances] for setting in settings]
    known = [[value for value in values if value is not None] for values in held]
    means = [estimate(values) if values else None for values in known]
    largest = max((abs(value.mean) for value in means if value is not None), default=0.0)
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 2
    texts = ["" if value is None else f"{value.mean:.{decimals}f}" for value in means]
    texts = [
        text if value is None or value.stderr is None else f"{text} ± {value.stderr:.{decimals}f}"
        for text, value in zip(texts, means, strict=True)
    ]
    return [text or ("undefined" if values else "–") for text, values in zip(texts, held, strict=True)]


def correlation_grid(settings: Sequence[Setting], asked: str, merge: str | None = None) -> Grid | None:
    """Spearman's rank correlation of every metric with every target, over all merges or one at all its steps; None for no distances."""
    found = correlations(settings, asked, merge)
    if not found:
        return None
    scope = common_scope([each.metric for each in found])
    seeds = sorted({seed for each in found for seed in each.seeds})
    rows = []
    for each in found:
        cells = [rho_text(each.seeds.get(seed)) for seed in seeds] + [mean_rho_text(each.mean), rho_text(each.pooled)]
        label = metric_words(each.metric, scope is None)
        rows.append((label, each.target.value, *cells, str(each.pooled.points), str(each.pooled.distinct)))
    blocks = (tuple(f"seed {seed}" for seed in seeds), ("mean of seeds", "pooled", "points", "distinct"))
    among = "all merges" if merge is None else f"{merge} of experts at every step"
    title = f"{asked}: rank correlation (Spearman) of {scope_words(scope)}, {among}"
    return Grid(title, ("metric", "target", *blocks[0], *blocks[1]), tuple(rows), 2, blocks, CORRELATION_NOTE)


def rho_text(found: RankCorrelation | None) -> str:
    """ "+0.83"; "undefined", or "–" where there are no points."""
    if found is None:
        return "–"
    return "undefined" if found.rho is None else f"{found.rho:+.2f}".replace("-0.00", "+0.00")


def mean_rho_text(value: Estimate | None) -> str:
    """ "-0.81 ± 0.02"; "undefined" where no seed defines it."""
    if value is None:
        return "undefined"
    return f"{value.mean:+.2f}" if value.stderr is None else f"{value.mean:+.2f} ± {value.stderr:.2f}"
