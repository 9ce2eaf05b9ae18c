"""The report of a modality-merging experiment: CSV for machines, PNG and Markdown for people.

The input is plain data (`Outcome`), so a report can be made again from stored scores at any time. Everything is composed before the first
file is written; every file is written atomically and is the same bytes for the same outcomes.

`outcomes.csv` holds every score, `figures.csv` the means over seeds, `differences.csv` the paired differences, and where distances were
measured `distances.csv` and `correlations.csv`. Pictures per set: `merges.png` (where something is merged) and `distances.png` (where a
distance varies), with the set's name in front where there are several sets.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluators.statistics import student_t
from foundation.files import file_name, write_atomic
from pipeline.report.modality import (
    RECALLS,
    UNMERGED,
    Outcome,
    Setting,
    When,
    difference,
    names_of,
    plain_merge,
    reference_of,
    sets_of,
    settings_of,
    tuned_words,
)
from pipeline.report.modality_correlation import Correlation, RankCorrelation, correlations, followed, metrics_of
from pipeline.report.modality_tables import grids_of, same_experts
from pipeline.report.tables import markdown
from pipeline.report.write import to_csv

READING = """\
* *merge only*: the model as it comes out of the merge, without a step of training after it.{tuned}
{recalls}* *unmerged*: the model with experts of its own for each modality. It has more weights than a merged one, and is what merging can
  at most be hoped to keep; it is no strict bound. *seed only*: the shared model from which the experts started. *agnostic*: a shared
  model with as many steps of learning as the experts had.
* ± is the standard error over seeds; a seed is another start and another order of the data. {interval}
* Paired differences are taken within each seed, so what a seed makes easy or hard for both models drops out: compare two models by
  them, not by whether their ± overlap.
"""
RETRIEVED = """\
* *TR@k*: of the images, the share whose own text is among the k that the model finds nearest; *IR@k*: of the texts, the share whose own
  image is. The *mean* is that of all six.
"""
CHOOSING = """\
* Every setting that was tried is shown, none is marked as the best. The best of many settings on the samples it was chosen by looks
  better than it is. Choose a ratio, a scale or a method on the validation split, and then read off here what it scores.
