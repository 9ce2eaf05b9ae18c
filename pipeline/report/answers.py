"""What every model of a run answered to the same questions: read from the run's records, with the questions' images from their tasks.

`collect` gathers, `write_answers` leaves three readings of it in a directory: a page to browse (`answers_page.py`), JSON, and Markdown.
A reply is right from a score of one half on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

from evaluators.scores import SAMPLES_FILE, Sample, read_samples
from foundation.errors import InputError
from pipeline.recipes.milestone import Role
from pipeline.report.answers_images import Picture, picture_of
from pipeline.results import Row, read_rows
from pipeline.store import Record, Store
from tasks.task import Example, Split, Task

RIGHT_FROM = 0.5
"""The score from which a reply counts as right."""


class Outcome(StrEnum):
    """What became of a question from the first model of a line to its last."""

    STAYED_RIGHT = "stayed right"
    GOT_RIGHT = "got right"
    GOT_WRONG = "got wrong"
    STAYED_WRONG = "stayed wrong"


@dataclass(frozen=True)
class Reply:
    """What one model answered, and how right that is, from 0 to 1."""

    response: str
    score: float

    @property
    def right(self) -> bool:
        """Whether it counts as right."""
        return self.score >= RIGHT_FROM


@dataclass(frozen=True)
class Asked:
    """One model of a line: its stage (0 is the base), what that stage learned, and which model of the stage it is, in words."""

    stage: int
    task: str | None
    model: str

    @property
    def title(self) -> str:
        """In a few words: "base", "2 count, after merge"."""
        return self.model if self.task is None else f"{self.stage} {self.task}, {self.model}"


@dataclass(frozen=True)
class Line:
    """The models of one arm and seed, in order; `held_out` and `stream` are the tasks they are asked."""

    arm: str
    seed: int
    models: tuple[Asked, ...]
    held_out: tuple[str, ...]
    stream: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One sample, and the replies of every line that asks it: place of the line -> a reply per model."""

    task: str
    key: str
    before: tuple[tuple[str, str], ...]  # who said what before the question
    question: str
    answer: str
    pictures: tuple[Picture, ...]
    replies: Mapping[int, tuple[Reply, ...]]
    prompt: str = ""  # all the text that the models were given

    def outcome(self, line: int) -> Outcome:
        """What became of it in that line."""
        first, last = self.replies[line][0].right, self.replies[line][-1].right
        if first:
            return Outcome.STAYED_RIGHT if last else Outcome.GOT_WRONG
        return Outcome.GOT_RIGHT if last else Outcome.STAYED_WRONG

    def changed(self, line: int) -> bool:
        """Whether the replies of that line are not all the same."""
        return len({reply.response for reply in self.replies[line]}) > 1


@dataclass(frozen=True)
class Answers:
    """A run's questions and answers. `asked`: how many samples of each task the models were asked; the questions are the first of them."""

    title: str
    lines: tuple[Line, ...]
    questions: tuple[Question, ...]
    asked: int

    @property
    def shown(self) -> int:
        """The most questions of one task."""
        return max(sum(1 for _ in group) for _, group in groupby(self.questions, key=lambda question: question.task))

    @property
    def pictures(self) -> dict[str, Picture]:
        """Every picture once, by name."""
        return {picture.name: picture for question in self.questions for picture in question.pictures}


def collect(run_directory: Path, samples: int | None = None) -> Answers:
    """The first `samples` questions of each task (None: all) and what the run's models answered, as far as it has come.

    Raises InputError where nothing is evaluated yet, a file of answers is gone, or a task no longer has the question.
    """
    store = Store(run_directory.parent.parent / "store")
    lines: list[Line] = []
    replies: dict[tuple[str, str], dict[int, tuple[Reply, ...]]] = {}
    first: dict[tuple[str, str], Sample] = {}
    evaluation: Record | None = None
    for place, (_, group) in enumerate(groupby(read_rows(run_directory), key=lambda row: (row.arm, row.seed))):
        done = evaluated(list(group), store)
        if not done:
            raise InputError(
                f"run {run_directory.name} has no evaluated model of every line yet; "
                f"finish it: python -m pipeline run {run_directory / 'experiment.yaml'}"
            )
        evaluation = evaluation or done[0][1]
        rows = [row for row, _ in done]
        lines.append(Line(rows[0].arm, rows[0].seed, tuple(map(asked, rows)), rows[0].held_out, rows[0].stream))
        for sample, line in replies_of([record for _, record in done], samples):
            replies.setdefault((sample.task, sample.key), {})[place] = line
            check_same(first.setdefault((sample.task, sample.key), sample), sample)
    assert evaluation is not None  # a run has rows
    questions = questions_of(first, replies, tasks_of(run_directory), evaluation)
    return Answers(run_directory.name, tuple(lines), questions, evaluation.content["details"]["samples"])


