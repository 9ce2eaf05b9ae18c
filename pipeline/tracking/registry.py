"""Registered models: one for each experiment, with a version for every merged checkpoint, and two aliases.

A version's source is the checkpoint's place, `mergeline://<absolute path>`: never a copy, and a scheme of our own because a tracking server
refuses local paths. A version is known by step and digest, so it is made once however often and by whomever it is written; a step that was
made again with other bytes becomes a version of its own.

Aliases follow from the versions' tags alone, whatever the order in which runs were written:

    latest-merged   the last merged checkpoint of the newest finished run
    best            the highest score on validation data; not set where there is none, because nothing is ever chosen on test data
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.lineage import SHOWN, model_of
from pipeline.lineage_names import PLACE
from pipeline.recipes.milestone import Milestone
from pipeline.step import Step
from pipeline.steps import Merging
from pipeline.store import Record, Store
from pipeline.titles import step_titles, title_of
from pipeline.tracking.book import Book
from pipeline.tracking.versions import (
    BEST,
    ENDED_TAG,
    LATEST,
    LONGEST_TEXT,
    SCORES_TAG,
    Score,
    Tags,
    Version,
    best_of,
    described,
    found_versions,
    latest_of,
    scores_on_validation,
    text_digest,
)

if TYPE_CHECKING:
    from pipeline.config.experiment import Built

DESCRIBED_TAG = "mergeline.described"
LONGEST_NAME, LONGEST_SOURCE = 256, 500
"""Characters that MLflow's registry has room for."""


def register(book: Book, built: "Built", store: Store, model: Callable[[Step], str]) -> None:
    """Register every merged checkpoint that is stored, in order of stage, and set the aliases.

    `model`: a stored step -> the id of its logged model.
    """
    merged = merged_milestones(built)
    records = {each.model.key: record for each in merged if (record := store.by_key(each.model.key)) is not None}
    if not records:
        return
    name = registered_name(built)
    registry = _Registry(book, name)
    ended = ended_at(built, store)
    last = next((each.model.key for each in reversed(merged)), "") if ended else ""
    titles = step_titles(built.milestones)
    for milestone in merged:
        key = milestone.model.key
        if key in records:
            tags = version_tags(milestone, records[key], built, model(milestone.model))
            scores = [score for each in built.milestones if each.model.key == key for score in scores_on_validation(each, store)]
            about = _about(milestone, records[key], store, titles, book.experiment_id, tags["mergeline.model"])
            number = registry.version(tags, source_of(records[key]), about, book.find(f"{book.pipeline}/{key}"))
            registry.tell(number, scores, ended if key == last else 0)
    registry.finish(built.config.tracking.experiment or built.config.name)


def registered_versions(book: Book, built: "Built", store: Store) -> dict[str, tuple[str, int]]:
    """Step's key -> registered model and version of its checkpoint as it is now, for those that have one."""
    name, found = registered_name(built), {}
    for number, version in sorted(found_versions(book.client, name).items(), reverse=True):
        key = version.tags.get("mergeline.step", "")
        record = store.by_key(key) if key else None
        if record is not None and version.tags["mergeline.digest"] == f"sha256:{record.digest}":
            found[key] = (name, number)
    return found


def merged_milestones(built: "Built") -> list[Milestone]:
    """The places at which a merged checkpoint was asked, in order of stage; each checkpoint once."""
    found: dict[str, Milestone] = {}
    for milestone in sorted(built.milestones, key=lambda each: each.stage):
        if isinstance(milestone.model, Merging):
            found.setdefault(milestone.model.key, milestone)
    return list(found.values())


def registered_name(built: "Built") -> str:
    """What the registered model is called, in the characters that MLflow takes: no slash, colon or quote."""
    tracking = built.config.tracking
    wanted = tracking.registered_model or tracking.experiment or built.config.name
    whole = re.sub(r"[/:%\"'@\x00-\x1f]", "-", wanted).strip()[:LONGEST_NAME] or "mergeline"
    return re.sub(r"^\.(?=\.|$)", "-", whole)  # no name that as a file would be another one


def source_of(record: Record) -> str:
    """A checkpoint's place as a URI, or where MLflow has no room for it its digest."""
    place = f"{PLACE}{quote(str(record.checkpoint))}"
    return place if len(place) <= LONGEST_SOURCE else f"{PLACE}sha256/{record.digest}"


def ended_at(built: "Built", store: Store) -> float:
    """When the last step of a finished run was done; 0 where the run is not finished."""
    records = [store.by_key(step.key) for step in built.targets]
    return max((record.content["finished"] for record in records if record is not None), default=0) if all(records) else 0


