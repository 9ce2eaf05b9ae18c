"""`distance`: how far checkpoints are apart, all pairs, by layer and part and in all; of weights, or of task vectors given a base."""

from contextlib import ExitStack
from math import ceil
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from foundation.errors import ConfigError
from mergers import Source
from mergers.checkpoints.resolve import open_source
from mergers.distances.groups import Group
from mergers.distances.measure import Distances, Metrics, Pair, measure
from mergers.distances.metrics import METRICS, Distance
from mergers.engine.layout import ITEM_OUTPUT_BYTES
from mergers.sources.source import Expert
from pipeline.command.terminal import ByteProgress, say
from pipeline.command.workers import hire

MOST_ROWS = 40
"""Groups shown on the terminal; of more, those that are furthest apart."""
COLUMNS = {
    "l2": "L2",
    "relative_l2": "rel. L2",
    "cosine": "cosine",
    "sign_disagreement": "signs %",
    "ssd": "SSD %",
    "truncated_ssd": "TSSD %",
}
SHARES = ("sign_disagreement", "ssd", "truncated_ssd")
"""Metrics that are told in percent."""


def measure_distance(
    texts: list[str],
    base: str | None,
    output: Path | None,
    *,
    experts: list[str] | None = None,
    density: float = 0.2,
    partial: bool = False,
    allow_pickle: bool = False,
    actors: int = 0,
    mlflow: bool = False,
    experiment: str = "distance",
    workspace: Path = Path(),
    console: Console,
) -> None:
    """Measure all pairs, show them, write tables and heat maps into `output` if given, and log a run if `mlflow`.

    `experts` are compared inside the one checkpoint that is named then.
    """
    sources = named_sources(texts, experts, allow_pickle)
    below = Source("base", open_source(base, allow_pickle), origin=base) if base is not None else None
    Distance(density).check([source.name for source in sources])
    if mlflow:
        from pipeline.tracking.backend import tracking_uri

        uri = tracking_uri(None, workspace)
    with ExitStack() as stack:
        executor = hire(stack, ceil(sources[0].checkpoint.nbytes / ITEM_OUTPUT_BYTES), actors, None)
        found = measure(
            sources,
            below,
            density=density,
            partial=partial,
            executor=executor,
            progress=stack.enter_context(ByteProgress(console)),
        )
    show(found, console)
    if output is not None:
        from pipeline.report.distances import write_distances

        write_distances(found, output)
        say(console, f"tables and heat maps: {output}")
    if mlflow:
        from pipeline.tracking.backend import without_secrets
        from pipeline.tracking.distances import log_distances

        run = log_distances(found, uri, experiment, workspace)
        say(console, f"MLflow: run {run} of experiment '{experiment}' at {without_secrets(uri)}")


def named_sources(texts: list[str], experts: list[str] | None, allow_pickle: bool) -> list[Source]:
    """The sources: checkpoints under the ends of their paths, or the experts of one checkpoint."""
    if experts is not None:
        if len(texts) != 1:
            raise ConfigError(f"--experts compares the experts inside one checkpoint, but {len(texts)} are named: {', '.join(texts)}")
        views = [Expert(name, tuple(experts)) for name in experts]
        checkpoint = open_source(texts[0], allow_pickle)
        return [Source(view.name, checkpoint, view, texts[0]) for view in views]
    if len(texts) < 2:
        raise ConfigError(
            f"a distance needs at least 2 checkpoints, got {' '.join(texts) or 'none'}; name another, or a checkpoint's --experts"
        )
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named {texts.count(twice)} times; name each checkpoint once")
    return [Source(name, open_source(text, allow_pickle), origin=text) for name, text in zip(short_names(texts), texts, strict=True)]


def short_names(texts: list[str]) -> list[str]:
    """As much of the end of each path as tells them apart."""
    parts = [Path(text).parts for text in texts]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len({*names, "base"}) > len(names):
            return names
    return texts


def show(found: Distances, console: Console) -> None:
    """Print each pair's groups and its total."""
    for pair in found.pairs:
        console.print(f"[bold]{escape(title_of(found, pair))}[/bold]", highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("group", "weights", *COLUMNS.values()):
            table.add_column(name, justify="left" if name == "group" else "right", no_wrap=name == "group")
        rows = [(group, found.group(pair, group)) for group in found.groups]
        rows = [(group, metrics) for group, metrics in rows if metrics["elements"]]
        for group, metrics in furthest(rows):
            table.add_row(group.label, *cells(metrics))
        table.add_row("[bold]all[/bold]", *(f"[bold]{cell}[/bold]" for cell in cells(found.total(pair))))
        console.print(table)
        if len(rows) > MOST_ROWS:
            say(console, f"shown: the {MOST_ROWS} of {len(rows)} groups with the largest relative L2; --output writes all of them")
    for note in found.notes:
        say(console, f"note: {note}")


def title_of(found: Distances, pair: Pair) -> str:
    """What is compared, in a line."""
    what = f"task vectors from {found.base}" if found.base else "weights"
    return f"{pair[0]} and {pair[1]}: {what}; signs: share that differ; TSSD: SSD of the largest {found.density:.4g} of each tensor"


def furthest(rows: list[tuple[Group, Metrics]]) -> list[tuple[Group, Metrics]]:
    """The rows to show, in their order: all, or those that are furthest apart."""
    ranked = sorted(rows, key=lambda row: -(row[1]["relative_l2"] or 0.0))[:MOST_ROWS]
    least = {group for group, _ in ranked}
    return [row for row in rows if row[0] in least]


def cells(metrics: Metrics) -> list[str]:
    """A row's numbers as text: shares in percent, - for what is not defined."""
    told = [many(metrics["elements"] or 0)]
    for name in METRICS:
        value = metrics[name]
        if value is None:
            told.append("-")
        elif name in SHARES:
            told.append(f"{100 * value:.2f}")
        else:
            told.append(f"{value:.4f}" if name == "cosine" else f"{value:.4g}")
    return told


def many(count: float) -> str:
    """A number of weights in a few characters."""
    scale, unit = next(((scale, unit) for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if count >= scale), (1, ""))
    return f"{count / scale:.3g}{unit}"
