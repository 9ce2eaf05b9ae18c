"""Curves over the stages, all arms in one chart: what the held-out tasks lose, what the stream keeps; means over seeds with intervals."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.report.comparison import Arm, Estimate
from pipeline.report.page.arms import after_stages, ends_of, interval_words, same_stream, seeds_after
from pipeline.report.page.chart import MARKS, Frame, bar, legend, mark, names_axis, numbers_axis, path
from pipeline.report.page.markup import element, text
from pipeline.report.run_scores import AFTER, BEFORE

CURVES = {
    "acc/held_out": ("Held-out tasks: mean accuracy in %", False),
    "acc/stream": ("Stream tasks: mean accuracy in %", False),
    "forgetting/held_out": ("Held-out tasks: forgotten since the base, points", True),
    "forgetting/stream": ("Stream tasks: forgotten since their best, points", True),
}
"""Metric -> the chart's title, and whether its axis holds zero."""
SHIFT = 0.055
"""How far the arms' marks stand apart, in stages: their bars would hide one another."""


def curves(arms: Sequence[Arm]) -> str:
    """A chart for each metric that an arm has, below one legend."""
    charts = [figure(arms, metric) for metric in CURVES]
    hollow = ('<circle class="mark hollow plain" cx="9" cy="9" r="5"></circle>', "before the merge")
    extra = [hollow] if len(arms) == 1 and arms[0].runs[0].merges else []
    return element("div", legend([arm.name for arm in arms], extra), element("div", *charts, class_="charts"), class_="group")


def figure(arms: Sequence[Arm], metric: str) -> str:
    """One chart; nothing where no arm has the metric."""
    found = [(place, role, after_stages(arm, metric, role)) for place, arm in enumerate(arms) for role in shown_roles(arms, arm)]
    if not any(interval for _, _, line in found for interval in line):
        return ""
    ends = [100 * value for place, role, _ in found for value in seeds_after(arms[place], metric, role)]
    title, zero = CURVES[metric]
    stream = arms[0].runs[0].stream
    names = [f"{stage} {task}" if same_stream(arms) else str(stage) for stage, task in enumerate(stream, 1)]
    frame = Frame(names_axis(["base", *names], "after stage"), numbers_axis(ends, zero=zero), left=46)
    frame = replace(frame, bottom=74) if frame.slants() else frame
    drawn = [curve(frame, arms[place].name, place, role, line, (place - (len(arms) - 1) / 2) * SHIFT) for place, role, line in found]
    return element("figure", element("figcaption", text(title)), frame.draw(*drawn, label=title))


def shown_roles(arms: Sequence[Arm], arm: Arm) -> tuple[str, ...]:
    """The models that go on; of an arm alone also those before the merge."""
    return (AFTER, BEFORE) if len(arms) == 1 and arm.runs[0].merges else (AFTER,)


def curve(frame: Frame, name: str, place: int, role: str, line: Sequence[Estimate | None], shift: float) -> str:
    """One arm's line with marks and bars; before the merge dashed and hollow, and without the base."""
    points, marks = [], []
    for stage, interval in enumerate(line):
        if interval is None or (role == BEFORE and stage == 0):
            continue
        x, y = frame.across(stage + shift), frame.down(100 * interval.mean)
        points.append((x, y))
        if ends := ends_of(interval):
            marks.append(bar(frame, (stage + shift, 100 * ends[0]), (stage + shift, 100 * ends[1])))
        told = f"{name}{', before the merge' if role == BEFORE else ''}, after {frame.x.ticks[stage][1]}: {interval_words(interval)}"
        marks.append(mark(place, x, y, told, hollow=role == BEFORE, size=4.2))
    if not points:
        return ""
    kind = "dashed" if role == BEFORE else ""
    return element("g", path(points, kind), *marks, class_=f"arm arm{place % len(MARKS)}", data_arm=str(place))
