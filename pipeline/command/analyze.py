"""`analyze`: how checkpoints lean towards numbers, in which layers learning changed them, and what a run's models answered."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from foundation.errors import ConfigError, InputError
from foundation.files import file_name, write_atomic, write_json_atomic
from foundation.hints import unknown
from pipeline.command.analyze_tables import Asking, show_layers, show_numbers
from pipeline.command.terminal import say
from pipeline.config.inputs import check_checkpoint, check_fits, check_new, check_place
from tasks.registry import get_task
from tasks.task import Example, Split, Task

if TYPE_CHECKING:
    from evaluators.analysis.layer_contributions import LayerContributions
    from evaluators.analysis.number_bias import NumberBias

QUESTIONS = 100
"""Of each task, on the page of answers."""


@dataclass(frozen=True)
class Asked:
    """What checkpoints are asked: tasks, how many samples of each, from which split, how many at a time."""

    tasks: tuple[Task, ...]
    samples: int
    split: Split
    batch_size: int

    def examples(self, task: Task) -> Sequence[Example]:
        """The first samples of one of the tasks; InputError where it has none."""
        found = task.examples(self.split, self.samples)
        if not found:
            raise InputError(f"task {task.name!r} has no examples in its {self.split.value} split; check its data")
        return found


def asked(tasks: list[str], samples: int, split: str, batch_size: int) -> Asked:
    """What the options say; ConfigError for what makes no sense."""
    if not tasks:
        raise ConfigError("no task is named; name one to ask, e.g. --task count")
    check_once(tasks, "--task", "task")
    if split not in (Split.TEST, Split.VALIDATION):
        raise ConfigError(f"--split: {unknown('split', split, [Split.TEST.value, Split.VALIDATION.value])}")
    for option, value in (("--samples", samples), ("--batch-size", batch_size)):
        if value < 1:
            raise ConfigError(f"{option} is {value}; give at least 1")
    return Asked(tuple(map(get_task, tasks)), samples, Split(split), batch_size)


def check_once(texts: Sequence[str], where: str, what: str) -> None:
    """ConfigError if a text stands twice."""
    twice = next((text for text, count in Counter(texts).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"{where} names {twice!r} more than once; name each {what} once")


def opened(texts: Sequence[str]) -> list[Path]:
    """The checkpoints, fetched if they are hub ids, each whole and with a processor; loads no weights."""
    from mergers import resolve_checkpoint

    places = [check_checkpoint(text) or resolve_checkpoint(text) for text in texts]
    for place in places:
        check_fits(place, parts=())
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours shows what is asked; theirs would run through it
    return places


def short_names(texts: Sequence[str]) -> list[str]:
    """As much of the end of each path as tells them apart."""
    parts = [Path(text).parts for text in texts]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(texts)


def analyze_numbers(
    checkpoints: list[str],
    tasks: list[str],
    samples: int,
    output: Path,
    *,
    split: str = Split.TEST.value,
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    console: Console,
) -> None:
    """Probe the checkpoints for number tokens, show statistic by checkpoint for each task, and write numbers.json, number_tokens.txt and
    numbers.png into `output`. `max_new_tokens` None: as many as the task allows."""
    if not checkpoints:
        raise ConfigError("no checkpoint is named; name one or more, e.g. the steps of a stage")
    check_once(checkpoints, "analyze numbers", "checkpoint")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens is {max_new_tokens}; give at least 1")
    questions = asked(tasks, samples, split, batch_size)
    check_new(output, "--output")
    places = opened(checkpoints)
    limits = {task.name: max_new_tokens or task.max_new_tokens for task in questions.tasks}
    with Asking(console, len(places) * len(tasks) * samples) as asking:
        named = zip(short_names(checkpoints), places, strict=True)
        found = {name: probed(place, name, questions, limits, asking) for name, place in named}
    show_numbers(found, console)
    write_numbers(found, limits, split, output, console)
    following = ["evaluate", *checkpoints, "--tasks", *tasks]
    if len(checkpoints) > 1:
        asked_tasks = [part for task in tasks for part in ("--task", task)]
        following = ["analyze", "layers", *checkpoints[1:], "--base", checkpoints[0], *asked_tasks, "--output", f"{output}-layers"]
    say(console, f"next: python -m pipeline {shlex.join(following)}")


def probed(place: Path, name: str, questions: Asked, limits: Mapping[str, int], asking: Asking) -> "dict[str, NumberBias]":
    """Task -> what the probe finds in the checkpoint; it is in memory only as long as this runs."""
    from evaluators.analysis.number_bias import number_bias
    from evaluators.generate import load_answerer

    answerer, found = load_answerer(place), {}
    for task in questions.tasks:
        heard = asking.begin(f"{name}, {task.name}")
        found[task.name] = number_bias(answerer, questions.examples(task), limits[task.name], questions.batch_size, heard)
    return found


def write_numbers(
    found: "Mapping[str, Mapping[str, NumberBias]]", limits: Mapping[str, int], split: str, output: Path, console: Console
) -> None:
    """numbers.json, number_tokens.txt (one for each checkpoint where their vocabularies differ) and numbers.png."""
    from pipeline.report.analysis_plots import number_plot

    output.mkdir(parents=True, exist_ok=True)
    texts = {name: next(iter(probes.values())).tokens.text() for name, probes in found.items()}
    alike = len(set(texts.values())) == 1
    files = {output / ("number_tokens.txt" if alike else f"number_tokens-{file_name(name)}.txt"): text for name, text in texts.items()}
    for path, text in files.items():
        write_atomic(path, text)
    told = {name: {task: probe.as_json() for task, probe in probes.items()} for name, probes in found.items()}
    write_json_atomic(output / "numbers.json", {"split": split, "max_new_tokens": dict(limits), "order": list(found), "checkpoints": told})
    write_atomic(output / "numbers.png", number_plot(found))
    say(console, f"every sample: {output / 'numbers.json'}; picture: {output / 'numbers.png'}; tokens: {', '.join(map(str, files))}")


def analyze_layers(
    base: str,
    tuned: list[str],
    tasks: list[str],
    samples: int,
    output: Path,
    *,
    split: str = Split.TEST.value,
    batch_size: int = 8,
    console: Console,
) -> None:
    """Measure how far each tuned checkpoint moved its layers' contributions from the base's on the tasks' right answers, show layer by
    checkpoint, and write layers.json and layers.png into `output`. The samples of all tasks count alike."""
    if not tuned:
        raise ConfigError("no tuned checkpoint is named; name one or more to compare with --base")
    check_once([base, *tuned], "analyze layers", "checkpoint")
    questions = asked(tasks, samples, split, batch_size)
    check_new(output, "--output")
    place, *places = opened([base, *tuned])
    from evaluators.analysis.layer_contributions import layer_contributions
    from evaluators.generate import load_answerer
    from pipeline.report.analysis_plots import layer_plot

    names = short_names(tuned)
    examples = [example for task in questions.tasks for example in questions.examples(task)]
    before = load_answerer(place)
    found: dict[str, LayerContributions] = {}
    with Asking(console, len(names) * len(examples)) as asking:
        for name, own in zip(names, places, strict=True):
            found[name] = layer_contributions(before, load_answerer(own), examples, batch_size, asking.begin(name))
    show_layers(found, console)
    output.mkdir(parents=True, exist_ok=True)
    told = {name: contributions.as_json() for name, contributions in found.items()}
    asked_tasks = [task.name for task in questions.tasks]
    write_json_atomic(output / "layers.json", {"split": split, "tasks": asked_tasks, "order": names, "checkpoints": told})
    write_atomic(output / "layers.png", layer_plot(found))
    say(console, f"numbers: {output / 'layers.json'}; picture: {output / 'layers.png'}")
    say(console, f"next: python -m pipeline {shlex.join(['distance', base, tuned[-1], '--output', f'{output}-weights'])}")


def analyze_answers(run: str, output: Path | None, workspace: Path = Path(), samples: int = QUESTIONS, *, console: Console) -> None:
    """Write what a run's models answered to the first `samples` questions of each task: a page to browse, JSON and Markdown.

    `run`: a name in the workspace, or its directory. `output` None: `report/answers` of the run.
    """
    from pipeline.command.summary import run_directory
    from pipeline.report.answers import collect
    from pipeline.report.answers_files import write_answers
    from pipeline.reports import has_families
    from pipeline.results import read_rows

    if samples < 1:
        raise ConfigError(f"--samples is {samples}; show at least 1 of each task")
    directory = run_directory(run, workspace)
    if has_families(read_rows(directory)):
        raise InputError(
            f"run {directory.name} asked sets of images with text, whose answers are no words; see {directory / 'report'} for its scores, "
            "or name a run of tasks"
        )
    place = output or directory / "report" / "answers"
    check_place(place.absolute(), "--output")
    found = collect(directory, samples)
    for number, line in enumerate(found.lines):
        told = [question for question in found.questions if number in question.replies]
        outcomes = Counter(question.outcome(number).value for question in told)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        say(console, f"{line.arm}, seed {line.seed}: {len(told)} questions to {len(line.models)} models: {counts}")
    page, data, text = write_answers(found, place)
    say(console, f"also: {data} and {text.name} beside it")
    say(console, f"next: open {page.absolute().as_uri()}")
