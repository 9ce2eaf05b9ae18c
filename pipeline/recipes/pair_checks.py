"""What can be decided of an experiment on images with text before anything runs: are the records there, can every model be asked.

Reads configs, headers and counts of records, no weights and no images.
"""

import math
from itertools import islice

from foundation.errors import ConfigError, InputError
from pipeline.config.model_settings import check_patches
from pipeline.config.pair_settings import ModalityStream, PairStage
from pipeline.recipes.starts import Model, check_start
from tasks.pairs.records import Captioned, Kind, PairSet
from tasks.task import Split
from trainers.modality.spec import Objective

CHOICES = {Kind.QUESTIONS: "answers", Kind.LABELS: "classes"}
"""What a model chooses among that is asked a set of a kind."""


def check_pairs(c: ModalityStream) -> None:
    """InputError unless model and records are there, ConfigError unless images fit the model and records fill the stages' batches."""
    patch = check_start(c)
    for name, stage in c.stages.items():
        try:
            if stage.image_size is not None and patch is not None:
                check_patches(stage.image_size, patch)
                if stage.image_size == patch and Objective.MIM in stage.objectives:
                    raise ConfigError(
                        f"mim hides some patches of an image, and an image of {patch} pixels is a single one; give a larger one"
                    )
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        check_filled(c, name, stage)
    for each in (*c.evaluate.sets, *c.evaluate.held_out):
        if not len(c.set(each).records(Split(c.evaluate.split), c.evaluate.samples)):
            raise InputError(f"evaluate: set {each!r} has no records in its {c.evaluate.split} split; check its data")


def check_filled(c: ModalityStream, name: str, stage: PairStage) -> None:
    """InputError unless the sets of a stage have training records, ConfigError unless these fill a batch and reach its milestones."""
    for other in (*stage.texts, *stage.images):
        needed(c.set(other), stage.samples)
    sets = [c.set(each) for each in stage.sets]
    wanted = stage.batch_size
    if stage.max_steps is None and stage.milestones:
        wanted *= math.ceil(max(stage.milestones) / stage.epochs)
    found = 0
    for each in sets:
        found += examples(each, needed(each, stage.samples), stage.samples, wanted - found)
    if found < stage.batch_size:
        raise ConfigError(f"{name}: the sets give {found} examples, which do not fill one batch of {stage.batch_size}; lower batch_size")
    steps = stage.max_steps or math.ceil(stage.epochs * (found // stage.batch_size))
    if stage.milestones and found < wanted and max(stage.milestones) > steps:
        raise ConfigError(
            f"{name}: milestones name step {max(stage.milestones)}, but {stage.epochs:g} epochs of {found} examples are {steps} steps"
        )


def needed(data: PairSet, count: int | None) -> int:
    """How many training records a set gives; InputError where it has none."""
    found = len(data.records(Split.TRAIN, count))
    if not found:
        raise InputError(f"set {data.name!r} has no train records; leave it out, or check where its data lies")
    return found


def examples(data: PairSet, records: int, count: int | None, wanted: int) -> int:
    """How many examples a set's records give: each caption of an image is one. Counts on only until there are `wanted`."""
    if data.kind is not Kind.CAPTIONS or records >= wanted:
        return records
    found = 0
    for record in islice(data.records(Split.TRAIN, count), records):
        found += len(record.captions) if isinstance(record, Captioned) else 1
        if found >= wanted:
            break
    return min(found, count or found)


def lacks(c: ModalityStream, model: Model) -> str:
    """Why a model cannot be asked what `evaluate` asks; empty where it can."""
    missing = next((head for head in c.heads_asked if head not in model.heads), None)
    if missing is not None:
        return f"evaluate asks with the head {missing!r}, and the model has {', '.join(model.heads) or 'no heads'}"
    for each in (*c.evaluate.sets, *c.evaluate.held_out):
        asked = c.set(each)
        word = CHOICES.get(asked.kind)
        if word is not None and tuple(model.choices.get(word, ())) != tuple(asked.choices()):
            return f"evaluate asks {each!r}, whose {word} are others than those the model learned to choose among"
    return ""