* {noise}
* Small models and few samples: an order of methods found here need not hold for other models, data or amounts of pretraining.
"""
DISTANCES = """\
* A rank correlation (Spearman's, with mean ranks for ties) tells whether a distance puts models in the order of their scores, not why.
  A distance that foretells a merge goes with low scores and large losses; a cosine the other way round.
* A distance between the experts is the same for every merge of one seed's finished experts, so over these alone it has no order to compare
  with: *undefined*. Experts that learned longer may lie farther apart and yet be better; there, look at what is *lost by merging*.
* The correlation of few points means little: in random order, 3 points give ±1 in 1 of 3 cases, 4 points in 1 of 12.
"""


def write_modality_report(outcomes: Sequence[Outcome], directory: Path, title: str, notes: Sequence[str] = ()) -> list[Path]:
    """Write the report of `outcomes` into `directory` and give its files, `report.md` last. InputError as `settings_of`.

    `notes` are lines that stand under the title: what was asked, on which split, how many samples.
    """
    settings = settings_of(outcomes)
    files: dict[str, str | bytes] = {
        "outcomes.csv": outcomes_csv(settings),
        "figures.csv": figures_csv(settings),
        "differences.csv": differences_csv(settings),
    }
    if metrics_of(settings):
        files |= {"distances.csv": distances_csv(settings), "correlations.csv": correlations_csv(settings)}
    drawn = {asked: pictures(settings, asked) for asked in sets_of(settings)}
    files |= {name: content for found in drawn.values() for name, content in found.items()}
    files["report.md"] = modality_markdown(settings, {asked: list(found) for asked, found in drawn.items()}, title, notes)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(directory / name, content)
    return [directory / name for name in files]


def pictures(settings: Sequence[Setting], asked: str) -> dict[str, bytes]:
    """File name -> PNG, of what there is to draw for one set."""
    from pipeline.report import modality_plots, modality_scatter

    prefix = f"{file_name(asked)}_" if len(sets_of(settings)) > 1 else ""
    found = {}
    if modality_plots.panels_of(settings):
        found[f"{prefix}merges.png"] = modality_plots.sweeps(settings, asked)
    if modality_scatter.drawn(settings, asked):
        found[f"{prefix}distances.png"] = modality_scatter.distances(settings, asked)
    return found


def outcomes_csv(settings: Sequence[Setting]) -> str:
    """Every score as a row; `steps` of fine-tuning, 0 as merged."""
    rows = [
        (*key(setting), each.seed, when, each.steps if when is When.TUNED else 0, name, score.accuracy, score.stderr, score.samples)
        for setting in settings
        for each in setting.outcomes
        for when in When
        for name, score in each.scores(when).items()
    ]
    return to_csv(("arm", "family", "value", "seed", "model", "steps", "score", "accuracy", "stderr", "samples"), rows)


def figures_csv(settings: Sequence[Setting]) -> str:
    """Mean over seeds, standard error (empty for one seed), number of seeds."""
    rows = [
        (*key(setting), when, name, value.mean, filled(value.stderr), value.count)
        for setting in settings
        for when in When
        for name in names_of(settings)
        if (value := setting.figure(name, when)) is not None
    ]
    return to_csv(("arm", "family", "value", "model", "score", "mean", "stderr", "seeds"), rows)


def differences_csv(settings: Sequence[Setting]) -> str:
    """`arm` minus `reference` within seeds, and in how many seeds it scored higher."""
    rows = []
    for first in (reference_of(settings, UNMERGED), plain_merge(settings)):
        for setting in settings if first else ():
            reference = same_experts(settings, first, setting) if first else None
            for when in When if reference not in (None, setting) else ():
                for name in names_of(settings):
                    found = difference(reference, setting, name, when) if reference else None
                    if found is not None:
                        value = found.value
                        rows.append((found.second, found.first, when, name, value.mean, filled(value.stderr), value.count, found.better))
    return to_csv(("arm", "reference", "model", "score", "mean", "stderr", "seeds", "better"), rows)


def distances_csv(settings: Sequence[Setting]) -> str:
    """Every distance as a row; an empty value is one that is not defined."""
    rows = [
        (*key(setting), each.seed, metric, filled(each.distances[metric]))
        for setting in settings
        for each in setting.outcomes
        for metric in metrics_of(settings)
        if metric in each.distances
    ]
    return to_csv(("arm", "family", "value", "seed", "metric", "distance"), rows)


def correlations_csv(settings: Sequence[Setting]) -> str:
    """Rank correlations: over which merges, of which metric with what, in which seed ("pooled": all seeds); empty where not defined."""
    rows = [
        (asked, "all" if merge is None else merge, each.metric, each.target.value, seed, filled(found.rho), found.points, found.distinct)
        for asked in sets_of(settings)
        for merge in (None, *followed(settings))
        for each in correlations(settings, asked, merge)
        for seed, found in by_seed(each)
    ]
    return to_csv(("set", "merges", "metric", "target", "seed", "rho", "points", "distinct"), rows)


def by_seed(found: Correlation) -> Iterator[tuple[object, RankCorrelation]]:
    """The rank correlation of each seed, and of all."""
    yield from found.seeds.items()
    yield "pooled", found.pooled


def key(setting: Setting) -> tuple[object, ...]:
    """What names an arm in a row."""
    return setting.arm, setting.family, filled(setting.value)


def filled(value: float | None) -> float | str:
    """A cell: empty for None."""
    return "" if value is None else value


def modality_markdown(settings: Sequence[Setting], drawn: dict[str, list[str]], title: str, notes: Sequence[str] = ()) -> str:
    """The tables and pictures on one page, and how to read them."""
    parts = [f"# {title}\n", *(f"{note}\n" for note in notes)]
    for asked, names in drawn.items():
        parts.append(f"## {asked}\n")
        parts += [f"![{name.removesuffix('.png').replace('_', ' ')} of {asked}]({name})\n" for name in names]
        parts += [markdown(grid) for grid in grids_of(settings, asked)]
    return "\n".join([*parts, *words_of(settings)])


def words_of(settings: Sequence[Setting]) -> list[str]:
    """How to read the figures, as far as the experiment has them."""
    count = max(len(setting.outcomes) for setting in settings)
    tuned = tuned_words(settings)
    interval = "One seed has none: nothing here tells a difference between models from chance."
    noise = "One seed gives no measure of noise; run several before calling one model better than another."
    if count > 1:
        times = student_t(count - 1)
        interval = f"Over {count} seeds, 95 % intervals are ± {times:.1f} of them."
        noise = f"A difference between two merges below about {times:.1f} times the *noise* of the tables may well be chance."
    if tuned and count > 1:
        noise += " If the tuned merges lie no farther apart than that, their order means nothing."
    recalls = RETRIEVED if any(name.rpartition("/")[2] in RECALLS for name in names_of(settings)) else ""
    reading = READING.format(tuned=f" *tuned*: the same model {tuned}." if tuned else "", recalls=recalls, interval=interval)
    distances = DISTANCES if metrics_of(settings) else ""
    return ["## How to read it\n", reading, "## What it does not say\n", CHOOSING.format(noise=noise) + distances]
