"""The lineage of a model as a picture: a box per model, the base on the left, an arrow for each model that another was made from."""

import io
from collections.abc import Mapping

from pipeline.lineage import SHOWN, Lineage

WIDTH, HEIGHT, GAP = 2.5, 0.62, 0.5
"""Of a box, and between columns, in inches."""

FACES = {"merge": "#dbeafe", "finetune": "#fef3c7", "learn": "#fef3c7"}
"""Face of a box by the kind of step; of every merge the first."""


def draw_lineage(lineage: Lineage, key: str, down: bool) -> bytes:
    """A PNG of all that `key` comes from, or with `down` of all that came of it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    keys = reached(lineage, key, down)
    places = placed(lineage, keys)
    columns, rows = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    figure = Figure(figsize=(columns * (WIDTH + GAP) + 0.4, rows * (HEIGHT + 0.3) + 0.4), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.2, columns * (WIDTH + GAP))
    axes.set_ylim(rows * (HEIGHT + 0.3) + 0.1, -0.2)
    corner = {each: (x * (WIDTH + GAP), y * (HEIGHT + 0.3)) for each, (x, y) in places.items()}
    for child in keys:
        for parent in lineage.above(child):
            if parent.key in corner:
                (x, y), (right, middle) = corner[child], corner[parent.key]
                ends = {"xy": (x, y + HEIGHT / 2), "xytext": (right + WIDTH, middle + HEIGHT / 2)}
                axes.annotate("", **ends, arrowprops={"arrowstyle": "-|>", "color": "#6b7280", "shrinkA": 0, "shrinkB": 0}, zorder=0)
    for each, (x, y) in corner.items():
        kind = lineage.models[each].kind
        face = next((color for start, color in FACES.items() if kind.startswith(start)), "#f3f4f6")
        edge = {"edgecolor": "#2563eb" if each == key else "#9ca3af", "linewidth": 2 if each == key else 1}
        axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.06", facecolor=face, **edge))
        axes.text(x + 0.08, y + HEIGHT / 2, written(lineage, each), fontsize=7, va="center", color="#111827")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def written(lineage: Lineage, key: str) -> str:
    """What stands in a box: what the step is, how it made the model, what the model scores."""
    model = lineage.models[key]
    head, _, rest = model.how.partition(": ")
    points = f"   {100 * model.score:.1f} %" if model.score is not None else ""
    return "\n".join([f"{cut(head, 34)}{points}", cut(rest, 46), f"sha256:{model.digest[:SHOWN]}"])


def cut(text: str, room: int) -> str:
    """`text`, shortened to so many characters."""
    return text if len(text) <= room else text[: room - 1] + "…"


def reached(lineage: Lineage, key: str, down: bool) -> list[str]:
    """`key` and all that it rests on (or that rests on it), each once."""
    found, waiting = {key: None}, [key]
    while waiting:
        at = waiting.pop()
        for each in lineage.below(at) if down else lineage.above(at):
            if each.key not in found and each.key in lineage.models:
                found[each.key] = None
                waiting.append(each.key)
    return list(found)


def placed(lineage: Lineage, keys: list[str]) -> Mapping[str, tuple[int, int]]:
    """Key -> (column, row).

    A column is the longest way from a model that nothing here was before. A model stands in the row of the first it was made from, and
    below it where another one that it is made from goes on in that row, or where the place is taken.
    """
    found: dict[str, tuple[int, int]] = {}
    ordered = sorted(keys, key=lambda key: (lineage.models[key].finished, key))
    merged = {parent.key for key in ordered if len(lineage.above(key)) > 1 for parent in lineage.above(key)[:1]}
    for key in ordered:  # a model is made after those it is made from
        before = [parent.key for parent in lineage.above(key) if parent.key in found]
        column = 1 + max((found[parent][0] for parent in before), default=-1)
        row = found[before[0]][1] + (len(before) == 1 and before[0] in merged) if before else 0
        while (column, row) in found.values():
            row += 1
        found[key] = (column, row)
    return found
