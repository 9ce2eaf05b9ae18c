"""The lineage of checkpoints from MLflow alone: on another machine, without the store. What a model's page knows is written as tags.

Here too: which checkpoint a name of MLflow's means, that of a logged model, of a run or of a registered model's version.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError, InputError, MergelineError, ResourceError
from pipeline.lineage import Data, Lineage, Model, Parent, mean_score, model_of
from pipeline.lineage_names import final_of
from pipeline.store import Record, Store
from pipeline.tracking.admission import check_readable
from pipeline.tracking.backend import open_client, reason_of, sqlite_file, tracking_uri, without_secrets
from pipeline.tracking.schema import check_tables

LINEAGE_TAG, STEP_TAG, SCORE_TAG, FINAL_TAG = "mergeline.lineage", "mergeline.step", "mergeline.score", "mergeline.final"
TOLD = ("how", "method", "weights", "seed", "finished", "commit", "release", "parents", "helpers", "data")
"""What of a model its lineage tag tells; the rest has tags of its own."""

PAGE = 100

MODEL = re.compile(r"(?:models:/)?m-[0-9a-f]{32}")
RUN = re.compile(r"[0-9a-f]{32}")
VERSION = re.compile(r"models:/(?P<name>[^/:@]+)(?:@(?P<alias>[^/:@]+)|/(?P<version>\d{1,9}))")


def lineage_tag(record: Record, store: Store) -> str:
    """How a model was made and from what, as a tag's text."""
    known = {key: found for key in record.content["inputs"] if (found := store.by_key(key)) is not None}
    return tag_of(model_of(record, known, None))


def tag_of(model: Model) -> str:
    """The same of a model that is read already."""
    told = asdict(model)
    return json.dumps({name: told[name] for name in TOLD}, sort_keys=True)


def tracked_lineage(uri: str) -> Lineage:
    """The lineage of every checkpoint that the MLflow at `uri` knows. InputError where it knows none, ResourceError where it is silent."""
    with answering(uri):
        logged = list(_logged_models(client_of(uri)))
    steps = {each.model_id: each.tags[STEP_TAG] for each in logged}
    if not steps:
        raise InputError(f"{without_secrets(uri)} knows no checkpoint of ours; name the tracking URI that the pipeline logged to")
    newest: dict[str, tuple[tuple[Any, ...], Model]] = {}
    for each in logged:  # runs that share a step have a model of it each
        try:
            model, rank = _model(each, steps)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{without_secrets(uri)}: the tags of the model {each.model_id} cannot be read ({type(error).__name__}: {error}); "
                "if somebody changed them there, delete the model in MLflow and have its run written again: python -m pipeline sync RUN"
            ) from error
        if each.tags[STEP_TAG] not in newest or newest[model.key][0] < rank:
            newest[model.key] = (rank, model)
    return Lineage({key: newest[key][1] for key in sorted(newest)})


def client_of(uri: str) -> Any:
    """A client of an MLflow that is there; InputError for a database file that is not, ConfigError or ResourceError for a bad server."""
    whole = tracking_uri(uri, Path(), "--tracking")
    database = sqlite_file(whole)
    if database is not None and not database.exists():
        raise InputError(f"--tracking {without_secrets(uri)}: there is no file {database}; name the database that the pipeline logged to")
    try:
        if database is not None:
            check_tables(database)
    except ConfigError as error:
        raise InputError(f"--tracking {without_secrets(uri)}: {error}") from error
    check_readable(whole)
    return open_client(whole)


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turns what MLflow raises into errors that say what to do."""
    from sqlalchemy.exc import DatabaseError

    shown = without_secrets(uri)
    try:
        yield
    except (MergelineError, KeyboardInterrupt):
        raise
    except DatabaseError as error:
        if "locked" in str(error.orig):
            raise ResourceError(f"{shown} is locked by another process; try again once that is done") from error
        raise InputError(
            f"--tracking {shown}: is no database of MLflow ({error.orig}); name the one that the pipeline logged to"
        ) from error
    except Exception as error:  # MLflow's client lets through what its libraries raise of an answer that they do not understand
        raise ResourceError(f"MLflow at {shown} cannot be read: {reason_of(error)}; check --tracking, and that it runs") from error


def _logged_models(client: Any) -> Iterator[Any]:
    """Every model of ours, of every experiment."""
    for experiment in client.search_experiments():
        yield from logged_models(client, experiment.experiment_id)


def logged_models(client: Any, experiment: str, question: str | None = None) -> Iterator[Any]:
    """The models of ours in one experiment."""
    token = None
    while True:
        page = client.search_logged_models([experiment], question, max_results=PAGE, page_token=token)
        yield from (each for each in page if STEP_TAG in each.tags)
        token = page.token
        if not token:
            return


def _model(logged: Any, steps: Mapping[str, str]) -> tuple[Model, tuple[Any, ...]]:
    """A logged model as what a record would say of it, and what to prefer it by: when it was made, then what it was asked.

    One that was logged before there was the tag names its parents by their ids, and not their roles.
    """
    tags = logged.tags
    parents = [["made from", steps[each]] for each in tags.get("mergeline.parents", "").split(",") if each in steps]
    earlier = {"how": tags["mergeline.kind"], "parents": parents, "finished": logged.creation_timestamp / 1000, "commit": "unknown"}
    told = json.loads(tags[LINEAGE_TAG]) if LINEAGE_TAG in tags else earlier
    score, rank = _score(logged)
    model = Model(
        key=tags[STEP_TAG],
        how=told["how"],
        parents=_parents(told["parents"]),
        helpers=_parents(told.get("helpers", [])),
        digest=tags["mergeline.digest"].removeprefix("sha256:"),
        place=tags["mergeline.uri"],
        finished=told["finished"],
        commit=told["commit"],
        score=score,
        data=tuple(Data(**each) for each in told.get("data", [])),
        method=told.get("method", tags["mergeline.kind"]),
        weights=tuple((name, weight) for name, weight in told.get("weights", [])),
        seed=told.get("seed"),
        release=told.get("release", "unknown"),
    )
    return model, (model.finished, *rank)


def _parents(told: list[Any]) -> tuple[Parent, ...]:
    """Parents as the tag has them; as pairs in those that were written earlier."""
    return tuple(Parent(**each) if isinstance(each, dict) else Parent(*each) for each in told)


def _score(logged: Any) -> tuple[float | None, tuple[Any, ...]]:
    """The score that was written beside the model, else the mean of its newest metrics; and what to prefer it by."""
    if SCORE_TAG in logged.tags:
        told = json.loads(logged.tags[SCORE_TAG])
        return told["value"], (2, told["split"] == "test", told["finished"])
    newest: dict[str, float] = {}
    for metric in sorted(logged.metrics or (), key=lambda metric: metric.timestamp):
        if metric.key.startswith("acc/"):
            newest[metric.key.removeprefix("acc/")] = metric.value
    return (mean_score(newest), (1, False, 0)) if newest else (None, (0, False, 0))


def asked_of(uri: str, lineage: Lineage, told: Callable[[str], None] = lambda line: None) -> Callable[[str], str | None]:
    """Finds a model by a name of MLflow's: its key, or None for what is no such name. `told` takes what is worth saying about it."""

    def asked(text: str) -> str | None:
        client = client_of(uri)
        with answering(uri):
            key, digest = step_of(client, text)
        if key is None:
            return None
        if key not in lineage.models:
            raise InputError(
                f"{text} is the model of {key}, which is not known here; ask MLflow itself with --tracking {without_secrets(uri)}"
            )
        now = lineage.models[key].digest
        if digest and digest != now:
            told(f"{text} had sha256:{digest}; its step was made again since, with other bytes: sha256:{now}")
        return key

    return asked


