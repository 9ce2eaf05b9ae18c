"""The lineage of a model as a picture: a box per model, the base on top, a line for each model that another was made from."""

import io
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipeline.lineage import SHOWN, Lineage, Model, reached

LAYOUT = 2  # of the picture; a higher one has those of finished runs drawn again
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN, TITLE = 2.9, 0.76, 0.55, 0.36, 0.3, 0.55
"""Of a box, between lanes and boxes of a lane, around all, and of the title's line, in inches."""

COMING, LEAVING = 0.3, 0.62
"""How far down a box's side a line comes in and goes out."""

FACES = {"merge": ("#eff6ff", "#2563eb"), "finetune": ("#fffbeb", "#d97706"), "learn": ("#fffbeb", "#d97706")}
"""Face and edge of a box by the kind of step that made the model; of every merge the first."""

OTHER = ("#f9fafb", "#6b7280")
LEARNER = "#16a34a"
INK, PALE, LINE = "#111827", "#6b7280", "#9ca3af"
DOTS, MOST_DOTS = 130, 16_000
"""Per inch, and along a side: what is very large could not be drawn."""

Place = tuple[float, float]


def draw_lineage(lineage: Lineage, key: str, down: bool) -> bytes:
    """A PNG of all that `key` comes from, or with `down` of all that came of it."""
    return draw_models(lineage, reached(lineage, key, down), {key})


def draw_data(lineage: Lineage, name: str, digests: Sequence[str]) -> bytes:
    """A PNG of every model that learned from a data set, marked with what it was for, and of all that came of them."""
    uses = {each.key: each.role for each in lineage.learners(name, digests)}
    keys = list(dict.fromkeys(key for each in uses for key in reached(lineage, each, down=True)))
    told = ", ".join(digest[:SHOWN] for digest in digests[:2]) + (" …" if len(digests) > 2 else "")
    title = f"Data set {name} (sha256 {told}): {len(uses)} of these {len(keys)} models rest on it themselves"
    return draw_models(lineage, keys, set(), title, uses)


def draw_models(
    lineage: Lineage, keys: Sequence[str], marked: Collection[str], title: str = "", uses: Mapping[str, str] | None = None
) -> bytes:
    """A PNG of the models `keys`, those in `marked` with a heavy edge. `uses`: what the data set in the title was for in a model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top = TITLE if title else 0.0
    corner = {key: (x, y + top) for key, (x, y) in corners(lineage, keys).items()}
    size = (
        max([x for x, _ in corner.values()] + [2 * (WIDTH + ACROSS) - WIDTH if title else 0]) + WIDTH + 2 * MARGIN,
        max(y for _, y in corner.values()) + HEIGHT + 2 * MARGIN,
    )
    figure = Figure(figsize=size, dpi=min(DOTS, MOST_DOTS / max(size)))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-MARGIN, size[0] - MARGIN)
    axes.set_ylim(size[1] - MARGIN, -MARGIN)
    axes.text(0, 0.12, title, fontsize=8.5, fontweight="bold", va="center", color=LEARNER)
    for key, place in corner.items():
        above = [parent for parent in lineage.above(key) if parent.key in corner]
        for parent in above:
            _line(axes, corner[parent.key], place, parent.role if len(above) > 1 else "")
        use = (uses or {}).get(key, "")
        _box(axes, place, lineage.models[key], key in marked, use)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _line(axes: Any, source: Place, target: Place, role: str) -> None:
    """From a model to one that was made from it: straight down in one lane; else out of its side, or into the side of a merge."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    (x0, y0), (x1, y1) = source, target
    toward = 1 if x1 > x0 else -1
    if x0 == x1:
        points = [(x0 + WIDTH / 2, y0 + HEIGHT), (x1 + WIDTH / 2, y1)]
        label = (x1 + WIDTH / 2 + 0.07, y1 - 0.1, "left")
    elif not role:
        start, end = (x0 + (WIDTH if toward > 0 else 0), y0 + LEAVING * HEIGHT), (x1 + WIDTH / 2, y1)
        points, label = [start, (end[0], start[1]), (end[0], start[1]), end], (0, 0, "left")
    else:
        start, end = (x0 + WIDTH / 2, y0 + HEIGHT), (x1 + (0 if toward > 0 else WIDTH), y1 + COMING * HEIGHT)
        points = [start, (start[0], end[1]), (start[0], end[1]), end]
        label = (end[0] - toward * 0.12, end[1] - 0.09, "right" if toward > 0 else "left")
    codes = [Path.MOVETO, *([Path.LINETO] if len(points) == 2 else [Path.CURVE4] * 3)]
    style = {"arrowstyle": "-|>", "mutation_scale": 10, "color": LINE, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, "fill": False}
    axes.add_patch(FancyArrowPatch(path=Path(points, codes), zorder=1, **style))
    axes.text(label[0], label[1], role, fontsize=6.5, color=PALE, ha=label[2], va="center", zorder=2)


