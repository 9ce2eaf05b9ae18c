"""The trials of a search on Ray Tune: its `Tuner` runs the actors, and asks and tells the ledger through a searcher of our own.

Tune's own files lie in the search's scratch directory and go with the end of the run: what was tried is in `trials.jsonl`. Tune prints
nothing.
"""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.errors import ResourceError
from pipeline.graph.cluster import connected
from pipeline.objects.presence import presence
from pipeline.search.halving import halving
from pipeline.search.run import Ledger
from pipeline.search.setting import Setting

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints tables at verbosity 0, the old one nothing
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files for every trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # who interrupts the search interrupts it
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own state is not used
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "3600",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a suite's files stay what they are
}


def on_tune(ledger: Ledger, setting: Setting, workers: int, gpus: float, scratch: Path) -> None:
    """Carry out all trials that are left on so many actors. Raises the error of a trial, ResourceError where actors are lost for good."""
    with connected(), quiet():
        from ray import tune
        from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

        from pipeline.search.feeding import RESTARTS, Feed, LastWords, StopAtFailure

        storage, name = (scratch / "tune").resolve(), uuid.uuid4().hex[:12]
        feed = Feed(ledger)
        tuner = Tuner(
            tune.with_resources(bound_to(setting, storage / name), resources(setting.threads, gpus)),
            tune_config=TuneConfig(
                search_alg=feed,
                scheduler=halving(ledger.ended[number] for number in sorted(ledger.ended)) if setting.spec.halving else None,
                num_samples=-1,
                max_concurrent_trials=workers,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=RESTARTS),
                stop=StopAtFailure(ledger),
                callbacks=[LastWords(feed)],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            raise ledger.failure or error from error
        finally:
            shutil.rmtree(storage, ignore_errors=True)
        if ledger.failure is not None:
            raise ledger.failure
        if not ledger.complete:
            done, total = len(ledger.ended), ledger.chooser.total
            raise ResourceError(f"search: Ray Tune ended after {done} of {total} trials; start the search again to go on")


def bound_to(setting: Setting, storage: Path = Path()) -> Any:
    """The actor of one search, under a name of its own. `storage`: where Tune keeps its files.

    Tune starts actors by the name of their class, which it keeps for the whole job: of two searches at one time, as those of two seeds
    are, with one name between them, trials of the one would be given the models of the other.
    """
    from ray import tune

    from pipeline.search.trainable import TrialActor

    return tune.with_parameters(
        type(f"TrialActor_{uuid.uuid4().hex}", (TrialActor,), {}), setting=setting, inputs=presence(), storage=storage
    )


def resources(threads: int, gpus: float) -> dict[str, float]:
    """What a worker asks of Ray: never more processors than there are. ResourceError for GPUs that no machine has."""
    import ray

    there = ray.cluster_resources()
    if gpus > there.get("GPU", 0):
        raise ResourceError(f"search: each worker wants {gpus:g} GPUs and Ray has {there.get('GPU', 0):g}; set gpus to 0, or add a machine")
    return {"CPU": min(threads, max(1, there.get("CPU", 1)))} | ({"GPU": gpus} if gpus else {})


@contextmanager
def quiet() -> Iterator[None]:
    """Tune as `ENVIRONMENT` says, logging errors of its own only."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    loggers = {name: logging.getLogger(name).level for name in ("ray.tune", "ray.train")}
    os.environ.update(ENVIRONMENT)
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in loggers.items():
            logging.getLogger(name).setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
