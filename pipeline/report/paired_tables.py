"""The tables of paired comparisons: what a merge changed, and what sets two arms apart; and the same in full for CSV.

Tables show the trained task and the means; those of a terminal (`merges_grid`, `arms_grid`) a row per stage or pair of arms.
`paired.csv` holds every task of every comparison.
"""

from collections.abc import Sequence

from pipeline.report.comparison import Arm, estimate_text, percent, seeds_difference
from pipeline.report.paired import AVERAGE, HELD_OUT_MEAN, STREAM_MEAN, Compared, Contrast, Kind, PairedScores
from pipeline.report.tables import Grid

OWN = "own task"
OVER_SEEDS = "average, over seeds"
LAST_MODELS = "last models on the same samples"
TITLE_MERGE, TITLE_ARMS = "before → after the merge, on the same samples", f"first → second arm, {LAST_MODELS}"
FIGURES = ("difference", "95 % interval", "p", "Holm p")
PAIRED_HEADER = (
    *("kind", "arm", "first", "second", "seeds", "stage", "trained", "task", "samples", "first_score", "second_score"),
    *("difference", "low", "high", "stderr", "p", "p_holm", "won", "lost"),
)
ADJUSTED = "Holm p: adjusted for all rows of their kind, tasks or means, of all stages or pairs"
NOTE = "difference in points with its paired bootstrap interval; p: McNemar's exact test for scores of 0 and 1, else flipped signs"


def paired_grids(scores: PairedScores, kind: Kind) -> list[Grid]:
    """The comparisons of `kind` over the most seeds: of merges a table for each arm, of arms one. None for none."""
    found = scores.together(kind)
    if not found:
        return []
    notes = "\n".join([NOTE, ADJUSTED, *_apart(found), *scores.notes])
    if kind is Kind.ARMS:
        rows = [row for contrast in found for row in _rows(f"{contrast.first} → {contrast.second}", contrast, contrast.means)]
        return [_grid(f"{TITLE_ARMS}{_seeds(found)}, in %", ("arms", "mean over"), ("first", "second"), rows, notes)]
    grids = []
    for arm in dict.fromkeys(contrast.arm for contrast in found):
        own = [contrast for contrast in found if contrast.arm == arm]
        rows = [row for each in own for row in _rows(f"{each.stage} {each.trained}", each, _shown(each))]
        grids.append(_grid(f"{arm}{_seeds(own)}: {TITLE_MERGE}, in %", ("stage", "score of"), ("before", "after"), rows, notes))
    return grids


def merges_grid(scores: PairedScores) -> Grid | None:
    """For the terminal: a row per stage with what its merge changed, over the most seeds; None for no merge."""
    found = scores.together(Kind.MERGE)
    if not found:
        return None
    columns = [OWN, *_means(found)]
    rows = tuple((f"{each.stage} {each.trained}", *(_short(measured(each, name)) for name in columns)) for each in found)
    title = f"{found[0].arm}{_seeds(found)}: {TITLE_MERGE}, in points"
    return Grid(title, ("stage", *columns), rows, blocks=tuple((name,) for name in columns), note=_short_note(found))


def arms_grid(scores: PairedScores, arms: Sequence[Arm]) -> Grid | None:
    """For the terminal: a row per pair of `arms` with their difference, over seeds and on the same samples; None for no pair."""
    found, by_name = scores.together(Kind.ARMS), {arm.name: arm for arm in arms}
    if not found:
        return None
    over = [seeds_difference(by_name[each.first], by_name[each.second]) for each in found]
    seeds = [estimate_text(value, signed=True, interval=True) for value in over]
    columns, firsts = _means(found), {each.first for each in found}
    cells = [[_short(measured(each, name)) for name in columns] for each in found]
    several, note = any(value is not None and value.count > 1 for value in over), _short_note(found)
    if several:
        columns, cells = [OVER_SEEDS, *columns], [[own, *row] for own, row in zip(seeds, cells, strict=True)]
        note = f"{OVER_SEEDS}: ± standard error (in brackets: half the 95 % interval, Student's t)\n{note}"
    alone = len(firsts) == 1 and len(found) > 1
    title, label = (f"minus {firsts.pop()}, {LAST_MODELS}", "arm") if alone else (TITLE_ARMS, "arms")
    rows = tuple((each.second if alone else f"{each.first} → {each.second}", *row) for each, row in zip(found, cells, strict=True))
    blocks = tuple((name,) for name in columns)
    return Grid(f"{title}{_seeds(found)}, in points", (label, *columns), rows, blocks=blocks, note=note)


