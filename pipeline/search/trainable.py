"""Trials on Ray Tune: one actor per worker keeps sources and model from trial to trial, and hands every part's result to the driver.

What goes wrong in a trial comes back as a result, not as a failure of the actor: Tune tries failures again, and would go on without those
that stay. Only an actor that dies is a failure, and is replaced.
"""

import json
import pickle
import traceback
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from foundation.errors import MergelineError
from pipeline.objects.presence import Presence
from pipeline.search.setting import Setting
from pipeline.search.trials import Trials


class TrialActor(Trainable):
    """One worker. Its config is a trial's `number` and `point` (as JSON, so that Tune leaves the names of axes alone)."""

    def setup(self, config: dict[str, Any], setting: Setting | None = None, inputs: Presence | None = None, storage: Path = Path()) -> None:
        """Take the first trial; what is loaded is loaded in `step`, where errors are told.

        `inputs`: what is to be brought to this node, which then shares no disk with the driver. Tune would refuse that, and looks for a
        mark of its own in `storage`; nothing of a trial is kept there.
        """
        assert setting is not None
        self.inputs = inputs
        if inputs is not None:
            storage.mkdir(parents=True, exist_ok=True)
            (storage / ".validate_storage_marker").touch()
        self.trials = Trials(setting)
        self.begin(config)

    def begin(self, config: dict[str, Any]) -> None:
        """Take a trial."""
        self.running = self.trials.carry_out(config["number"], json.loads(config["point"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial, with what is loaded."""
        self.begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Ask one more part of the samples."""
        try:
            if self.inputs is not None:
                self.inputs.arrive()
                self.inputs = None
            ended = next(self.running)
        except Exception as error:
            return {"failure": carried(error), "value": 0.0, "quarters": 0, "done": True}
        quarters = self.trials.parts()[len(ended.course) - 1]
        return {"ended": ended, "value": ended.trial.value, "quarters": quarters, "done": not ended.trial.stopped}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing is kept: a trial that is lost is asked again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """There is nothing to go on from."""


def carried(error: Exception) -> Exception:
    """An error in a form that reaches the driver: with its traceback as a note if it is a bug, as text if it cannot be sent."""
    told = "".join(traceback.format_exception(error))
    if not isinstance(error, MergelineError):
        error.add_note(told)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(told)
    return error
