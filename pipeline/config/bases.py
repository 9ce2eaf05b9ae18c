"""The models an experiment starts from, as far as they are known before anything runs: checkpoints here, and the model made here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from foundation.sizes import size
from pipeline.config.inputs import check_checkpoint, check_fits, is_config_only
from pipeline.config.settings import Stream
from pipeline.config.yaml_file import Place, YamlFile
from trainers.memory import stage_memory
from trainers.strategy import Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from models.skeleton import PartCounts


@dataclass(frozen=True)
class KnownBase:
    """A model that the experiment starts from, and the parts of it that are trained."""

    text: str  # as the user wrote it
    place: Path | None  # None: the model that is made here
    parts: tuple[str, ...]
    where: str  # file and line
    stream: Stream  # the first that starts from it and trains these parts

    @property
    def has_weights(self) -> bool:
        """Whether it can be run; a directory with a config.json alone can be planned."""
        return self.place is None or not is_config_only(self.place)

    def counts(self) -> "PartCounts":
        """How many of its weights learn; InputError unless its tensors are its model's and it has the parts. Loads no weights."""
        with located(self.where):
            return made_counts(self.parts) if self.place is None else check_fits(self.place, self.parts)

    def skeleton(self) -> "PreTrainedModel":
        """The model on the `meta` device."""
        from models.skeleton import skeleton

        return made_skeleton() if self.place is None else skeleton(self.place)

    def describe(self) -> str:
        """How many of its weights learn, by part, and what a worker holds at least; InputError as `counts`."""
        counts, train, strategy = self.counts(), self.stream.train, self.stream.strategy.make()
        spec = train.spec(seed=0)
        learned = counts.learned
        if strategy.adds_weights:
            learned = strategy.start(self.skeleton(), Context(self.place or Path(), spec, steps=1)).trained
        trained = sum(learned.values())
        parts = ", ".join(f"{part} {count:,}" for part, count in learned.items())
        memory = stage_memory(counts.total, trained, spec, strategy, train.workers)
        workers = "the worker holds" if train.workers == 1 else f"each of {train.workers} workers holds"
        bare = "" if self.has_weights else "\nthere are no weights beside its config, so it can be planned and not run"
        return (
            f"base {self.text}: {trained:,} of {counts.total:,} weights learn ({parts}); "
            f"{workers} {size(memory)}, activations not counted{bare}"
        )

    def check_runs(self) -> None:
        """InputError unless it can be trained: as `counts`, and its weights are there."""
        with located(self.where):
            if not self.has_weights:
                raise InputError(f"{self.place} holds a config.json but no weights, so it can be planned and not run; download them there")
        self.counts()


def check_bases(file: YamlFile, config: Any) -> tuple[KnownBase, ...]:
    """The checkpoints on this machine that an experiment starts from, each once and whole by its headers; InputError with the line.

    The model that is made here is among them where only it can tell whether the parts are there: patterns, and layers by number.
    """
    found: dict[tuple[str, tuple[str, ...]], KnownBase] = {}
    for stream, room in streams_of(config):
        text, parts = stream.base.checkpoint or f"{stream.base.pretrain}", stream.train.spec(seed=0).parts
        if (text, parts) in found:
            continue
        where = next((file.at(place) for place in (*room, ("base",)) if place in file.lines), file.name)
        if stream.base.checkpoint is None:
            if any(sign in part for part in parts for sign in (":", "(")):
                found[text, parts] = KnownBase(text, None, parts, where, stream)
            continue
        with located(where):
            place = check_checkpoint(text, planning=True)
        if place is not None:
            found[text, parts] = KnownBase(text, place, parts, where, stream)
    return tuple(found.values())


def made_skeleton() -> "PreTrainedModel":
    """The model that is made here, on the `meta` device."""
    import torch

    from models.digits_llava import digits_llava

    with torch.device("meta"):
        return digits_llava(seed=0)


def made_counts(parts: Sequence[str]) -> "PartCounts":
    """How many weights of the model that is made here learn."""
    from models.skeleton import part_counts

    return part_counts(made_skeleton(), parts)


def streams_of(config: Any) -> Iterator[tuple[Stream, tuple[Place, ...]]]:
    """Every stream of the experiment, and where its base could be named besides the top level."""
    if not hasattr(config, "streams"):
        yield config, ()
        return
    for arm, _, stream in config.streams():
        yield stream, (("arms", arm, "base"), ("common", "base"))


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put file and line before an InputError's message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: base: {error}") from error
