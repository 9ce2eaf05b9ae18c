"""`validate` of an experiment: what its file asks for, checked as far as it can be without reading weights, and told in a few lines.

Answers at once for an experiment that makes its own model. A local checkpoint is held against its model, which takes the seconds of
importing transformers; tasks in the user's files are read and their records checked.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.bases import KnownBase, check_bases, streams_of
from pipeline.config.experiment import read_config
from pipeline.config.inputs import check_place
from pipeline.config.modality_merge_settings import ModalityMerging
from pipeline.config.pair_settings import ModalityStream
from pipeline.config.settings import Stream
from pipeline.recipes import RECIPES
from tasks.task import Split


def validate_experiment(path: Path, overrides: Sequence[str] = ()) -> str:
    """Lines on what the experiment would do. Raises ConfigError and InputError with the place in the file."""
    file, config = read_config(path, overrides)
    check_place(Path(config.workspace).absolute(), "workspace")
    bases = check_bases(file, config)
    told = _pairs(config) if isinstance(config, ModalityStream) else _shown(config, bases)
    return "\n".join([_summary(config, bases), *(base.describe() for base in bases), *_data(config), *told])


def _summary(config: Any, bases: Sequence[KnownBase]) -> str:
    if isinstance(config, ModalityStream):
        arms = len(list(config.choices_made())) + len(config.references) if isinstance(config, ModalityMerging) else 1
        what = f"{arms} models x {len(config.seeds)} seeds, {len(config.stages)} stages of learning: {', '.join(config.stages)}"
    elif hasattr(config, "streams"):
        what = f"{len(config.cases)} arms x {len(config.seeds)} seeds"
    else:
        what = f"{len(config.tasks)} stages: {', '.join(config.tasks)}"
    hub = sorted({stream.base.checkpoint for stream, _ in streams_of(config) if stream.base.checkpoint} - {base.text for base in bases})
    fetched = f"; {' and '.join(hub)} will be fetched from the hub when it runs" if hub else ""
    return f"valid; recipe {config.recipe}, {what}{fetched}"


def _data(config: Any) -> Iterator[str]:
    """What the tasks in the user's files are, each once, with the records that would be left out."""
    told: set[str] = set()
    for stream, _ in streams_of(config):
        for name in (*stream.tasks, *stream.held_out):
            if name in stream.data and name not in told:
                told.add(name)
                yield from _files(stream, name)


def _pairs(config: ModalityStream) -> Iterator[str]:
    """What the user's sets of images with text hold, and the heads of the model it starts from; InputError for what is not there."""
    list(RECIPES[config.recipe].make(config, None))  # type: ignore[attr-defined, arg-type]
    for name, data in config.data.items():
        made = data.make(name)
        held = {split.value: len(made.records(split)) for split, files in made.files.items() if files}
        yield f"set {name}: {data.what.value}, " + ", ".join(f"{count:,} of {split}" for split, count in held.items())


def _files(stream: Stream, name: str) -> Iterator[str]:
    task = stream.data[name].task(name)
    yield f"task {name}: " + task.describe().replace("\n", f"\ntask {name}: ")
    asked = Split(stream.evaluate.split)
    for split, count in ((Split.TRAIN, stream.train.samples), (asked, stream.evaluate.samples)):
        if split is asked or name in stream.tasks:
            report = task.check(split, count)
            if report.problems:  # more of them, and any of a benchmark's, would have been refused
                yield f"{report.sentence}; left out (max_bad_records is {stream.data[name].max_bad_records})"


def _shown(config: Any, bases: Sequence[KnownBase]) -> Iterator[str]:
    """One training example as the model will read it, the tokens that are learned marked, where there is a processor to write it with."""
    base = next((base for base in bases if base.place is not None and base.has_weights), None)
    if base is not None and base.place is not None:
        from models.load import load_processor
        from trainers.data.preview import as_text, preview

        stream, _ = next(iter(streams_of(config)))
        example = stream.task(stream.tasks[0], Split.TRAIN).examples(Split.TRAIN, 1)[0]
        yield f"an example of {stream.tasks[0]}, what is learned in «»:\n" + as_text(preview(load_processor(base.place), example))
