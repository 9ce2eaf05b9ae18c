"""One stage of a modality-expert transformer's learning, start directory to checkpoint directory: pretraining or fine-tuning.

Call `train_modality_stage` on every worker with the same arguments. It does for pairs what `trainers/train.py` does for a vision-language
model's tasks, with the same checkpoints, milestones and promises: killed at any time and called again, it goes on from its last checkpoint
and writes the same bytes. What it starts from has the heads its objectives need (`models.modality_experts.starts`).
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from foundation.errors import ConfigError, InputError
from models.modality_experts.config import ModalityExpertsConfig
from models.modality_experts.embeddings import SECOND_IMAGE_TYPE
from models.modality_experts.processor import load_processor
from models.modality_experts.saving import load, load_config
from tasks.pairs.records import Kind
from trainers.base import training_arguments
from trainers.callbacks import Checkpointing, Log, Progress, RandomNumbers
from trainers.checkpoints.milestones import Milestones, StageWriter, check_milestones
from trainers.checkpoints.output import check_names, check_start
from trainers.modality.data.addresses import ShowingOrder
from trainers.modality.data.collate import PairCollator
from trainers.modality.data.examples import PairExamples, pair_examples
from trainers.modality.loop import ModalityTrainer
from trainers.modality.objectives.table import COMPARES
from trainers.modality.spec import ModalityLearning, Objective
from trainers.spec import Batches, Grouping, Sharding, TrainSpec, check_workers, plan_batches
from trainers.stage import Prepared, StageResult, find_checkpoints, identity_of, run_stage, start_digest
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategy import Context
from trainers.workers import first_decides, reproducible, world_size


@dataclass(frozen=True)
class ModalityStage:
    """What a stage is told, and what follows from it before any weight is read."""

    start: Path
    learning: ModalityLearning
    output: Path
    work: Path
    config: ModalityExpertsConfig
    examples: PairExamples
    texts: PairExamples | None
    images: PairExamples | None
    batches: Batches

    @property
    def context(self) -> Context:
        """What is known of the stage beside its model."""
        return Context(self.start, self.learning.spec, self.batches.steps)


def train_modality_stage(start: Path, learning: ModalityLearning, output: Path, work: Path, on_log: Log | None = None) -> StageResult:
    """Train the model in `start` on the training splits of the sets and write it to `output`, under the same tensor names and dtypes.

    `work` holds the checkpoints of this stage alone and may be removed once `output` is there; milestones lie beside `output`.
    `on_log(step, values)` is called on the first worker with the mean loss of the window, that of each objective before it is weighed
    ("train/loss_itc"), the learning rate and the gradient's norm. An epoch shows every caption of every image once; `samples` in the spec
    is how many examples of each set are taken.

    Raises ConfigError for settings that cannot be honoured, InputError for a start or sets that do not fit or a loss that is no number,
    ResourceError where the disk is full.
    """
    began = time.perf_counter()
    stage = check_stage(start, learning, output, work)
    with reproducible(learning.spec.threads):
        prepared = prepare_trainer(stage, on_log)
        epochs = stage.batches.steps * learning.spec.batch_size / len(stage.examples)
        return run_stage(prepared, stage.batches, epochs, began, on_log)


def check_stage(start: Path, learning: ModalityLearning, output: Path, work: Path) -> ModalityStage:
    """Refuse what can be refused before the model is loaded."""
    spec = learning.spec
    micro, _ = check_workers(spec, world_size())
    check_spec(spec)
    check_compared(learning, micro * world_size())
    check_start(start)
    config = load_config(start)
    check_heads(config, learning, start)
    check_kind(learning)
    examples = pair_examples(learning.sets, count=spec.samples)
    texts, images = (pair_examples(sets, count=spec.samples) if sets else None for sets in (learning.texts, learning.images))
    check_choices(config, examples, start)
    batches = plan_batches(spec, world_size(), len(examples))
    check_milestones(spec.milestones, batches.steps)
    return ModalityStage(start, learning, output, work, config, examples, texts, images, batches)


def check_spec(spec: TrainSpec) -> None:
    """ConfigError for settings that mean something for other models alone."""
    asked = {
        f"sharding {spec.sharding.value}": spec.sharding is not Sharding.NONE,
        f"grouping {spec.grouping.value}": spec.grouping is not Grouping.NONE,
        "packing": spec.packing,
        "max_length": spec.max_length is not None,
    }
    if unfit := [name for name, given in asked.items() if given]:
        raise ConfigError(
            f"training: {', '.join(unfit)} is not for modality-expert models, whose texts all have the config's max_text_length and whose "
            "workers each hold the whole model; leave it out"
        )


def check_compared(learning: ModalityLearning, pairs: int) -> None:
    """ConfigError where an objective would compare a pair with itself alone."""
    names = [name.value for name, _ in learning.modality.objectives if name in COMPARES]
    if names and pairs < 2:
        raise ConfigError(
            f"training: {', '.join(names)} compares the pairs of a micro batch of all workers, and there is one; "
            "give batch_size and micro_batch_size of 2 or more"
        )


def check_kind(learning: ModalityLearning) -> None:
    """ConfigError where the objectives do not learn from what the sets hold."""
    wanted = learning.modality.kind
    for each in learning.sets:
        if each.kind is not wanted:
            names = ", ".join(name.value for name, _ in learning.modality.objectives)
            raise ConfigError(
                f"objectives {names} learn from {wanted.value}, but set {each.name!r} holds {each.kind.value}; give another set"
            )


def check_heads(config: ModalityExpertsConfig, learning: ModalityLearning, start: Path) -> None:
    """InputError where the start lacks a head, or a type for the second image."""
    missing = [head for head in learning.modality.heads if head not in config.heads]
    if missing:
        raise InputError(
            f"{start}: the model has no head {', '.join(map(repr, missing))} (it has {', '.join(config.heads) or 'none'}); "
            f"start from a model with heads {', '.join(learning.modality.heads)}"
        )
    compares = any(name is Objective.NLVR2 for name, _ in learning.modality.objectives)
    if compares and config.token_types <= SECOND_IMAGE_TYPE:
        raise InputError(f"{start}: nlvr2 shows two images, but the model has {config.token_types} token types; start from one with 3")


def check_choices(config: ModalityExpertsConfig, examples: PairExamples, start: Path) -> None:
    """InputError where the model's head knows none of the answers, or not all classes, of the sets."""
    known = {Kind.QUESTIONS: config.answers, Kind.LABELS: config.classes}.get(examples.kind)
    if known is None:
        return
    found = examples.choices()
    strange = [choice for choice in found if choice not in known]
    if strange and (examples.kind is Kind.LABELS or len(strange) == len(found)):
        raise InputError(
            f"{start}: {len(strange)} of {len(found)} choices of the sets, e.g. {strange[0]!r}, are none of the {len(known)} that the "
            "model's head chooses among; start from a model whose answers or classes are those of the sets"
        )


