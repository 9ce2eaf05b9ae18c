"""Heat maps of stage x task: before the merge, after it, and what the merge changed; for every arm the mean over seeds, and each seed.

All are tables with their values in the cells. One arm and seed is shown at a time: the page's script changes which, and without a script
all are shown. Changes have one scale over the whole page, so that arms can be held against one another by eye.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.comparison import Arm, arm_label
from pipeline.report.page.colors import change_class, score_class
from pipeline.report.page.markup import element, framed, text
from pipeline.report.run_scores import AFTER, BEFORE, RunScores, score_matrix

COARSE, WIDEST = 0.05, 0.5
"""The scale of changes ends at a multiple of the first, and at the second at most; what is beyond has the full colour."""


@dataclass(frozen=True)
class View:
    """What is shown at a time: an arm in the mean over its seeds, or one of its seeds; [stages + 1, tasks], before None without merges."""

    arm: int
    name: str
    before: np.ndarray | None
    after: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """After minus before of each stage; without merges the change from the base. [stages, tasks]."""
        if self.before is None:
            return np.asarray((self.after - self.after[0])[1:])
        stages = min(len(self.before), len(self.after))
        return np.asarray((self.after[:stages] - self.before[:stages])[1:])


def views_of(arms: Sequence[Arm]) -> list[View]:
    """Every arm's mean, and its seeds where it has several."""
    found = []
    for place, arm in enumerate(arms):
        seeds = [view_of(place, f"seed {run.seed}", [run]) for run in arm.runs]
        found += [view_of(place, f"mean of {len(arm.runs)} seeds", arm.runs), *seeds] if len(arm.runs) > 1 else seeds
    return found


def view_of(arm: int, name: str, runs: Sequence[RunScores]) -> View:
    """The mean of `runs`, over the stages that all of them have."""
    before = mean_of(runs, BEFORE) if all(run.merges for run in runs) else None
    return View(arm, name, before, mean_of(runs, AFTER))


def mean_of(runs: Sequence[RunScores], role: str) -> np.ndarray:
    """Mean score matrix of `runs`, [stages + 1, tasks], as many stages as all have."""
    matrices = [score_matrix(run, role).scores for run in runs]
    rows = min(map(len, matrices))
    return np.mean([matrix[:rows] for matrix in matrices], axis=0)


def limit_of(views: Sequence[View]) -> float:
    """The end of the scale of changes: the largest of all, rounded up."""
    largest = max((float(np.abs(view.change).max()) for view in views if view.change.size), default=0.0)
    return min(WIDEST, max(COARSE, math.ceil(largest / COARSE - 1e-9) * COARSE))


def heat_maps(arms: Sequence[Arm], chosen: int = 0) -> str:
    """All maps, with the selectors; the arm at `chosen` is shown first."""
    views = views_of(arms)
    limit = limit_of(views)
    first = next(index for index, view in enumerate(views) if view.arm == chosen)
    blocks = [block(arms[view.arm], view, limit, shown=index == first) for index, view in enumerate(views)]
    return element("div", selectors(arms, views, chosen), *blocks, scale(limit), class_="maps")


def selectors(arms: Sequence[Arm], views: Sequence[View], chosen: int) -> str:
    """Which arm and which seed; nothing where there is but one map."""
    if len(views) == 1:
        return ""
    names = [element("option", text(arm.name), value=str(place), selected=place == chosen) for place, arm in enumerate(arms)]
    kinds = [element("option", text(name), value=name) for name in dict.fromkeys(view.name for view in views)]
    return element(
        "p",
        element("label", "Arm ", element("select", *names, id="map-arm")) if len(arms) > 1 else "",
        element("label", "Seed ", element("select", *kinds, id="map-seed")) if len(kinds) > 1 else "",
        class_="choices",
    )


def block(arm: Arm, view: View, limit: float, shown: bool) -> str:
    """The maps of one view side by side."""
    run = arm.runs[0]
    after = ("After the merge", view.after, 0) if view.before is not None else ("After each stage", view.after, 0)
    panels = ([("Before the merge", view.before, 0)] if view.before is not None else []) + [after]
    maps = [one_map(run, f"{title}: accuracy in %", values, start) for title, values, start in panels]
    if view.change.size:
        title = "What the merge changes, in points" if view.before is not None else "Change from the base, in points"
        maps.append(one_map(run, title, view.change, 1, limit))
    return element(
        "div",
        element("h3", text(f"{arm_label(arm)}, {view.name}")),
        element("div", *maps, class_="panels"),
        class_="view",
        data_arm=str(view.arm),
        data_seed=view.name,
        hidden=not shown,
    )


def one_map(run: RunScores, title: str, values: np.ndarray, start: int, limit: float = 0.0) -> str:
    """One matrix as a table; row 0 is stage `start`. With a `limit` the values are changes."""
    held, gap = len(run.held_out), element("td", class_="gap")
    names = ["base", *(f"{stage} {task}" for stage, task in enumerate(run.stream, 1))]
    head = [
        ((gap if column == held and held else "") + element("th", element("span", text(task)), scope="col"))
        for column, task in enumerate(run.tasks)
    ]
    groups = [element("td")] + ([element("th", "held out", colspan=str(held), scope="colgroup"), gap] if held else [])
    groups.append(element("th", "stream", colspan=str(len(run.stream)), scope="colgroup"))
    body = []
    for row, line in enumerate(values):
        cells = []
        for column, value in enumerate(line):
            own = row + start > 0 and column == held + row + start - 1
            color = change_class(value, limit) if limit else score_class(value)
            cells += [gap] if column == held and held else []
            cells.append(element("td", whole(value, bool(limit)), class_=color + " own" * own, title=f"{100 * value:.1f}"))
        body.append(element("tr", element("th", text(names[row + start]), scope="row"), *cells))
    top = element("thead", element("tr", *groups, class_="groups"), element("tr", element("td"), *head, class_="tasks"))
    return framed(element("table", element("caption", text(title)), top, element("tbody", *body), class_="heat"))


def whole(value: float, signed: bool) -> str:
    """A fraction as whole percent, or a signed change."""
    words = f"{100 * value:+.0f}" if signed else f"{100 * value:.0f}"
    return "0" if words in ("+0", "-0") else words.replace("-", "−")


def scale(limit: float) -> str:
    """What the colours mean."""
    scores = "".join(element("i", class_=f"s{step}") for step in range(0, 21, 2))
    changes = "".join(element("i", class_=f"c{step}") for step in range(-10, 11, 2))
    ends = f"{100 * limit:.0f}"
    beyond = " or more" if limit == WIDEST else ""
    return element(
        "p",
        element("span", "0 ", element("span", scores, class_="ramp"), " 100 %", class_="scale"),
        element("span", f"−{ends} worse ", element("span", changes, class_="ramp"), f" better +{ends} points{beyond}", class_="scale"),
        element("span", element("i", class_="own s0 swatch"), " the task that the stage has just trained", class_="scale"),
        class_="scales soft",
    )
