"""The lineage of checkpoints from MLflow alone: on another machine, without the store. What a model's page knows is written as one tag."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foundation.errors import InputError, ResourceError
from pipeline.lineage import Lineage, Model, Parent, mean_score, model_of
from pipeline.store import Record, Store
from pipeline.tracking.backend import open_client, sqlite_file, tracking_uri

LINEAGE_TAG, STEP_TAG = "mergeline.lineage", "mergeline.step"
PAGE = 100
SAID = 120
"""Characters of a server's error that are told."""


def lineage_tag(record: Record, store: Store) -> str:
    """How a model was made and from what, as a tag's text."""
    known = {key: found for key in record.content["inputs"] if (found := store.by_key(key)) is not None}
    model = model_of(record, known, None)
    told: dict[str, Any] = {"how": model.how, "finished": model.finished, "commit": model.commit}
    for name, read in (("parents", model.parents), ("helpers", model.helpers)):
        told[name] = [[each.role, each.key] for each in read]
    return json.dumps(told, sort_keys=True)


def tracked_lineage(uri: str) -> Lineage:
    """The lineage of every checkpoint that the MLflow at `uri` knows. InputError where it knows none, ResourceError where it is silent."""
    database = sqlite_file(tracking_uri(uri, Path()))
    if database is not None and not database.exists():
        raise InputError(f"--tracking {uri}: there is no file {database}; name the database that the pipeline logged to")
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DatabaseError

    try:
        logged = list(_logged_models(open_client(uri)))
    except MlflowException as error:
        raise ResourceError(f"{uri} does not answer as an MLflow tracking server ({str(error)[:SAID]}…); check --tracking") from error
    except DatabaseError as error:
        raise InputError(f"--tracking {uri}: is no database of MLflow ({error.orig}); name the one that the pipeline logged to") from error
    steps = {each.model_id: each.tags[STEP_TAG] for each in logged}
    if not steps:
        raise InputError(f"{uri} knows no checkpoint of ours; name the tracking URI that the pipeline logged to")
    return Lineage({steps[each.model_id]: _model(each, steps) for each in logged})


def _logged_models(client: Any) -> Iterator[Any]:
    """Every model of ours, of every experiment."""
    for experiment in client.search_experiments():
        token = None
        while True:
            page = client.search_logged_models([experiment.experiment_id], max_results=PAGE, page_token=token)
            yield from (each for each in page if STEP_TAG in each.tags)
            token = page.token
            if not token:
                break


def _model(logged: Any, steps: Mapping[str, str]) -> Model:
    """A logged model as what a record would say of it; the score is the mean of its newest ones.

    One that was logged before there was the tag names its parents by their ids, and not their roles.
    """
    named = [["made from", steps[each]] for each in logged.tags.get("mergeline.parents", "").split(",") if each in steps]
    earlier = {
        "how": logged.tags["mergeline.kind"],
        "parents": named,
        "helpers": [],
        "finished": logged.creation_timestamp / 1000,
        "commit": "unknown",
    }
    told = json.loads(logged.tags[LINEAGE_TAG]) if LINEAGE_TAG in logged.tags else earlier
    newest: dict[str, float] = {}
    for metric in sorted(logged.metrics or (), key=lambda metric: metric.timestamp):
        if metric.key.startswith("acc/"):
            newest[metric.key.removeprefix("acc/")] = metric.value
    return Model(
        key=logged.tags[STEP_TAG],
        how=told["how"],
        parents=tuple(Parent(role, key) for role, key in told["parents"]),
        helpers=tuple(Parent(role, key) for role, key in told["helpers"]),
        digest=logged.tags["mergeline.digest"].removeprefix("sha256:"),
        place=logged.tags["mergeline.uri"],
        finished=told["finished"],
        commit=told["commit"],
        score=mean_score(newest) if newest else None,
    )
