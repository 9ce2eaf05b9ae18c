"""`lineage`: where a checkpoint comes from, down to the base, or what came of it, as a tree on the terminal and as a picture."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from foundation.errors import InputError
from foundation.files import write_atomic
from pipeline.command.terminal import say
from pipeline.lineage import SHOWN, Lineage, Parent, find_model, how_made, read_lineage


def show_lineage(text: str, workspace: Path, down: bool, picture: Path | None, console: Console) -> None:
    """Print the tree of the model that `text` names, and draw it where `picture` says."""
    lineage = read_lineage(workspace / "store")
    key = find_model(lineage, text)
    console.print(tree_of(lineage, key, lineage.below if down else lineage.above), highlight=False)
    if picture is not None:
        from pipeline.report.lineage_picture import draw_lineage

        if picture.suffix.lower() != ".png":
            raise InputError(f"--picture {picture}: a PNG is drawn; name a file that ends in .png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(picture, draw_lineage(lineage, key, down))
        say(console, f"picture: {picture}")
    other = "" if down else " --down"
    say(console, f"next: python -m pipeline lineage {key} --workspace {workspace}{other}")


def tree_of(lineage: Lineage, key: str, nearby: Callable[[str], tuple[Parent, ...]]) -> Tree:
    """The tree from `key` on; a model that stands in it already is named, not told again."""
    root = Tree(told(lineage, Parent("", key)))
    waiting, told_already = [(root, key)], {key}
    while waiting:
        branch, at = waiting.pop()
        for parent in nearby(at):
            if parent.key in told_already or parent.key not in lineage.records:
                gone = "" if parent.key in lineage.records else "  (its record is gone)"
                branch.add(Text.assemble((f"{parent.role}: ", "bold"), (f"{parent.key}{gone or '  (told above)'}", "dim")))
                continue
            told_already.add(parent.key)
            waiting.append((branch.add(told(lineage, parent)), parent.key))
    return root


def told(lineage: Lineage, parent: Parent) -> Text:
    """A model in two or three lines: its role and key, how it was made, by which measurements, when and with which code."""
    record = lineage.records[parent.key]
    score, content = lineage.scores(parent.key), record.content
    head = Text.assemble((f"{parent.role}: " if parent.role else "", "bold"), (parent.key, "cyan"))
    if score is not None:
        head.append(f"  {100 * score:.1f} % on average", style="bold")
    lines = [head, Text(how_made(record))]
    if helpers := lineage.helpers(parent.key):
        lines.append(Text("by " + ", ".join(f"{each.role} {each.key}" for each in helpers)))
    commit = content["versions"].get("commit", "unknown")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(content["finished"]))
    lines.append(Text(f"sha256:{record.digest[:SHOWN]} · {when} · code {commit[:SHOWN]}", style="dim"))
    return Text("\n").join(lines)
