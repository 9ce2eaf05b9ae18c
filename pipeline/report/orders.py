"""The same experiment with its tasks in several orders: each figure's mean over the orders, and how much the order matters.

An arm that is run in an order is named after it: "wise_ft [reversed]". Score matrices belong to one order each; figures of the last model
(and of the whole stream) mean the same in all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from evaluators.statistics import Interval, mean_interval
from pipeline.report.comparison import COMPARED, MANY, Arm, paired_differences, percent
from pipeline.report.tables import Grid, figures_grid

ORDERS_HEADER = ("arm", "metric", "order", "count", "mean", "stderr", "low", "high")
ORDERED = re.compile(r"(?P<arm>.*\S) \[(?P<order>[^\[\]]+)\]")


@dataclass(frozen=True)
class Spread:
    """One figure over several orders: its mean in each (over seeds), the mean of these, and their standard deviation."""

    values: dict[str, float]
    mean: float
    deviation: float
    interval: Interval

    @property
    def lowest(self) -> str:
        """The order with the least value."""
        return min(self.values, key=lambda order: self.values[order])

    @property
    def highest(self) -> str:
        """The order with the greatest value."""
        return max(self.values, key=lambda order: self.values[order])


@dataclass(frozen=True)
class Orders:
    """One arm in several orders: order -> its Arm, and metric -> Spread over them."""

    name: str
    arms: dict[str, Arm]
    figures: dict[str, Spread]


@dataclass(frozen=True)
class OrdersDifference:
    """`second` minus `first`, paired within each order (and in it within each seed): metric -> Spread over the orders."""

    first: str
    second: str
    figures: dict[str, Spread]


def order_of(arm: str) -> tuple[str, str]:
    """ "wise_ft [reversed]" -> ("wise_ft", "reversed"); an arm that names no order -> (its name, "")."""
    found = ORDERED.fullmatch(arm)
    return (found["arm"], found["order"]) if found else (arm, "")


def spread(values: dict[str, float]) -> Spread:
    """Order -> value, taken together; the standard deviation is over the orders, with n − 1 degrees of freedom (0 for one order)."""
    interval = mean_interval(list(values.values()))
    deviation = (interval.stderr or 0.0) * len(values) ** 0.5
    return Spread(values, interval.mean, deviation, interval)


def orders_of(arms: Sequence[Arm]) -> list[Orders]:
    """The arms that are there in two orders or more, which differ in the order of the same tasks and in nothing else."""
    groups: dict[str, dict[str, Arm]] = {}
    for arm in arms:
        name, order = order_of(arm.name)
        if order:
            groups.setdefault(name, {})[order] = arm
    return [_orders(name, members) for name, members in groups.items() if len(members) > 1 and _alike(list(members.values()))]


def _alike(members: Sequence[Arm]) -> bool:
    """Whether the arms learn the same tasks, the same way, and are asked the same."""
    runs = [arm.runs[0] for arm in members]
    return len({(frozenset(run.stream), run.held_out, run.training, run.weights, run.strategy) for run in runs}) == 1


def _orders(name: str, members: dict[str, Arm]) -> Orders:
    first = next(iter(members.values()))
    shared = [metric for metric in first.figures if all(metric in arm.figures for arm in members.values())]
    figures = {metric: spread({order: arm.figures[metric].mean for order, arm in members.items()}) for metric in shared}
    return Orders(name, members, figures)


def order_differences(found: Sequence[Orders]) -> list[OrdersDifference]:
    """Every pair of arms that are there in the same orders, the later minus the earlier; of many, only the pairs with the first."""
    pairs = combinations(found, 2) if len(found) < MANY else ((found[0], other) for other in found[1:])
    differences = []
    for first, second in pairs:
        within = {
            order: pair[0]
            for order in first.arms
            if order in second.arms and (pair := paired_differences([first.arms[order], second.arms[order]]))
        }
        if len(within) < 2:
            continue
        shared = [metric for metric in COMPARED if all(metric in pair.figures for pair in within.values())]
        figures = {metric: spread({order: pair.figures[metric].mean for order, pair in within.items()}) for metric in shared}
        differences.append(OrdersDifference(first.name, second.name, figures))
    return differences


def orders_grid(found: Sequence[Orders]) -> Grid | None:
    """One column per arm: the mean over its orders ± the standard deviation over them; None for no arm in several orders."""
    if not found:
        return None
    cells = [[_spread_text(arm.figures.get(metric)) for metric in COMPARED] for arm in found]
    note = "\n".join(
        [
            "mean ± standard deviation over orders of the mean over seeds (in brackets: the least and the greatest)",
            *(f"{arm.name} [{order}]: {', '.join(each.runs[0].stream)}" for arm in found[:1] for order, each in arm.arms.items()),
        ]
    )
    return figures_grid("over the orders of the tasks, in %", list(COMPARED.values()), [arm.name for arm in found], cells, note)


def order_difference_grid(differences: Sequence[OrdersDifference]) -> Grid | None:
    """One column per pair of arms: their difference, mean ± standard deviation over the orders; None for no such pair."""
    if not differences:
        return None
    cells = [[_spread_text(pair.figures.get(metric), signed=True) for metric in COMPARED] for pair in differences]
    names = [f"{pair.second} − {pair.first}" for pair in differences]
    note = "mean ± standard deviation over orders of the paired difference (in brackets: the least and the greatest), in percentage points"
    return figures_grid("differences between arms over the orders of the tasks", list(COMPARED.values()), names, cells, note)


def _spread_text(value: Spread | None, signed: bool = False) -> str:
    """ "72.8 ± 5.1 (68.0 to 76.9)" in percent."""
    if value is None:
        return "–"
    least, greatest = (percent(value.values[order], signed) for order in (value.lowest, value.highest))
    return f"{percent(value.mean, signed)} ± {percent(value.deviation)} ({least} to {greatest})"


def orders_rows(found: Sequence[Orders]) -> list[tuple[object, ...]]:
    """Rows under ORDERS_HEADER: every figure in each order, over its seeds, and then (order "") over the means of the orders."""
    rows: list[tuple[object, ...]] = []
    for arm in found:
        for metric, value in arm.figures.items():
            for order, member in arm.arms.items():
                figure = member.figures[metric]
                half = figure.half_width
                bounds = ("", "", "") if half is None else (figure.stderr, figure.mean - half, figure.mean + half)
                rows.append((arm.name, metric, order, figure.count, figure.mean, *bounds))
            over = value.interval
            rows.append((arm.name, metric, "", over.count, over.mean, over.stderr, over.low, over.high))
    return rows