def is_of_mlflow(text: str) -> bool:
    """Whether a text has the form of what MLflow gives names to: a logged model, a run, a registered model's version."""
    return any(form.fullmatch(text) for form in (MODEL, VERSION, RUN))


def step_of(client: Any, text: str) -> tuple[str | None, str]:
    """(key, digest) of the step whose checkpoint a name of MLflow's means; the digest is empty where the name does not stand for bytes."""
    if MODEL.fullmatch(text):
        model = text.removeprefix("models:/")
        return _tagged(_there(text, lambda: client.get_logged_model(model)).tags, text)
    if match := VERSION.fullmatch(text):
        return _tagged(_version(client, text, **match.groupdict()).tags, text)
    if RUN.fullmatch(text):
        return _of_run(client, _there(text, lambda: client.get_run(text))), ""
    if "'" in text or "/" in text:
        return None, ""
    question = f"attributes.run_name = '{text}' and tags.`mergeline.kind` = 'pipeline'"
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, question, order_by=["attributes.start_time DESC"], max_results=1)
    return (_of_run(client, runs[0]) if runs else None), ""


def _tagged(tags: Mapping[str, str], text: str) -> tuple[str, str]:
    if STEP_TAG not in tags:
        raise InputError(f"{text} was not written by a pipeline of ours: it has no tag {STEP_TAG}")
    return tags[STEP_TAG], tags.get("mergeline.digest", "").removeprefix("sha256:")


def _there(text: str, get: Callable[[], Any]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InputError(
                f"{text}: {str(error).splitlines()[0].removeprefix(f'{error.error_code}: ').rstrip('.')}; is it of this MLflow?"
            ) from error
        raise


def _version(client: Any, text: str, name: str, alias: str | None, version: str | None) -> Any:
    registered = _there(text, lambda: client.get_registered_model(name))
    if alias is None:
        return _there(text, lambda: client.get_model_version(name, version))
    if alias not in registered.aliases:
        known = ", ".join(f"{each} (version {number})" for each, number in sorted(registered.aliases.items()))
        raise InputError(f"{text}: {name} has no alias {alias!r}; it has {known or 'none'}. The description on its page says why")
    return _there(text, lambda: client.get_model_version_by_alias(name, alias))


def _of_run(client: Any, run: Any) -> str:
    """The step whose checkpoint a run means: what it made or asked; of a whole pipeline, what it ends with."""
    tags, name = run.data.tags, run.info.run_name
    outputs = run.outputs.model_outputs if run.outputs else []
    made = [tags["mergeline.model_id"]] if "mergeline.model_id" in tags else [each.model_id for each in outputs]
    if made:
        return _tagged(_there(f"{name}, the run of {made[0]}", lambda: client.get_logged_model(made[0])).tags, name)[0]
    if tags.get("mergeline.kind") != "pipeline":
        raise InputError(f"the run {name!r} ({tags.get('mergeline.kind', 'not of ours')}) made no model and asked none; name one that did")
    if FINAL_TAG in tags:
        return final_of({name: [(stream, key) for stream, key in json.loads(tags[FINAL_TAG])]}, name)
    question = f"tags.`mergeline.pipeline` = '{tags['mergeline.pipeline']}' and params.role = 'after'"
    ends = list(logged_models(client, run.info.experiment_id, question))
    last = max((int(each.params["stage"]) for each in ends), default=0)
    return final_of({name: [(each.name, each.tags[STEP_TAG]) for each in ends if int(each.params["stage"]) == last]}, name)
