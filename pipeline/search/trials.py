"""Carrying out trials in one process: sources and model are loaded once, then every point is merged into the model and asked.

Nothing is written. The model is loaded from the source whose config, tokenizer and processor the written merge would carry, so it is asked
as that checkpoint would be.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundation.errors import MergelineError
from mergers.merger import Merger
from pipeline.search.answers import answers_of
from pipeline.search.checks import open_sources
from pipeline.search.goal import shares_of, stderr_of, value_of
from pipeline.search.points import described, merger_at
from pipeline.search.records import Ended
from pipeline.search.setting import Setting
from pipeline.search.spec import Point, Trial


class Trials:
    """The trials of one worker. Loads nothing before the first."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.shares = shares_of(setting.spec, setting.suite, setting.new)
        self.live: Any = None
        self.questions: Any = None
        self.place: Path | None = None

    def carry_out(self, number: int, point: Point) -> Iterator[Ended]:
        """A trial as it stands after each part of the samples: a quarter, half and all of them with halving, else all at once.

        What goes wrong carries the point: an error for the user in its text, a bug as a note.
        """
        from evaluators.parts import torch_threads

        course: tuple[float, ...] = ()
        merger = merger_at(self.setting.spec, point, self.setting.names)
        try:
            with torch_threads(self.setting.threads):
                self.load(self.setting.place_of(merger))
                started = time.monotonic()
                interview = self.merged(merger)
            for quarters in self.parts():
                with torch_threads(self.setting.threads):
                    scores = interview.ask(quarters)
                value = value_of(scores, self.shares)
                course = (*course, value)
                samples = max(score.samples for score in scores.values())
                seconds = round(time.monotonic() - started, 3)
                error = stderr_of(scores, self.shares)
                trial = Trial(number, dict(point), value, scores, samples, seconds, quarters < self.parts()[-1], error)
                yield Ended(trial, course, answers_of(interview.scored))
        except MergelineError as error:
            raise type(error)(f"search: trial {number} ({described(point)}): {error}") from error
        except Exception as error:
            error.add_note(f"search: in trial {number} ({described(point)})")
            raise

    def parts(self) -> tuple[int, ...]:
        """How many quarters of the samples are asked by the end of each part."""
        from evaluators.live import PARTS

        return PARTS if self.setting.spec.halving else PARTS[-1:]

    def merged(self, merger: Merger) -> Any:
        """The loaded model merged by `merger`, with nothing asked yet."""
        from evaluators.live import Interview

        answerer = self.questions.answerer
        self.live.merge_into(answerer.model.state_dict(), merger, threads=self.setting.threads, cast=True)
        return Interview(self.questions)

    def load(self, place: Path) -> None:
        """The model and questions as of `place`, and the sources: what is loaded already stays."""
        from evaluators.generate import load_answerer
        from evaluators.live import Questions
        from mergers.live import LiveMerge

        if self.live is None:
            sources, base = open_sources(dict(self.setting.sources), self.setting.base, dict(self.setting.statistics))
            self.live = LiveMerge(sources, base, threads=self.setting.threads)
        if self.place != place:
            self.questions = None  # before the next model is loaded, so that there is never more than one
            self.questions = Questions(load_answerer(place), self.setting.suite, self.setting.batch)
            self.place = place