def _box(axes: Any, place: Place, model: Model, marked: bool, use: str) -> None:
    """A model: its head and score in the first line, how it was made in the second, digest, day and code in the third."""
    from matplotlib.patches import FancyBboxPatch

    face, edge = next((colors for start, colors in FACES.items() if model.kind.startswith(start)), OTHER)
    x, y = place
    line = {"edgecolor": LEARNER if use else edge, "linewidth": 2.4 if marked or use else 0.9}
    axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", facecolor=face, zorder=3, **line))
    head, how, facts, score = written(model)
    axes.text(x + 0.12, y + 0.19, cut(head, 30), fontsize=8.5, fontweight="bold", va="center", color=INK, zorder=4)
    axes.text(x + WIDTH - 0.12, y + 0.19, score, fontsize=8.5, fontweight="bold", va="center", ha="right", color=edge, zorder=4)
    axes.text(x + 0.12, y + 0.4, cut(how, 54), fontsize=6.8, va="center", color=INK, zorder=4)
    axes.text(x + 0.12, y + 0.59, facts, fontsize=6.2, va="center", color=PALE, zorder=4)
    axes.text(x + WIDTH - 0.12, y + 0.59, use, fontsize=6.5, fontweight="bold", va="center", ha="right", color=LEARNER, zorder=4)


def written(model: Model) -> tuple[str, str, str, str]:
    """What stands in a box: how the model was made, with which weights or from which data, digest, day and code, what it scores."""
    head, _, rest = model.how.partition(": ")
    if not model.parents:
        head = f"base, {head}"
    if model.kind == "finetune" and ", " in rest:  # what is cut off first is which parts learned
        parts, _, others = rest.partition(", ")
        rest = f"{others}; {parts}"
    if model.weights:
        rest = " · ".join(f"{name} {weight.removeprefix('weight ')}" for name, weight in model.weights)
    day = time.strftime("%Y-%m-%d", time.gmtime(model.finished))
    score = "" if model.score is None else f"{100 * model.score:.1f} %"
    return head, rest, f"{model.digest[:SHOWN]} · {day} · {model.code}", score


def cut(text: str, room: int) -> str:
    """`text`, shortened to so many characters."""
    return text if len(text) <= room else text[: room - 1] + "…"


def corners(lineage: Lineage, keys: Sequence[str]) -> dict[str, Place]:
    """Key -> left upper corner of its box, in inches: beside one another by lane, below all that it was made from."""
    places = placed(lineage, keys)
    found: dict[str, Place] = {}
    free: dict[int, float] = {}
    for key in sorted(places, key=lambda key: (places[key], key)):
        lane = places[key][1]
        above = [parent.key for parent in lineage.above(key) if parent.key in found]
        beside = [found[each][1] + LEAVING * HEIGHT + DOWN for each in above if places[each][1] != lane]
        y = max([free.get(lane, 0.0), *beside])
        found[key], free[lane] = (lane * (WIDTH + ACROSS), y), y + HEIGHT + DOWN
    return found


def placed(lineage: Lineage, keys: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """Key -> (depth, lane).

    The depth is the longest way from a model that nothing here was before. A model stands in the lane of the first it was made from, and
    beside it where another one that it is made from goes on in that lane, or where the place is taken.
    """
    found: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    ordered = sorted(keys, key=lambda key: (lineage.models[key].finished, key))
    merged = {parent.key for key in ordered if len(lineage.above(key)) > 1 for parent in lineage.above(key)[:1]}
    for key in ordered:  # a model is made after those it is made from
        before = [parent.key for parent in lineage.above(key) if parent.key in found]
        depth = 1 + max((found[parent][0] for parent in before), default=-1)
        lane = found[before[0]][1] + (len(before) == 1 and before[0] in merged) if before else 0
        while (depth, lane) in taken:
            lane += 1
        found[key] = (depth, lane)
        taken.add((depth, lane))
    return found
