"""`lineage`: where a checkpoint comes from, down to the base, or what came of it, as a tree on the terminal and as a picture."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from foundation.errors import ConfigError
from foundation.files import write_atomic
from pipeline.command.terminal import say
from pipeline.config.inputs import check_place, make_place
from pipeline.lineage import SHOWN, Lineage, Parent, find_model, read_lineage


def show_lineage(text: str, workspace: Path, tracking: str | None, down: bool, picture: Path | None, console: Console) -> None:
    """Print the tree of the model that `text` names, and draw it where `picture` says.

    Told by the records in `workspace`, or by the MLflow at `tracking` alone.
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise ConfigError(f"--picture {picture}: a PNG is drawn; name a file that ends in .png")
    if picture is not None:
        check_place(picture.absolute().parent, "--picture: its directory")
    if tracking is None:
        lineage, place = read_lineage(workspace / "store"), ["--workspace", str(workspace)]
    else:
        from pipeline.tracking.ancestry import tracked_lineage

        lineage, place = tracked_lineage(tracking), ["--tracking", tracking]
    key = find_model(lineage, text)
    console.print(tree_of(lineage, key, lineage.below if down else lineage.above), highlight=False)
    if picture is not None:
        from pipeline.report.lineage_picture import draw_lineage

        make_place(picture.absolute().parent, "--picture: its directory")
        write_atomic(picture, draw_lineage(lineage, key, down))
        say(console, f"picture: {picture}")
    say(console, f"next: python -m pipeline lineage {shlex.join([key, *place, *([] if down else ['--down'])])}")


def tree_of(lineage: Lineage, key: str, nearby: Callable[[str], tuple[Parent, ...]]) -> Tree:
    """The tree from `key` on; a model that stands in it already is named, not told again."""
    root = Tree(told(lineage, Parent("", key)))
    waiting, told_already = [(root, key)], {key}
    while waiting:
        branch, at = waiting.pop()
        for parent in nearby(at):
            if parent.key in told_already or parent.key not in lineage.models:
                why = "told above" if parent.key in told_already else "its record is gone"
                branch.add(Text.assemble((f"{parent.role}: ", "bold"), (f"{parent.key}  ({why})", "dim")))
                continue
            told_already.add(parent.key)
            waiting.append((branch.add(told(lineage, parent)), parent.key))
    return root


def told(lineage: Lineage, parent: Parent) -> Text:
    """A model in a few lines: its role and key, how it was made, by which measurements, its digest, when and with which code."""
    model = lineage.models[parent.key]
    head = Text.assemble((f"{parent.role}: " if parent.role else "", "bold"), (model.key, "cyan"))
    if model.score is not None:
        head.append(f"  {100 * model.score:.1f} % on average", style="bold")
    lines = [head, Text(model.how)]
    if model.helpers:
        lines.append(Text("by " + ", ".join(f"{each.role} {each.key}" for each in model.helpers)))
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(model.finished))
    lines.append(Text(f"sha256:{model.digest[:SHOWN]} · {when} · code {model.commit[:SHOWN]}", style="dim"))
    return Text("\n").join(lines)
