"""The lineage on MLflow's pages: a model's page tells its way down to the base, the pipeline's run shows it as a picture.

What a page tells is written when the model is logged, and brought up to date when a run is written to its end: a step may have been made
again, an earlier release may have told less, scores come later than models.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.lineage import ASKING, SHOWN, Lineage, Model, model_of, reached, score_of
from pipeline.lineage_names import stream_name
from pipeline.recipes.milestone import Role
from pipeline.step import Measurement, Step
from pipeline.store import Store
from pipeline.titles import title_of
from pipeline.tracking.ancestry import FINAL_TAG, LINEAGE_TAG, SCORE_TAG, logged_models, tag_of
from pipeline.tracking.book import KEY_TAG, PIPELINE_TAG, Book
from pipeline.tracking.registry import model_page, registered_versions

if TYPE_CHECKING:
    from pipeline.config.experiment import Built

PICTURE_TAG, NOTE_TAG, VERSIONS_TAG = "mergeline.lineage_picture", "mlflow.note.content", "mlflow.modelVersions"
ROOM, PICTURE = "lineage", "lineage.png"
FEW = 3
"""Data sets whose digests a row has room for."""

ROWS = 40
"""Ancestors that a page lists."""

BOXES = 60
"""Models that a picture shows at most: beyond them it is that of one arm and seed."""

Models = Callable[[Step], str]
"""A stored step -> the id of its logged model."""

Look = Callable[[str], Model | None]
"""A step's key -> the model that it made, None where it is not stored or made none."""


def parents_of(step: Step) -> list[Step]:
    """The steps whose checkpoints this step's checkpoint was made from."""
    return [needed for needed in step.inputs if not isinstance(needed, Measurement)]


def reader(store: Store) -> Look:
    """Reads models by key, each record once."""
    records = cache(store.by_key)

    @cache
    def look(key: str) -> Model | None:
        record = records(key)
        if record is None or record.checkpoint is None:
            return None
        return model_of(record, {each: found for each in record.content["inputs"] if (found := records(each)) is not None}, None)

    return look


def model_note(
    step: Step,
    model: Models,
    look: Look,
    experiment: str,
    titles: dict[str, str],
    registered: tuple[str, int] | None = None,
    picture: str = "",
) -> str:
    """Markdown for a model's page: how it was made and where it lies, and the way down to the base with a link for every model on it.

    `look` reads models (`reader`). `registered`: the registered model and its version. `picture`: the address of a picture to show below.
    """
    told = look(step.key)
    if told is None:
        raise LookupError(f"{step.key} has no stored checkpoint to tell of")
    lines = [f"### {title_of(step, titles)}", "", f"{told.how}.", "", "| | |", "|:--|:--|", *_facts(told, registered), ""]
    above = ancestors_of(step)
    if not above:
        return "\n".join([*lines, "Nothing here was before it: this is a base."])
    lines += ["---", "", "**The way down to the base**", "", "| Model | As | How it was made | Data | Code |", "|:--|:--|:--|:--|:--|"]
    for ancestor, (role, child) in list(above.items())[:ROWS]:
        found = look(ancestor.key)
        if found is not None:
            link = f"[{_short(ancestor, titles)}]({model_page(experiment, model(ancestor))})"
            lines.append(_row(link, f"{role} of {_short(child, titles)}", found))
    if len(above) > ROWS:
        lines += ["", f"… and {len(above) - ROWS} more, down to the base."]
    lines += ["", f"The same as a tree: `python -m pipeline lineage {step.key}`"]
    image = f'<img src="{picture}" alt="The lineage as a picture" style="max-width: 100%">'
    return "\n".join([*lines, *(["", "---", "", image] if picture else [])])


def ancestors_of(step: Step) -> dict[Step, tuple[str, Step]]:
    """Every model that a step's checkpoint rests on, the nearest first, with its role in the first that was made from it."""
    found: dict[str, tuple[Step, str, Step]] = {}
    level = [step]
    while level:
        below, level = level, []
        for child in below:
            roles = _roles(child)
            for parent in parents_of(child):
                if parent.key not in found:
                    found[parent.key] = (parent, roles.get(parent.key, "source"), child)
                    level.append(parent)
    return {parent: (role, child) for parent, role, child in found.values()}


def _roles(step: Step) -> dict[str, str]:
    """Key -> what a step reads it as: the name of the source, else of the field."""
    sources = getattr(step, "sources", {})
    fields = {value.key: name for name, value in vars(step).items() if isinstance(value, Step)}
    return {**fields, **{source.key: name for name, source in sources.items()}}


def _facts(told: Model, registered: tuple[str, int] | None) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(told.finished))
    commit = f", commit `{told.commit}`" if told.commit != "unknown" else ""
    facts = {
        "Checkpoint": f"`{told.place}`",
        "SHA-256 over its files": f"`{told.digest}`",
        "Weights": "; ".join(f"{name}: {weight}" for name, weight in told.weights),
        "Data": _data(told),
        "Seed": "" if told.seed is None else str(told.seed),
        "Code": f"mergeline {told.release}{commit}",
        "Made": when,
        "Registered as": ""
        if registered is None
        else "[{0}, version {1}](#/models/{2}/versions/{1})".format(*registered, quote(registered[0])),
    }
    return [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value]