def evaluated(rows: Sequence[Row], store: Store) -> list[tuple[Row, Record]]:
    """The models that are evaluated, up to the first that is not."""
    found = []
    for row in rows:
        record = store.by_key(row.evaluation)
        if record is None:
            break
        found.append((row, record))
    return found


def asked(row: Row) -> Asked:
    """The row's model in words."""
    words = {Role.BASE: "base", Role.WITHIN: f"step {row.step}", Role.BEFORE: "before merge"}
    return Asked(row.stage, row.task, words.get(Role(row.role), "after merge" if row.weights else "tuned"))


def replies_of(records: Sequence[Record], samples: int | None) -> list[tuple[Sample, tuple[Reply, ...]]]:
    """The first `samples` samples of each task (as the first record has them), and each record's reply."""
    tables = []
    for record in records:
        path = record.directory / SAMPLES_FILE
        if not path.exists():
            raise InputError(f"{path} is gone, so what the model answered is not known; run the experiment again to ask it again")
        tables.append(read_samples(path))
    kept = [sample for _, group in groupby(tables[0], key=lambda sample: sample.task) for sample in list(group)[:samples]]
    by_key = [{(sample.task, sample.key): sample for sample in table} for table in tables]
    return [
        (sample, tuple(Reply(table[sample.task, sample.key].response, table[sample.task, sample.key].score) for table in by_key))
        for sample in kept
    ]


def check_same(first: Sample, other: Sample) -> None:
    """InputError where two lines ask different things under one key."""
    if (first.question, first.answer) != (other.question, other.answer):
        raise InputError(
            f"task {first.task!r} asks {first.question!r} in one arm and {other.question!r} in another, both under the key {first.key!r}; "
            "make a report of each run by itself"
        )


def questions_of(
    samples: Mapping[tuple[str, str], Sample],
    replies: Mapping[tuple[str, str], Mapping[int, tuple[Reply, ...]]],
    tasks: Mapping[str, Task],
    evaluation: Record,
) -> tuple[Question, ...]:
    """The samples with their pictures, in their order, task by task."""
    found = []
    split, most = Split(evaluation.content["details"]["split"]), evaluation.content["details"]["samples"]
    for name in dict.fromkeys(task for task, _ in samples):
        own = [sample for (task, _), sample in samples.items() if task == name]
        examples = {example.key: example for example in tasks[name].examples(split, min(most, len(own)))} if name in tasks else {}
        for sample in own:
            example = example_of(sample, examples)
            said = tuple((turn.role.value, turn.text) for turn in example.before)
            pictures = tuple(map(picture_of, example.images))
            found.append(
                Question(name, sample.key, said, sample.question, sample.answer, pictures, replies[name, sample.key], sample.prompt)
            )
    return tuple(found)


def example_of(sample: Sample, examples: Mapping[str, Example]) -> Example:
    """The example that `sample` was asked from; InputError where the task no longer has it."""
    example = examples.get(sample.key)
    if example is None or (example.question, example.answer) != (sample.question, sample.answer):
        raise InputError(
            f"task {sample.task!r} no longer has the example {sample.key!r} with the question {sample.question!r}, so its image "
            "is not known; put the task's data back as it was, or run the experiment again"
        )
    return example


def tasks_of(run_directory: Path) -> dict[str, Task]:
    """Name -> task, of all tasks that the run's experiment asks."""
    from pipeline.config.experiment import EXPERIMENT_FILE, read_config

    _, config = read_config(run_directory / EXPERIMENT_FILE)
    streams = [stream for _, _, stream in config.streams()] if hasattr(config, "streams") else [config]
    return {task.name: task for stream in streams for task in stream.suite().tasks}


def as_json(answers: Answers) -> dict[str, Any]:
    """All of it as plain values; pictures by the names of their files."""
    return {
        "title": answers.title,
        "asked": answers.asked,
        "lines": [
            {"arm": line.arm, "seed": line.seed, "models": [model.title for model in line.models], "stages": [m.stage for m in line.models]}
            for line in answers.lines
        ],
        "questions": [
            {
                "task": question.task,
                "key": question.key,
                "before": [list(turn) for turn in question.before],
                "question": question.question,
                "answer": question.answer,
                "images": [f"images/{picture.name}" for picture in question.pictures],
                "lines": [
                    {
                        "line": line,
                        "outcome": question.outcome(line).value,
                        "changed": question.changed(line),
                        "replies": [{"response": reply.response, "score": reply.score} for reply in replies],
                    }
                    for line, replies in sorted(question.replies.items())
                ],
            }
            for question in answers.questions
        ],
    }
