"""Tune's view of the ledger: a searcher that hands out its trials and hears of their ends, and what ends the run at the first failure."""

import json
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from foundation.errors import ResourceError
from pipeline.search.points import described
from pipeline.search.run import Ledger
from pipeline.search.spec import Point

RESTARTS = 3
"""How often a trial is begun again whose actor died."""


class Feed(Searcher):
    """The points of a ledger, one by one. What goes wrong here is kept for the driver, which raises it when Tune has stopped."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(metric="value", mode="max")
        self.ledger = ledger
        self.given: dict[str, tuple[int, Point]] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial, as the config of an actor."""
        try:
            given = None if self.ledger.failure else self.ledger.next()
        except Exception as error:
            self.ledger.failure = error
            given = None
        if given is None:
            return Searcher.FINISHED
        self.given[trial_id] = given
        return sent(given)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write a trial down that ended; after a failure, what still ends was cut off and is not."""
        if self.ledger.failure is not None:
            return
        try:
            if error:
                raise lost(self.given[trial_id])
            if result and "failure" in result:
                raise result["failure"]
            if result:
                self.ledger.add(result.pop("ended"))  # Tune keeps every result, and this one holds every sample's score
        except Exception as raised:  # raised in the driver, when Tune has stopped the other trials
            self.ledger.failure = raised

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger keeps its own records."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its records."""


class StopAtFailure(Stopper):
    """Stops all trials as soon as one has failed."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial for itself."""
        return False

    def stop_all(self) -> bool:
        """Whether one has failed."""
        return self.ledger.failure is not None


class LastWords(Callback):
    """Adds to the error for a lost trial what its actor died of."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune has told the searcher of it just before."""
        words = Path(trial.error_file).read_text().strip().splitlines() if trial.error_file else []
        if words and isinstance(self.feed.ledger.failure, ResourceError):
            self.feed.ledger.failure = lost(self.feed.given[trial.trial_id], words[-1].strip())


def sent(given: tuple[int, Point]) -> dict[str, Any]:
    """A trial as the config of an actor."""
    return {"number": given[0], "point": json.dumps(given[1])}


def lost(given: tuple[int, Point], words: str = "") -> ResourceError:
    """The error for a trial whose actors died."""
    number, point = given
    told = f"; the last one said: {words}" if words else ""
    return ResourceError(
        f"search: the worker of trial {number} ({described(point)}) died {RESTARTS + 1} times; free memory, or use fewer workers{told}"
    )
