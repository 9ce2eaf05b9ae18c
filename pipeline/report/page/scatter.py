"""Two scores against each other: the frontier of every stage (its new task against the held-out tasks), and learning against forgetting."""

from collections.abc import Sequence

from pipeline.report.comparison import Arm, Estimate
from pipeline.report.page.arms import ends_of, interval_words, over_seeds, same_stream
from pipeline.report.page.chart import MARKS, Frame, bar, dot, legend, mark, numbers_axis, path
from pipeline.report.page.markup import element, text
from pipeline.report.run_scores import AFTER, BASE, BEFORE, RunScores, StageScores, mean_with_stderr, rows_of, summary

Point = tuple[float, float]
BASE_MARK = '<path class="mark plain" d="M9 4V14M4 9H14"></path>'
HOLLOW_MARK = '<circle class="mark hollow plain" cx="9" cy="9" r="5"></circle>'


def frontiers(arms: Sequence[Arm]) -> str:
    """A chart per stage where all arms learn the same stream, else one of all stages; "" without held-out tasks or stages."""
    if not all(arm.runs[0].held_out and arm.stage for arm in arms):
        return ""
    stream = arms[0].runs[0].stream
    stages = [(stage,) for stage in range(1, arms[0].stage + 1)] if same_stream(arms) else [tuple(range(1, arms[0].stage + 1))]
    charts = []
    for chosen in stages:
        words = f"Stage {chosen[0]}: {stream[chosen[0] - 1]}" if len(chosen) == 1 and same_stream(arms) else "Mean over the stages"
        task = stream[chosen[0] - 1] if len(chosen) == 1 and same_stream(arms) else "the stage's own task"
        charts.append(frontier(arms, chosen, words, f"{task}, accuracy in %"))
    extra = [(BASE_MARK, "base model")] + ([(HOLLOW_MARK, "before the merge")] if any(arm.runs[0].merges for arm in arms) else [])
    return element("div", legend([arm.name for arm in arms], extra), element("div", *charts, class_="charts small"), class_="group")


def frontier(arms: Sequence[Arm], stages: Sequence[int], title: str, across: str) -> str:
    """One chart: x the new task, y the mean of the held-out tasks; before and after the merge joined; a faint dot per seed."""
    found: list[tuple[int, str, list[Point], Estimate, Estimate]] = []
    for place, arm in enumerate(arms):
        for role in (BEFORE, AFTER) if arm.runs[0].merges else (AFTER,):
            seeds = [traded(run, role, stages) for run in arm.runs]
            x, y = (over_seeds([point[index] for point in seeds]) for index in (0, 1))
            assert x is not None
            assert y is not None
            found.append((place, role, seeds, x, y))
    bases = [traded(arms[0].runs[0], BASE, stages)]
    every = [point for _, _, seeds, _, _ in found for point in seeds] + bases
    frame = Frame(
        numbers_axis([100 * x for x, _ in every], across),
        numbers_axis([100 * y for _, y in every], "held-out mean, %"),
        width=400, height=310, left=62, bottom=52,
    )  # fmt: skip
    drawn = [base_mark(frame, bases[0])]
    for place, arm in enumerate(arms):
        own = [each for each in found if each[0] == place]
        drawn.append(element("g", *trail(frame, arm, own), class_=f"arm arm{place % len(MARKS)}", data_arm=str(place)))
    return element("figure", element("figcaption", text(title)), frame.draw(*drawn, label=f"{title}: {across} against the held-out mean"))


def traded(run: RunScores, role: str, stages: Sequence[int]) -> Point:
    """The score on the stages' own tasks and on the held-out tasks, mean over `stages`, of the models of `role`; of BASE the base's."""
    points = []
    rows = rows_of(run, AFTER if role == BASE else role)
    for stage in stages:
        entry: StageScores = rows[0 if role == BASE else stage]
        points.append((entry.scores[run.stream[stage - 1]].accuracy, mean_with_stderr(entry, run.held_out)[0]))
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def trail(frame: Frame, arm: Arm, found: Sequence[tuple[int, str, list[Point], Estimate, Estimate]]) -> list[str]:
    """One arm's points, joined from before to after."""
    drawn, places = [], []
    for place, role, seeds, x, y in found:
        hollow = role == BEFORE
        drawn += [dot(frame.across(100 * a), frame.down(100 * b)) for a, b in seeds] if len(seeds) > 1 else []
        where = (frame.across(100 * x.mean), frame.down(100 * y.mean))
        places.append(where)
        told = f"{arm.name}, {'before' if hollow else 'after'} the merge" if arm.runs[0].merges else arm.name
        drawn.append(mark(place, *where, f"{told}: new task {interval_words(x)}, held-out {interval_words(y)}", hollow=hollow))
    return [path(places, "thin"), *drawn] if len(places) > 1 else drawn


