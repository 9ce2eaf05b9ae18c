"""The result in one sentence: the arm that the experiment names first, against the best of those it is held against.

Whose claim it is, is not chosen by the test scores that it is told with; whom it has to beat is: the strongest.
"""

from collections.abc import Sequence

from pipeline.report.comparison import Arm, after_stage, seeds_difference
from pipeline.report.orders import Orders, Spread, order_differences, orders_of
from pipeline.report.page.arms import difference_words, figure_words, interval_words, points

AVERAGE = "acc/average"


def headline(arms: Sequence[Arm]) -> str:
    """One sentence: two arms with their paired difference (over the orders of the tasks where there are some), or what an arm came to."""
    when = after_stage(arms[0].stage, arms[0].runs[0].stream)
    if arms[0].stage == 0:
        return f"Only the base model is evaluated yet: average accuracy {average(arms[0])} %."
    orders = orders_of(arms)
    if orders and sum(len(each.arms) for each in orders) == len(arms):
        return over_orders(orders, when)
    pair = opponents(arms)
    return alone(arms[0], when) if pair is None else against(*pair, when)


def opponents(arms: Sequence[Arm]) -> tuple[Arm, Arm] | None:
    """The first arm that merges, against the best without merges; else the first against the best other. Joint training is a bound."""
    held = [arm for arm in arms if not arm.runs[0].joint]
    merging, plain = [arm for arm in held if arm.runs[0].merges], [arm for arm in held if not arm.runs[0].merges]
    one, others = (merging[0], plain) if merging and plain else (held[0], held[1:]) if held else (None, [])
    return (one, max(others, key=lambda arm: arm.figures[AVERAGE].mean)) if one is not None and others else None


def against(one: Arm, other: Arm, when: str) -> str:
    """Two arms and the difference between them."""
    found = seeds_difference(other, one)
    seeds = "" if found is None else f"{found.count} seed{'s' if found.count > 1 else ''}"
    told = "" if found is None else f"; paired difference {difference_words(found)} points over {seeds}"
    return f"{one.name}: average accuracy {average(one)} % {when}, against {other.name} {average(other)} %{told}."


def over_orders(orders: Sequence[Orders], when: str) -> str:
    """The first arm in the mean over the orders, the best other, and their difference."""
    one, *rest = orders
    others = sorted(rest, key=lambda each: -each.figures[AVERAGE].mean)
    told = f"{one.name}: average accuracy {spread_words(one.figures[AVERAGE])} {when}, over {len(one.arms)} orders of the tasks"
    if not others:
        return f"{told}."
    found = [each.figures[AVERAGE] for each in order_differences([others[0], one]) if AVERAGE in each.figures]
    difference = f"; paired difference {points(found[0].mean, True)} {ends_words(found[0])} points" if found else ""
    return f"{told}, against {others[0].name} {spread_words(others[0].figures[AVERAGE])}{difference}."


def ends_words(value: Spread) -> str:
    """ "[6.1, 11.2]", the 95 % interval over the orders."""
    ends = (value.interval.low, value.interval.high)
    return f"[{', '.join(points(end) for end in ends if end is not None)}]"


def spread_words(value: Spread) -> str:
    """ "72.8 % (68.0 to 76.9)"."""
    return f"{points(value.mean)} % ({points(value.values[value.lowest])} to {points(value.values[value.highest])})"


def alone(arm: Arm, when: str) -> str:
    """One arm: after its last stage, before that stage's merge, and the base it came from."""
    tuned = arm.figures.get(f"before_merge/{AVERAGE}")
    before = f", {interval_words(tuned)} before the last merge" if tuned else ""
    return f"{arm.name}: average accuracy {average(arm)} % {when}{before}; the base model has {base_words(arm)}."


def base_words(arm: Arm) -> str:
    """The base model's average accuracy, mean over the seeds."""
    bases = [[run.stages[0].scores[task].accuracy for task in run.tasks] for run in arm.runs]
    return points(sum(sum(base) / len(base) for base in bases) / len(bases))


def average(arm: Arm) -> str:
    """The average accuracy over all tasks with its interval."""
    return figure_words(arm, AVERAGE)