def prepare_trainer(stage: ModalityStage, on_log: Log | None) -> Prepared:
    """Everything up to the first step."""
    spec, work, modality = stage.learning.spec, stage.work, stage.learning.modality
    args = training_arguments(spec, stage.batches, work)
    described, milestones, resumed_from = first_decides(
        lambda: find_checkpoints(spec, stage.batches, stage.output, work, lambda: describe_stage(stage))
    )
    set_seed(spec.seed)
    model = load(stage.start)
    check_names(model, stage.start)
    strategy = FineTuning()
    adaptation = strategy.start(model, stage.context)
    processor = load_processor(stage.start)
    writer = StageWriter(stage.context, strategy, adaptation, processor, stage.output, work, described, milestones)
    trainer = ModalityTrainer(
        model,
        args,
        ShowingOrder(len(stage.examples), spec.batch_size, stage.batches, spec.seed),
        PairCollator(
            stage.examples,
            processor,
            modality,
            spec.seed,
            patch_size=stage.config.patch_size,
            choices={Kind.QUESTIONS: stage.config.answers, Kind.LABELS: stage.config.classes}.get(stage.examples.kind),
            texts=stage.texts,
            images=stage.images,
        ),
        modality,
        [
            Progress(spec.log_steps, on_log),
            RandomNumbers(resumed_from, spec.seed),
            Checkpointing(spec.save_steps, work, described),
            Milestones(milestones, lambda _, step: writer.write(model, step)),
        ],
    )
    return Prepared(trainer, writer, resumed_from)


def describe_stage(stage: ModalityStage) -> dict[str, Any]:
    """What decides the stage's bytes, for its checkpoints to carry; the number of workers aside. Reads the whole start."""
    learning = stage.learning
    sets = {"sets": learning.sets, "texts": learning.texts, "images": learning.images}
    return {
        "start": start_digest(stage.start),
        **{name: [f"{each!r} version {each.version}" for each in given] for name, given in sets.items()},
        "objectives": [[name.value, weight] for name, weight in learning.modality.objectives],
        "masking": repr(learning.modality.masking),
        "augmentation": f"{learning.modality.augmentation.value}, flip {learning.modality.flip}",
        **identity_of(learning.spec),
    }