def version_tags(milestone: Milestone, record: Record, built: "Built", model: str) -> dict[str, str]:
    """What a version is known by, and where it stands in its run."""
    return {
        "mergeline.step": record.key,
        "mergeline.digest": f"sha256:{record.digest}",
        "mergeline.uri": str(record.checkpoint),
        "mergeline.model": model,
        "mergeline.run": built.name,
        "mergeline.stage": str(milestone.stage),
        "mergeline.trained": milestone.task or "-",
        "mergeline.arm": milestone.arm or built.config.recipe,
        "mergeline.seed": str(milestone.seed),
    }


def _about(milestone: Milestone, record: Record, store: Store, titles: dict[str, str], experiment: str, model: str) -> str:
    """A version's description: how it was merged, and where its page is, which tells the whole way down to the base."""
    known = {key: found for key in record.content["inputs"] if (found := store.by_key(key)) is not None}
    told = model_of(record, known, None)
    lines = [f"{title_of(milestone.model, titles)}, {told.how}.", ""]
    lines += [f"- Lineage, data and scores: [model page]({model_page(experiment, model)})"]
    lines += [f"- Weights: `{record.checkpoint}` (SHA-256 over its files `{record.digest[:SHOWN]}…`); nothing is copied here"]
    return "\n".join(lines)[:LONGEST_TEXT]


def model_page(experiment: str, model: str) -> str:
    """The page of a logged model, from any other page of the same server, in the mode that has models."""
    return f"#/experiments/{experiment}/models/{model}?workflowType=machine_learning"


class _Registry:
    """One registered model with its versions, as they are there."""

    def __init__(self, book: Book, name: str) -> None:
        self.client, self.name = book.client, name
        self.registered = self._there()
        self.versions = found_versions(self.client, self.name)

    def _there(self) -> Any:
        """The registered model, made if it is not there: another run may be making it just now."""
        from mlflow.exceptions import MlflowException

        for take in (self.client.get_registered_model, self.client.create_registered_model, self.client.get_registered_model):
            try:
                return take(self.name)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"):
                    raise
        raise RuntimeError(f"the registered model {self.name} can neither be found nor made")

    def version(self, tags: Tags, source: str, about: str, run: str | None) -> int:
        """The number of the version of these bytes, made if it is not there."""
        number = self._number(tags)
        if number is None:
            of_model = tags["mergeline.model"] if run is not None else None  # without a run MLflow looks for the model in another database
            made = self.client.create_model_version(self.name, source, run_id=run, tags=dict(tags), description=about, model_id=of_model)
            self.versions = found_versions(self.client, self.name)  # another run may have been quicker with the same bytes
            number = self._number(tags)
            if number is None:
                raise RuntimeError(f"version {made.version} of {self.name} is not there after it was made")
            if number != int(made.version):
                self.client.delete_model_version(self.name, made.version)
                del self.versions[int(made.version)]
        return number

    def _number(self, tags: Tags) -> int | None:
        same = ("mergeline.step", "mergeline.digest")
        return next((number for number, each in self.versions.items() if all(each.tags.get(tag) == tags[tag] for tag in same)), None)

    def tell(self, number: int, scores: Sequence[Score], ended: float) -> None:
        """Add scores, and that a run ended with the version, to what is known of it."""
        version = self.versions[number]
        whole = {score.basis: score for score in [*version.scores, *scores]}
        told = {SCORES_TAG: json.dumps([vars(score) for _, score in sorted(whole.items())])} if whole else {}
        told |= {ENDED_TAG: repr(max(version.ended, ended))} if ended else {}
        for tag, value in told.items():
            if version.tags.get(tag) != value:
                self.client.set_model_version_tag(self.name, number, tag, value)
        self.versions[number] = Version(number, {**version.tags, **told})

    def finish(self, experiment: str) -> None:
        """Set the aliases, and say in the registered model's description what they mean."""
        best, why = best_of(list(self.versions.values()))
        for alias, version in ((LATEST, latest_of(list(self.versions.values()))), (BEST, best)):
            if version is not None and str(self.registered.aliases.get(alias)) != str(version.number):
                self.client.set_registered_model_alias(self.name, alias, version.number)
        text, there = described(self.name, experiment, why), self.registered.description or ""
        ours = not there or text_digest(there) in self.registered.tags.get(DESCRIBED_TAG, "").split()
        if there != text and ours:  # what a user wrote there stays
            told = f"{text_digest(there)} {text_digest(text)}"  # before the text, so that an interrupted one is known as ours too
            if self.registered.tags.get(DESCRIBED_TAG) != told:
                self.client.set_registered_model_tag(self.name, DESCRIBED_TAG, told)
            self.client.update_registered_model(self.name, text)
