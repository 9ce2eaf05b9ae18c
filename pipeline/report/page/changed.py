"""The answers that changed, as far as they fit the page: of each line and task the first ones of every kind of change, with their images.

The answers of all models are looked through, but questions and images are read only of the samples that are shown. Samples are taken in
turns over the tasks until the room is used up, so no task crowds out another.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from evaluators.scores import SAMPLES_FILE, Sample, read_samples
from foundation.errors import InputError
from pipeline.report.answers import RIGHT_FROM, Answers, Line, Question, Reply, asked, check_same, evaluated, tasks_of
from pipeline.report.answers_images import picture_of
from pipeline.report.answers_page import as_script, data, question_data
from pipeline.results import Row, read_rows
from pipeline.store import Store
from tasks.task import Example, Split, Task

MOST = 12
"""Samples that are shown of each line and task."""

SHELL_ROOM, IMAGE_ROOM = 80_000, 60
"""Bytes of the page that the browser takes without any sample, and that an image takes beside its own."""

Place = tuple[str, str]  # task, key


@dataclass(frozen=True)
class Changed:
    """What is shown. `counts`: for each line, task -> how many samples are shown, how many changed, how many were asked."""

    answers: Answers
    counts: tuple[Mapping[str, tuple[int, int, int]], ...]


@dataclass(frozen=True)
class Told:
    """One line: its models' replies to the samples that may be shown, and for each task how many samples changed, of how many."""

    line: Line
    replies: Mapping[Place, tuple[Reply, ...]]
    counts: Mapping[str, tuple[int, int]]


@dataclass
class Source:
    """One run: its lines, the samples that may be shown as they were put, and its tasks."""

    lines: list[Told]
    samples: dict[Place, tuple[int, Sample]]  # with the sample's number within its task
    tasks: Mapping[str, Task]
    split: Split
    opened: dict[str, Sequence[Example]] = field(default_factory=dict)

    def example(self, place: Place) -> Example | None:
        """The example that a sample was asked from; None of a task whose data are not ours. InputError where the task no longer has it."""
        task = place[0]
        if task not in self.tasks:
            return None
        if task not in self.opened:
            last = max(number for (name, _), (number, _) in self.samples.items() if name == task)
            self.opened[task] = self.tasks[task].examples(self.split, last + 1)
        number, sample = self.samples[place]
        examples = self.opened[task]
        example = examples[number] if number < len(examples) else None
        if example is None or (example.key, example.question) != (sample.key, sample.question):
            raise InputError(f"task {task!r} no longer has the example {sample.key!r}; put its data back as it was")
        return example


def source_of(run_directory: Path, named: bool, most: int) -> Source:
    """The answers of a run, `most` of each line and task. `named`: arms are called after the run too.

    InputError where nothing is evaluated, answers are gone, or two arms ask different things under one key.
    """
    store = Store(run_directory.parent.parent / "store")
    lines: list[Told] = []
    samples: dict[Place, tuple[int, Sample]] = {}
    split = Split.TEST
    for _, group in groupby(read_rows(run_directory), key=lambda row: (row.arm, row.seed)):
        done = evaluated(list(group), store)
        if not done:
            continue
        split = Split(done[0][1].content["details"]["split"])
        line = line_of([row for row, _ in done], run_directory.name if named else "")
        files = [record.directory / SAMPLES_FILE for _, record in done]
        lines.append(told_of(line, files, most))
        for place, found in numbered(read_samples(files[0])):
            if place in lines[-1].replies:
                check_same(samples.setdefault(place, found)[1], found[1])
    if not lines:
        raise InputError(f"run {run_directory.name} has no evaluated model yet")
    return Source(lines, samples, tasks_of(run_directory), split)


def line_of(rows: Sequence[Row], name: str) -> Line:
    """The models of one arm and seed."""
    first = rows[0]
    return Line(" ".join(filter(None, (name, first.arm))), first.seed, tuple(map(asked, rows)), first.held_out, first.stream)


def numbered(samples: Sequence[Sample]) -> Iterator[tuple[Place, tuple[int, Sample]]]:
    """Every sample with its number within its task."""
    counted: Counter[str] = Counter()
    for sample in samples:
        yield (sample.task, sample.key), (counted[sample.task], sample)
        counted[sample.task] += 1


def told_of(line: Line, files: Sequence[Path], most: int) -> Told:
    """What the models of a line, whose answers lie in `files`, replied to the samples that may be shown."""
    tables = [replies_in(path) for path in files]
    by_task: dict[str, list[Place]] = {task: [] for task in (*line.held_out, *line.stream)}
    for place in tables[0]:
        if place[0] in by_task and all(place in table for table in tables):
            by_task[place[0]].append(place)
    replies: dict[Place, tuple[Reply, ...]] = {}
    counts = {}
    for task, places in by_task.items():
        kept, changed = chosen({place: [table[place] for table in tables] for place in places}, most)
        replies |= {place: tuple(Reply(*table[place]) for table in tables) for place in kept}
        counts[task] = (changed, len(places))
    return Told(line, replies, counts)