def _means(found: Sequence[Contrast]) -> list[str]:
    """The means that a terminal shows: over the held-out tasks and over all; without held-out tasks over the stream."""
    return [name for name in (HELD_OUT_MEAN, AVERAGE) if any(measured(each, name) for each in found)] or [STREAM_MEAN]


def measured(contrast: Contrast, name: str) -> Compared | None:
    """What was found on a task or a mean, or on the task that the stage trained (OWN)."""
    return contrast.of.get(str(contrast.trained) if name == OWN else name)


def _short(compared: Compared | None) -> str:
    """ "+12.5 [+8.0, +17.1] 0.004": the difference, its interval, Holm's p."""
    if compared is None:
        return "–"
    low, high = (percent(end, signed=True) for end in (compared.found.low, compared.found.high))
    return f"{percent(compared.found.difference, signed=True)} [{low}, {high}] {p_text(compared.adjusted)}"


def _short_note(found: Sequence[Contrast]) -> str:
    return "\n".join(["difference [95 % bootstrap interval over samples] Holm p; every task: report.html, paired.csv", *_apart(found)])


def _grid(title: str, labels: tuple[str, str], sides: tuple[str, str], rows: Sequence[tuple[str, ...]], note: str) -> Grid:
    return Grid(title, (*labels, *sides, *FIGURES), tuple(rows), 2, (sides, FIGURES[:2], FIGURES[2:]), note)


def _shown(contrast: Contrast) -> tuple[Compared, ...]:
    """The task that the stage trained, and the means."""
    return (*(each for each in contrast.tasks if each.name == contrast.trained), *contrast.means)


def _rows(name: str, contrast: Contrast, shown: Sequence[Compared]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in shown:
        found = each.found
        scores = (percent(found.before), percent(found.after), percent(found.difference, signed=True))
        interval = f"{percent(found.low, signed=True)} to {percent(found.high, signed=True)}"
        own = OWN if each.name == contrast.trained and contrast.kind is Kind.MERGE else each.name
        rows.append((name, own, *scores, interval, p_text(found.p), p_text(each.adjusted)))
        name = ""
    return rows


def p_text(p: float) -> str:
    """ "0.031", or "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _seeds(found: Sequence[Contrast]) -> str:
    """ ", seed 0", or ", mean of seeds 0, 1, 2"; empty where they differ by row."""
    seeds = {contrast.seeds for contrast in found}
    if len(seeds) > 1:
        return ""
    own = next(iter(seeds))
    return f", {'mean of seeds' if len(own) > 1 else 'seed'} {', '.join(map(str, own))}"


def _apart(found: Sequence[Contrast]) -> list[str]:
    """The tasks that could not be compared."""
    names = list(dict.fromkeys(name for contrast in found for name in contrast.unpaired))
    return [f"left out, as their score is no mean over stored samples: {', '.join(names)}"] if names else []


def paired_rows(scores: PairedScores) -> list[tuple[object, ...]]:
    """Rows under PAIRED_HEADER: every comparison on every task and mean, each seed and all seeds together; fractions in full."""
    return [
        (
            *(contrast.kind.value, contrast.arm, contrast.first, contrast.second, " ".join(map(str, contrast.seeds))),
            *(contrast.stage, contrast.trained or "", each.name, each.found.samples, each.found.before, each.found.after),
            *(each.found.difference, each.found.low, each.found.high, each.found.stderr, each.found.p, each.adjusted),
            *(each.found.won, each.found.lost),
        )
        for contrast in (*scores.merges, *scores.arms)
        for each in (*contrast.tasks, *contrast.means)
    ]