def _row(model: str, role: str, told: Model) -> str:
    data = _data(told) if len(told.data) <= FEW else ", ".join(dict.fromkeys(each.name for each in told.data))
    return f"| {_cell(model)} | {_cell(role)} | {_cell(told.how)} | {_cell(data)} | {_cell(told.code)} |"


def _data(told: Model) -> str:
    return ", ".join(f"{each.said} `{each.digest[:SHOWN]}`" for each in told.data)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _short(step: Step, titles: dict[str, str]) -> str:
    """A step's words without its weights, which stand beside it."""
    return title_of(step, titles).partition(" (")[0]


def tell_lineage(book: Book, built: "Built", store: Store, model: Models, titles: dict[str, str]) -> None:
    """Bring up to date what MLflow's pages tell of this run's lineage: every stored model's page, what the run ends with, its picture."""
    registered = registered_versions(book, built, store)
    question = f"tags.`{PIPELINE_TAG}` = '{book.pipeline}'"
    there = {each.tags[KEY_TAG]: each for each in logged_models(book.client, book.experiment_id, question)}
    look, scores, finals, run = reader(store), _scores(built, store), finals_of(built), book.find(book.pipeline)
    stored = {step.key: found for step in built.steps if not isinstance(step, Measurement) and (found := look(step.key)) is not None}
    ended = all(key in stored for _, key in finals)
    picture = f"get-artifact?path={ROOM}%2F{PICTURE}&run_uuid={run}"
    for step in built.steps:
        logged, now = there.get(f"{book.pipeline}/{step.key}"), stored.get(step.key)
        if logged is None or now is None:
            continue
        shown = picture if ended and any(step.key == key for _, key in finals) else ""
        told = {
            "mergeline.digest": f"sha256:{now.digest}",
            "mergeline.uri": now.place,
            LINEAGE_TAG: tag_of(now),
            NOTE_TAG: model_note(step, model, look, book.experiment_id, titles, registered.get(step.key), shown),
            **({SCORE_TAG: scores[step.key]} if step.key in scores else {}),
            **versions_tag(logged.tags, registered.get(step.key)),
        }
        if changed := {name: value for name, value in told.items() if logged.tags.get(name) != value}:
            book.client.set_logged_model_tags(logged.model_id, changed)
    if run is not None and finals and ended:
        _tell_end(book, run, Lineage({key: replace(each, score=_value(scores.get(key))) for key, each in stored.items()}), finals)


def versions_tag(there: Mapping[str, str], registered: tuple[str, int] | None) -> dict[str, str]:
    """What MLflow's page knows a model's registered version by. A server writes it itself, MLflow's client on a database does not."""
    if registered is None:
        return {}
    known = json.loads(there.get(VERSIONS_TAG, "[]"))
    if any((each["name"], str(each["version"])) == (registered[0], str(registered[1])) for each in known):
        return {}
    return {VERSIONS_TAG: json.dumps([*known, {"name": registered[0], "version": registered[1]}])}


def _scores(built: "Built", store: Store) -> dict[str, str]:
    """Key of a model -> the tag that tells its score: that of its newest evaluation, on the test split if there is one."""
    asked = [(m.model.key, store.by_key(m.evaluation.key)) for m in built.milestones if m.evaluation.kind in ASKING]
    records = [(key, record, record.content["details"].get("split")) for key, record in asked if record is not None]
    newest: dict[str, str] = {}
    for key, record, split in sorted(records, key=lambda each: (each[2] == "test", each[1].content["finished"])):
        newest[key] = json.dumps({"value": score_of(record), "split": split, "finished": record.content["finished"]}, sort_keys=True)
    return newest


def _value(tag: str | None) -> float | None:
    return None if tag is None else json.loads(tag)["value"]


def finals_of(built: "Built") -> list[tuple[str, str]]:
    """(arm and seed, key) of the model that each stream of a run ends with."""
    ends = {stream_name(m.arm or built.config.recipe, m.seed): m.model.key for m in built.milestones if m.role is Role.AFTER}
    return list(ends.items())


def _tell_end(book: Book, run: str, lineage: Lineage, finals: list[tuple[str, str]]) -> None:
    """On the pipeline's run: what it ends with, and the picture of where that comes from, drawn where it would show something new."""
    from pipeline.report.lineage_picture import LAYOUT, draw_models

    ends = [key for _, key in finals]
    keys = list(dict.fromkeys(key for end in ends for key in reached(lineage, end, down=False)))
    if len(keys) > BOXES:
        ends = ends[-1:]
        keys = reached(lineage, ends[0], down=False)
    shown: list[Any] = [LAYOUT, *(repr(lineage.models[key]) for key in sorted(keys))]
    told = {FINAL_TAG: json.dumps(finals), PICTURE_TAG: hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]}
    there = book.client.get_run(run).data.tags
    if there.get(PICTURE_TAG) != told[PICTURE_TAG]:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / PICTURE
            path.write_bytes(draw_models(lineage, keys, set(ends)))
            book.client.log_artifact(run, str(path), ROOM)
    if any(there.get(name) != value for name, value in told.items()):
        book.describe(run, {}, told)
