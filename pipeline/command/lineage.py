"""`lineage`: where a checkpoint comes from, down to the base, or what came of it or of a data set: as a tree, a picture, or JSON."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from foundation.errors import ConfigError, InputError, MergelineError
from foundation.files import write_atomic
from pipeline.command.terminal import say
from pipeline.config.inputs import check_place, make_place
from pipeline.lineage import SHOWN, Lineage, Model, Parent, reached, read_lineage
from pipeline.lineage_names import find_data, find_model, need_data, runs_of
from pipeline.tracking.backend import tracking_uri, without_secrets


@dataclass(frozen=True)
class Asked:
    """What a command asks for, and where: by the records in `workspace`, or by the MLflow at `tracking` alone."""

    text: str
    workspace: Path
    tracking: str | None = None
    down: bool = False
    data: str | None = None


@dataclass(frozen=True)
class OfModel:
    """What a model comes from, or with `down` what came of it."""

    lineage: Lineage
    key: str
    down: bool

    @property
    def roots(self) -> tuple[Parent, ...]:
        """Where the tree begins."""
        return (Parent("", self.key),)

    @property
    def next(self) -> list[str]:
        """What to ask next: the other way."""
        return [self.key, *([] if self.down else ["--down"])]

    def tree(self) -> Tree:
        """For the terminal."""
        return tree_of(self.lineage, self.key, self.lineage.below if self.down else self.lineage.above)

    def picture(self) -> bytes:
        """A PNG."""
        from pipeline.report.lineage_picture import draw_lineage

        return draw_lineage(self.lineage, self.key, self.down)


@dataclass(frozen=True)
class OfData:
    """What came of a data set."""

    lineage: Lineage
    name: str
    digests: tuple[str, ...]
    down: bool = True

    @property
    def roots(self) -> tuple[Parent, ...]:
        """The models that rest on it themselves, each with what it was for."""
        return self.lineage.learners(self.name, self.digests)

    @property
    def next(self) -> list[str]:
        """What to ask next: where the last model that learned from it comes from."""
        return [self.roots[-1].key]

    def tree(self) -> Tree:
        """For the terminal."""
        return tree_of_data(self.lineage, self.name, self.digests)

    def picture(self) -> bytes:
        """A PNG."""
        from pipeline.report.lineage_picture import draw_data

        return draw_data(self.lineage, self.name, self.digests)


def show_lineage(asked: Asked, picture: Path | None, as_json: bool, console: Console) -> None:
    """Print the tree of what is asked for (or JSON), and draw it where `picture` says."""
    check(asked, picture)
    found = look(asked)
    if as_json:
        console.file.write(json.dumps(told_to_programs(asked, found), indent=1, ensure_ascii=False) + "\n")
    else:
        console.print(found.tree(), highlight=False)
    if picture is not None:
        make_place(picture.absolute().parent, "--picture: its directory")
        write_atomic(picture, found.picture())
    if not as_json:
        if picture is not None:
            say(console, f"picture: {picture}")
        place = ["--workspace", str(asked.workspace)] if asked.tracking is None else ["--tracking", without_secrets(asked.tracking)]
        say(console, f"next: python -m pipeline lineage {shlex.join([*found.next, *place])}")


def check(asked: Asked, picture: Path | None) -> None:
    """Refuse what cannot be asked together, before anything is read."""
    if not asked.text and asked.data is None:
        raise ConfigError(
            "Missing argument 'MODEL'; name a checkpoint's directory, a step's key, sha256:… or a run, or a data set with --data"
        )
    if asked.text and asked.data is not None:
        raise ConfigError(f"both a model ({asked.text}) and --data {asked.data} are named; name one of them")
    if picture is not None and picture.suffix.lower() != ".png":
        raise ConfigError(f"--picture {picture}: a PNG is drawn; name a file that ends in .png")
    if picture is not None:
        check_place(picture.absolute().parent, "--picture: its directory")


def look(asked: Asked) -> OfModel | OfData:
    """What is asked for, in its lineage. A name of no model that is one of data means the data, with `--down`."""
    lineage, elsewhere = opened(asked)
    if asked.data is not None:
        return OfData(lineage, *need_data(lineage, asked.data))
    try:
        runs = {} if asked.tracking else runs_of(asked.workspace)
        return OfModel(lineage, find_model(lineage, asked.text, runs, elsewhere), asked.down)
    except InputError:
        data = find_data(lineage, asked.text)
        if data is None:
            raise
        if not asked.down:
            raise InputError(
                f"{asked.text} is no model but a data set; see what came of it with --data {shlex.quote(asked.text)}"
            ) from None
        return OfData(lineage, *data)


def opened(asked: Asked) -> tuple[Lineage, Callable[[str], str | None]]:
    """The lineage in the store or in MLflow, and where names are looked up that neither a store nor a directory has."""
    from pipeline.tracking.ancestry import asked_of, is_of_mlflow, tracked_lineage

    def note(line: str) -> None:
        Console(stderr=True).print(f"note: {line}", highlight=False, soft_wrap=True, markup=False)

    if asked.tracking is not None:
        lineage = tracked_lineage(asked.tracking)
        return lineage, asked_of(asked.tracking, lineage, note)
    lineage = read_lineage(asked.workspace / "store")

    def elsewhere(text: str) -> str | None:
        if not is_of_mlflow(text):
            return None
        refused: list[MergelineError] = []
        for uri in tracking_uris(asked.workspace):
            try:
                return asked_of(uri, lineage, note)(text)
            except MergelineError as error:
                refused.append(error)
        raise refused[0]

    return lineage, elsewhere


def tracking_uris(workspace: Path) -> list[str]:
    """Where the runs of a workspace are tracked: as its runs say, the newest first, else where a run would be."""
    left = [*workspace.glob("runs/*/tracking.json"), *workspace.glob("runs/*/tracking/written.json")]
    said = sorted(left, key=lambda path: path.stat().st_mtime, reverse=True)
    found = [uri for path in said if (uri := uri_in(path))]
    return list(dict.fromkeys([*found, tracking_uri(None, workspace.absolute())]))


def uri_in(path: Path) -> str:
    """The address that a run left in a file; empty where the file is damaged: then it says nothing."""
    try:
        return str(json.loads(path.read_text())["uri"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def told_to_programs(asked: Asked, found: OfModel | OfData) -> dict[str, Any]:
    """What the tree shows, as plain data: every model once, the one that was asked for first."""
    keys = dict.fromkeys(key for root in found.roots for key in reached(found.lineage, root.key, found.down))
    used_by = [vars(each) for each in found.roots]
    return {
        "asked": asked.data or asked.text,
        "direction": "down" if found.down else "up",
        "model": found.key if isinstance(found, OfModel) else None,
        "data": {"name": found.name, "digests": list(found.digests), "used_by": used_by} if isinstance(found, OfData) else None,
        "models": [plain(found.lineage.models[key]) for key in keys],
    }


def plain(model: Model) -> dict[str, Any]:
    """A model as JSON has it."""
    return {"kind": model.kind, **asdict(model), "weights": dict(model.weights)}


def tree_of(lineage: Lineage, key: str, nearby: Callable[[str], tuple[Parent, ...]]) -> Tree:
    """The tree from `key` on; a model that stands in it already is named, not told again."""
    root = Tree(told(lineage, Parent("", key), with_place=True))
    grow(lineage, [(root, key)], {key}, nearby)
    return root


def tree_of_data(lineage: Lineage, name: str, digests: Sequence[str]) -> Tree:
    """Every model that rests on a data set, and what came of each."""
    head = Text.assemble(("data: ", "bold"), (name, "green"))
    root = Tree(Text("\n").join([head, *(Text(f"sha256:{digest}", style="dim") for digest in digests)]))
    done: set[str] = set()
    for learner in lineage.learners(name, digests):
        if learner.key in done:
            root.add(again(learner, "told above"))
            continue
        done.add(learner.key)
        grow(lineage, [(root.add(told(lineage, learner)), learner.key)], done, lineage.below)
    return root


def grow(lineage: Lineage, waiting: list[tuple[Tree, str]], done: set[str], nearby: Callable[[str], tuple[Parent, ...]]) -> None:
    """Add to branches what is near to their models, as far as it goes; `done` are those that are told."""
    while waiting:
        branch, at = waiting.pop()
        for parent in nearby(at):
            if parent.key in done or parent.key not in lineage.models:
                branch.add(again(parent, "told above" if parent.key in done else "its record is gone"))
                continue
            done.add(parent.key)
            waiting.append((branch.add(told(lineage, parent)), parent.key))


def again(parent: Parent, why: str) -> Text:
    """A model that is named and not told."""
    return Text.assemble((f"{parent.role}: ", "bold"), (f"{parent.key}  ({why})", "dim"))


def told(lineage: Lineage, parent: Parent, with_place: bool = False) -> Text:
    """A model in a few lines: role and key, how it was made, from which data, by which measurements, digest, when and with which code."""
    model = lineage.models[parent.key]
    head = Text.assemble((f"{parent.role}: " if parent.role else "", "bold"), (model.key, "cyan"))
    if model.score is not None:
        head.append(f"  {100 * model.score:.1f} % on average", style="bold")
    lines = [head, Text(model.how)]
    if model.data:
        lines.append(Text("data: " + ", ".join(f"{each.said} {each.digest[:SHOWN]}" for each in model.data)))
    if model.helpers:
        lines.append(Text("by " + ", ".join(f"{each.role} {each.key}" for each in model.helpers)))
    if with_place:
        lines.append(Text(model.place, style="dim"))
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(model.finished))
    lines.append(Text(f"sha256:{model.digest[:SHOWN]} · {when} · code {model.code}", style="dim"))
    return Text("\n").join(lines)
