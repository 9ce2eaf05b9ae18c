"""Ask a checkpoint a suite of tasks: every sample's answer in `samples.parquet`, every task's score in `scores.json`.

What is asked is planned once, in parts; a crew of workers, or this process alone, asks the parts, each worker with the model loaded once.
Every model is asked the same samples in the same order, so scores of two models can be paired sample by sample. Evaluating again gives the
same bytes (on the same kind of machine), however many workers there are.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from evaluators.ask import is_macro
from evaluators.fit import check_askable
from evaluators.harness.run import HarnessAnswers, ask_harness
from evaluators.parts import Alone, Answered, Crew, Desk, Order, Part, ask_part, forget_parts, identity_of, keep_part, kept_part, parts_of
from evaluators.questions import Sheet, sheets_of
from evaluators.scores import SAMPLES_FILE, SCORES_FILE, Sample, TaskScore, scores_of, write_samples, write_scores
from evaluators.suite import Suite
from foundation.files import write_json_atomic

Progress = Callable[[str, int, int], None]

VERSIONS_FILE = "harnesses.json"
"""Which versions of other harnesses, and of what they run on, their scores are of."""


def evaluate(
    checkpoint: Path,
    suite: Suite,
    output: Path,
    batch_size: int = 100,
    threads: int = 1,
    on_progress: Progress | None = None,
    *,
    scratch: Path | None = None,
    crew: Crew | None = None,
) -> dict[str, TaskScore]:
    """Task name -> score of the model in `checkpoint`, in the order of `suite.names`; both files are written to `output`.

    A task's further measures and groups follow it as NAME/measure and NAME/group. `threads`: CPU threads; part of what makes the bits, so
    it is fixed rather than found. `crew`: who asks the parts (None: this process). `scratch`: where finished parts wait, so that an
    evaluation that was killed goes on from them; they are removed in the end. `on_progress(task, done, total)` is called for each of our
    tasks at the start, then for what has been answered, in samples. The scores are written last: where `scores.json` stands, the evaluation
    is complete. Raises InputError for a checkpoint or data that cannot be used; what can be told without the model, before it is loaded.
    """
    checkpoint = checkpoint.absolute()
    processor = check_askable(checkpoint, suite)
    sheets = sheets_of(processor, suite, batch_size)
    order = Order(checkpoint, suite, threads, identity_of(checkpoint, sheets, threads))
    with tempfile.TemporaryDirectory() as temporary:
        theirs = harness_answers(checkpoint, suite, (scratch or Path(temporary)) / "harness", on_progress, crew)
    scores = dict(theirs.scores)
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    meter = Meter(sheets, on_progress)
    desk = Desk(order, processor, {place: sheet.examples for place, sheet in enumerate(sheets)})
    rows = asked(order, sheets, meter, scratch, partial(answers_of, desk, meter, crew))
    for sheet, samples in zip(sheets, rows, strict=True):
        scores |= scores_of(sheet.task.name, samples, is_macro(sheet.task))
    found = in_order(suite, scores)
    output.mkdir(parents=True, exist_ok=True)
    write_samples([*(sample for samples in rows for sample in samples), *theirs.samples], output / SAMPLES_FILE)
    if suite.harness:
        write_json_atomic(output / VERSIONS_FILE, theirs.versions)
    write_scores(found, output / SCORES_FILE)
    if scratch is not None:
        forget_parts(scratch)
    return found


def asked(
    order: Order, sheets: Sequence[Sheet], meter: "Meter", scratch: Path | None, ask: Callable[[Sequence[Part]], Iterator[Answered]]
) -> list[list[Sample]]:
    """Every sheet's samples in the order of its rows: those of parts that `scratch` holds, all others asked now and put there."""
    parts = [part for place, sheet in enumerate(sheets) for part in parts_of(place, sheet)]
    rows: list[list[Sample | None]] = [[None] * len(sheet.examples) for sheet in sheets]

    def take(answered: Answered) -> None:
        for row, sample in zip(answered.part.rows, answered.samples, strict=True):
            rows[answered.part.task][row] = sample

    missing = []
    for part in parts:
        if scratch is None or (kept := kept_part(order, part, scratch)) is None:
            missing.append(part)
        else:
            take(kept)
            meter.add(part, len(part.rows))
    meter.tell_all()
    for answered in ask(missing):
        if scratch is not None:
            keep_part(order, answered, scratch)
        take(answered)
    return [[sample for sample in samples if sample is not None] for samples in rows]


def answers_of(desk: Desk, meter: "Meter", crew: Crew | None, parts: Sequence[Part]) -> Iterator[Answered]:
    """The parts as they are answered, by the crew or at the desk here."""
    if crew is None:
        yield from Alone().map(partial(desk.ask, on_batch=meter.told), parts)
        return
    for answered in crew.map(partial(ask_part, desk.order), parts) if parts else ():
        meter.told(answered.part, len(answered.samples))
        yield answered


def harness_answers(checkpoint: Path, suite: Suite, work: Path, on_progress: Progress | None, crew: Crew | None) -> HarnessAnswers:
    """Scores and samples of the tasks that other harnesses ask: here, or by one of the crew, which has the GPU.

    They come before ours, so that what they refuse is told at once, and while no model of ours takes memory.
    """
    if not suite.harness:
        return HarnessAnswers()

    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if crew is None:
        return ask_harness(checkpoint, suite.harness, suite.samples, work, on_progress)
    (found,) = crew.map(partial(ask_harness, checkpoint, suite.harness, suite.samples), [work])
    return found


def in_order(suite: Suite, scores: Mapping[str, TaskScore]) -> dict[str, TaskScore]:
    """The scores in the order of the suite's names, each followed by those below it."""
    return {key: scores[key] for name in suite.names for key in scores if key == name or key.startswith(f"{name}/")}


class Meter:
    """Counts each task's answered samples and tells of them."""

    def __init__(self, sheets: Sequence[Sheet], on_progress: Progress | None) -> None:
        self.names = [sheet.task.name for sheet in sheets]
        self.totals = [len(sheet.examples) for sheet in sheets]
        self.done = [0] * len(sheets)
        self.on_progress = on_progress

    def add(self, part: Part, count: int) -> None:
        """So many samples of the part's task are answered."""
        self.done[part.task] += count

    def told(self, part: Part, count: int) -> None:
        """The same, told at once."""
        self.add(part, count)
        self.tell(part.task)

    def tell(self, place: int) -> None:
        """How far one task is."""
        if self.on_progress is not None:
            self.on_progress(self.names[place], self.done[place], self.totals[place])

    def tell_all(self) -> None:
        """How far every task is."""
        for place in range(len(self.names)):
            self.tell(place)