def replies_in(path: Path) -> dict[Place, tuple[str, float]]:
    """Every sample of a file of answers -> response and score; the other columns are not read."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["task", "key", "response", "score"])
    except FileNotFoundError:
        raise InputError(f"{path} is gone, so what the model answered is not known; run the experiment again to ask it again") from None
    tasks, keys, responses, scores = (table[name].to_pylist() for name in ("task", "key", "response", "score"))
    return dict(zip(zip(tasks, keys, strict=True), zip(responses, scores, strict=True), strict=True))


def chosen(told: Mapping[Place, Sequence[tuple[str, float]]], most: int) -> tuple[list[Place], int]:
    """The first changed samples of a task, and how many changed. Kinds take turns: got wrong, got right, went to and fro, words alone."""
    kinds: dict[int, list[Place]] = {0: [], 1: [], 2: [], 3: []}
    for place, replies in told.items():
        if len({response for response, _ in replies}) > 1:
            kinds[kind_of([score >= RIGHT_FROM for _, score in replies])].append(place)
    turns = [place for round_ in zip_longest(*kinds.values()) for place in round_ if place is not None]
    return turns[:most], len(turns)


def kind_of(right: Sequence[bool]) -> int:
    """0: right at first and wrong at last; 1: the other way round; 2: the same at both ends but not between; 3: only the words changed."""
    if right[0] != right[-1]:
        return 0 if right[0] else 1
    return 2 if len(set(right)) > 1 else 3


def changed_answers(runs: Sequence[Path], room: int, most: int = MOST) -> Changed:
    """The changed answers of all runs, in at most `room` bytes of the page.

    Raises InputError where nothing is evaluated, a file of answers is gone, or a task no longer has a question.
    """
    sources = [source_of(run, len(runs) > 1, most) for run in runs]
    lines = [(source, told) for source in sources for told in source.lines]
    wanted: dict[tuple[int, Place], list[int]] = {}
    for number, (source, told) in enumerate(lines):
        for place in told.replies:
            wanted.setdefault((home_of(sources, source, place), place), []).append(number)
    title, models = ", ".join(run.name for run in runs), tuple(told.line for _, told in lines)
    room -= SHELL_ROOM + len(as_script(data(Answers(title, models, (), 0))).encode())
    questions = filled(sources, [told for _, told in lines], wanted, room)
    counts = []
    for number, (_, told) in enumerate(lines):
        shown = Counter(question.task for question in questions if number in question.replies)
        counts.append({task: (shown[task], changed, every) for task, (changed, every) in told.counts.items()})
    most_asked = max((every for each in counts for _, _, every in each.values()), default=0)
    return Changed(Answers(title, models, tuple(questions), most_asked), tuple(counts))


def home_of(sources: Sequence[Source], source: Source, place: Place) -> int:
    """The place of the first run that asks the same sample of the same task."""
    own = (source.tasks.get(place[0]), source.split, source.samples[place][1].question, source.samples[place][1].answer)
    for number, other in enumerate(sources):
        sample = other.samples.get(place)
        if sample and own == (other.tasks.get(place[0]), other.split, sample[1].question, sample[1].answer):
            return number
    raise AssertionError("a source holds its own samples")


def filled(sources: Sequence[Source], lines: Sequence[Told], wanted: Mapping[tuple[int, Place], list[int]], room: int) -> list[Question]:
    """As many of the `wanted` samples as fit, taken in turns over the tasks; in the order of tasks and samples."""
    by_task: dict[str, list[tuple[int, Place]]] = {}
    for home, place in wanted:
        by_task.setdefault(place[0], []).append((home, place))
    held: set[str] = set()
    fitting: dict[tuple[int, Place], Question] = {}
    for at in (each for round_ in zip_longest(*by_task.values()) for each in round_ if each is not None):
        question = question_of(sources[at[0]], at[1], {number: lines[number].replies[at[1]] for number in wanted[at]})
        new = {picture.name: picture for picture in question.pictures if picture.name not in held}
        room -= len(as_script(question_data(question)).encode()) + sum(len(each.url) + IMAGE_ROOM for each in new.values())
        if room < 0:
            break
        held |= new.keys()
        fitting[at] = question
    tasks = list(dict.fromkeys(task for told in lines for task in (*told.line.held_out, *told.line.stream)))
    return [fitting[at] for at in sorted(fitting, key=lambda at: (tasks.index(at[1][0]), at[0], sources[at[0]].samples[at[1]][0]))]


def question_of(source: Source, place: Place, replies: Mapping[int, tuple[Reply, ...]]) -> Question:
    """A sample as the page shows it."""
    (_, sample), example = source.samples[place], source.example(place)
    said = tuple((turn.role.value, turn.text) for turn in example.before) if example else ()
    pictures = tuple(map(picture_of, example.images)) if example else ()
    return Question(sample.task, sample.key, said, sample.question, sample.answer, pictures, replies, sample.prompt)


def browser_data(changed: Changed, arm: str) -> dict[str, Any]:
    """The data of the page of answers as a part of a report; the first line of `arm` is shown first."""
    counts = [{task: list(numbers) for task, numbers in each.items()} for each in changed.counts]
    first = next((place for place, line in enumerate(changed.answers.lines) if line.arm == arm), 0)
    return {**data(changed.answers), "inside": True, "counts": counts, "first": first}
