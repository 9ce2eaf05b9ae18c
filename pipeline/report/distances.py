"""The files of a distance measurement: distance.json, distance.csv, and a heat map over depth for each pair. The same measurement gives
the same bytes."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundation.files import file_name, write_atomic, write_json_atomic
from mergers.distances.measure import Distances, Pair
from mergers.distances.metrics import METRICS


def write_distances(found: Distances, output: Path) -> list[Path]:
    """Write everything into the directory `output`, made if it is not there; the files."""
    from pipeline.report.distance_map import distance_map

    output.mkdir(parents=True, exist_ok=True)
    table, data = output / "distance.csv", output / "distance.json"
    write_atomic(table, csv_text(found))
    write_json_atomic(data, as_json(found))
    maps = []
    for pair in found.pairs:
        path = output / (f"distance-{file_name(pair[0])}-{file_name(pair[1])}.png" if len(found.pairs) > 1 else "distance.png")
        write_atomic(path, distance_map(found, pair))
        maps.append(path)
    return [data, table, *maps]


def as_json(found: Distances) -> dict[str, Any]:
    """All that was measured, as plain values."""
    return {
        "sources": list(found.sources),
        "base": found.base,
        "density": found.density,
        "notes": list(found.notes),
        "pairs": [
            {
                "first": pair[0],
                "second": pair[1],
                "total": found.total(pair),
                "groups": [{"group": group.label, **found.group(pair, group)} for group in found.groups],
                "tensors": {name: found.of(pair, [name]) for name in found.sums[pair]},
            }
            for pair in found.pairs
        ],
    }


def csv_text(found: Distances) -> str:
    """One row per pair and scope: the whole, each group, each tensor. What is not defined is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("first", "second", "scope", "name", "tower", "layer", "part", "elements", *METRICS))
    for pair in found.pairs:
        writer.writerows((*pair, *row) for row in rows_of(found, pair))
    return text.getvalue()


def rows_of(found: Distances, pair: Pair) -> Iterator[list[Any]]:
    """The rows of a pair: scope, name, tower, layer, part, elements, metrics."""
    yield ["total", "all", "", "", "", *values(found.total(pair))]
    for group in found.groups:
        layer = group.layer if group.layer >= 0 else ""
        yield ["group", group.label, group.tower, layer, group.part, *values(found.group(pair, group))]
    for name in found.sums[pair]:
        group = found.groups_of[name]
        yield ["tensor", name, group.tower, group.layer if group.layer >= 0 else "", group.part, *values(found.of(pair, [name]))]


def values(metrics: dict[str, float | None]) -> list[Any]:
    """The numbers of a row; empty for what is not defined."""
    return [int(metrics["elements"] or 0), *("" if metrics[name] is None else repr(metrics[name]) for name in METRICS)]