def base_mark(frame: Frame, point: Point) -> str:
    """The base model."""
    x, y = frame.across(100 * point[0]), frame.down(100 * point[1])
    told = element("title", text(f"base model: new task {100 * point[0]:.1f}, held-out {100 * point[1]:.1f}"))
    return f'<path class="mark plain" d="M{x:.1f} {y - 6:.1f}V{y + 6:.1f}M{x - 6:.1f} {y:.1f}H{x + 6:.1f}">{told}</path>'


def learning_against_forgetting(arms: Sequence[Arm]) -> str:
    """x: what the held-out tasks lost since the base, y: what the stream's tasks gained on it; "" for less than two points."""
    lost, kept = "forgetting/held_out", "learning/final_gain"
    known = [(place, arm) for place, arm in enumerate(arms) if lost in arm.figures and kept in arm.figures]
    if sum(len(arm.runs) for _, arm in known) < 2:
        return ""
    points = {place: [point_of(run, arm.stage, (lost, kept)) for run in arm.runs] for place, arm in known}
    bars = {place: [over_seeds([point[index] for point in points[place]]) for index in (0, 1)] for place, arm in known}
    reach = [[100 * point[index] for own in points.values() for point in own] for index in (0, 1)]
    frame = Frame(
        numbers_axis(reach[0], "held-out tasks: forgotten since the base, points", zero=True, signed=True),
        numbers_axis(reach[1], "stream tasks: gained on the base, points", zero=True, signed=True),
        width=600, height=400, left=62,
    )  # fmt: skip
    zero_x, zero_y = frame.across(0), frame.down(0)
    drawn = [
        f'<line class="zero" x1="{zero_x:.1f}" x2="{zero_x:.1f}" y1="{frame.top}" y2="{frame.height - frame.bottom}"></line>',
        f'<line class="zero" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{zero_y:.1f}" y2="{zero_y:.1f}"></line>',
    ]
    for place, arm in known:
        x, y = bars[place]
        assert x is not None
        assert y is not None
        drawn.append(cross(frame, arm, place, points[place], x, y))
    chart = frame.draw(*drawn, label="Learning against forgetting, all arms")
    title = element("figcaption", "Learning against forgetting (the upper left is best)")
    return element("div", legend([arm.name for arm in arms]), element("figure", title, chart), class_="group single")


def point_of(run: RunScores, stage: int, metrics: tuple[str, str]) -> Point:
    """Two of a run's figures."""
    figures = summary(run, stage)
    return figures[metrics[0]], figures[metrics[1]]


def cross(frame: Frame, arm: Arm, place: int, seeds: Sequence[Point], x: Estimate, y: Estimate) -> str:
    """An arm's mean with both of its intervals, and its seeds."""
    middle_x, middle_y = frame.across(100 * x.mean), frame.down(100 * y.mean)
    drawn = [dot(frame.across(100 * a), frame.down(100 * b)) for a, b in seeds] if len(seeds) > 1 else []
    if ends := ends_of(x):
        drawn.append(bar(frame, (100 * ends[0], 100 * y.mean), (100 * ends[1], 100 * y.mean)))
    if ends := ends_of(y):
        drawn.append(bar(frame, (100 * x.mean, 100 * ends[0]), (100 * x.mean, 100 * ends[1])))
    told = f"{arm.name}: forgotten {interval_words(x)}, gained {interval_words(y, signed=True)}"
    drawn.append(mark(place, middle_x, middle_y, told, size=6))
    return element("g", *drawn, class_=f"arm arm{place % len(MARKS)}", data_arm=str(place))
