"""`modality_agnostic`, `modality_specific`, `modality_merging`: three ways to one transformer for images and text (arXiv 2304.14933).

    modality_agnostic    everything shared:     pretrain -> fine-tune
    modality_specific    experts per modality:  pretrain -> fine-tune
    modality_merging     shared seed -> experts from it -> merged into one shared model -> fine-tune
    modality_fine_tune   any of their models -> fine-tune; without a stage it is asked and that is all

Every model is asked as it comes out of pretraining or merging, before anything is fine-tuned, and again after that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from foundation.errors import ConfigError
from pipeline.config.modality_merge_settings import ModalityMerging
from pipeline.config.pair_settings import ModalityPretraining, ModalityStream, PairStage
from pipeline.recipes.milestone import Milestone, Role
from pipeline.recipes.pair_checks import check_pairs, lacks
from pipeline.recipes.starts import Model, starting_experts
from pipeline.step import Step
from pipeline.steps import EvaluatePairs, ExpertDistances, Gram, LearnPairs, MergeExperts, PairFisher, Reshaped, Within

ALL, SHARED = "all", "shared"


@dataclass(frozen=True)
class Arm:
    """One line of the experiment: a model before fine-tuning, and what it is shown as."""

    name: str
    family: str
    model: Model
    value: float | None = None
    measured: Step | None = None


def modality_agnostic(c: ModalityPretraining, store: Path | None) -> Iterator[Milestone]:
    """Seed after seed: the shared model, before and after fine-tuning."""
    check_pairs(c)
    for seed in c.seeds:
        start = begun(c, seed, store)
        yield from asked(c, Arm("agnostic", "agnostic", learned(c, start, "pretrain", seed, SHARED)), seed)


def modality_specific(c: ModalityPretraining, store: Path | None) -> Iterator[Milestone]:
    """Seed after seed: the model with experts, before and after fine-tuning."""
    check_pairs(c)
    for seed in c.seeds:
        start = begun(c, seed, store)
        yield from asked(c, Arm("unmerged", "unmerged", learned(c, start, "pretrain", seed, ALL)), seed)


def modality_fine_tune(c: ModalityStream, store: Path | None) -> Iterator[Milestone]:
    """Seed after seed: the model that is there, before and after fine-tuning."""
    check_pairs(c)
    for seed in c.seeds:
        yield from asked(c, Arm("model", "model", starting_experts(c, seed, store)), seed)


def modality_merging(c: ModalityMerging, store: Path | None) -> Iterator[Milestone]:
    """Seed after seed: what the merges are held against, then every merge of the experts."""
    check_pairs(c)
    for seed in c.seeds:
        start = begun(c, seed, store)
        center = learned(c, start, "seed_pretrain", seed, SHARED) if c.seed_pretrain else start
        based = next((choice.method for choice in c.choices_made() if choice.needs_base), None)
        if based is not None and center.sharing != SHARED:
            raise ConfigError(
                f"merges: {based} measures the experts from a seed that is shared, and the model has sharing {center.sharing!r}; "
                "start from the shared model that the experts came from"
            )
        specific = learned(c, center, "pretrain", seed, ALL)
        for arm in (*references(c, center, specific, seed), *merged(c, center, specific, seed), *on_the_way(c, center, specific, seed)):
            yield from asked(c, arm, seed)


def references(c: ModalityMerging, center: Model, specific: Model, seed: int) -> Iterator[Arm]:
    """The unmerged model, the seed as it is, and a shared model that learned on from the seed for as long as the experts did."""
    if "unmerged" in c.references:
        yield Arm("unmerged", "unmerged", specific)
    if "seed" in c.references:
        yield Arm("seed only", "seed only", center)
    if "agnostic" in c.references:
        yield Arm("agnostic", "agnostic", learned(c, center, "pretrain", seed, SHARED))


def merged(c: ModalityMerging, center: Model, specific: Model, seed: int) -> Iterator[Arm]:
    """Every merge that the experiment lists, of the finished experts."""
    sets, work = c.learning(c.pretrain, seed).sets, c.gram
    measured = {
        "gram": Gram(specific.step, sets, work.spec(), actors=work.actors, gpus=work.gpus),
        "fisher": PairFisher(specific.step, sets, c.fisher.spec(seed), actors=work.actors, gpus=work.gpus),
    }
    for choice in c.choices_made():
        step = MergeExperts(
            specific.step,
            choice.method,
            choice.parameters,
            c.used_by,
            base=center.step if choice.needs_base else None,
            statistics=measured.get(choice.statistic or ""),
            actors=c.merge.actors,
        )
        model = replace(specific, step=step, sharing=SHARED)
        yield Arm(choice.name, choice.family, model, choice.value, ExpertDistances(specific.step))


def on_the_way(c: ModalityMerging, center: Model, specific: Model, seed: int) -> Iterator[Arm]:
    """The first merge of the list again, of the experts as they were at the milestones of their pretraining: closer together still."""
    first = next(iter(c.choices_made()), None)
    if first is None or first.statistic:
        return
    for at in sorted(c.pretrain.milestones):
        experts = Within(specific.step, at)
        yield Arm(f"unmerged, step {at}", "unmerged on the way", replace(specific, step=experts), at)
        base = center.step if first.needs_base else None
        step = MergeExperts(experts, first.method, first.parameters, c.used_by, base=base, actors=c.merge.actors)
        model = replace(specific, step=step, sharing=SHARED)
        yield Arm(f"{first.name}, step {at}", f"{first.family} on the way", model, at, ExpertDistances(experts))


def begun(c: ModalityPretraining, seed: int, store: Path | None) -> Model:
    """The model that everything starts from, having learned from images alone where the experiment says so."""
    start = starting_experts(c, seed, store)
    return learned(c, start, "images_first", seed, start.sharing) if c.images_first else start


def learned(c: ModalityStream, start: Model, key: str, seed: int, sharing: str) -> Model:
    """The model after the stage `key`, which it takes up with `sharing` and the heads that the stage needs."""
    stage = c.stages[key]
    if sharing == SHARED != start.sharing:
        raise ConfigError(
            f"{key} learns a shared model, and it would start from one of sharing {start.sharing!r}; that is a merge: "
            f"start from a shared model{', or leave the reference agnostic out' if isinstance(c, ModalityMerging) else ''}"
        )
    ready = shaped(c, start, stage, seed, sharing, keep=False)
    learning = c.learning(stage, seed)
    step = LearnPairs(
        ready.step,
        learning.sets,
        learning.modality,
        learning.texts,
        learning.images,
        resources=stage.resources(),
        name=stage.title or key.replace("_", " "),
    )
    return replace(ready, step=step)


def shaped(c: ModalityStream, start: Model, stage: PairStage, seed: int, sharing: str, keep: bool) -> Model:
    """`start` with what a stage needs of it; as it is where it has that. `keep`: heads that it has beyond that stay."""
    wanted = tuple(dict.fromkeys((*start.heads, *stage.heads))) if keep else stage.heads
    heads = None if set(wanted) == set(start.heads) else wanted
    types = 3 if "nlvr2" in stage.heads and start.token_types < 3 else None
    size = stage.image_size if stage.image_size != start.image_size else None
    wanted_choices = c.choices(stage)
    choices = {word: words for word, words in wanted_choices.items() if start.choices.get(word) != words}
    change = None if sharing == start.sharing else sharing
    if change is None and heads is None and types is None and size is None and not choices:
        return start
    step = Reshaped(start.step, seed, change, heads, size, types, choices)
    return replace(
        start,
        step=step,
        sharing=sharing,
        heads=wanted,
        image_size=size or start.image_size,
        token_types=types or start.token_types,
        choices={**start.choices, **wanted_choices},
    )


def asked(c: ModalityStream, arm: Arm, seed: int) -> Iterator[Milestone]:
    """The arm's model asked as it is, and after fine-tuning where it is to be fine-tuned."""
    suite, told = c.suite(), {"arm": arm.name, "seed": seed, "family": arm.family, "value": arm.value, "measured": arm.measured}

    def ask(model: Step) -> EvaluatePairs:
        return EvaluatePairs(model, suite, c.evaluate.batch_size, c.evaluate.threads, gpus=c.evaluate.gpus)

    lacking, tunes = lacks(c, arm.model), c.fine_tune is not None and c.tunes(arm.name)
    if lacking and not tunes:
        raise ConfigError(
            f"{arm.name!r} would not be asked at all: {lacking}; have a stage learn it (fine_tune, for all that is listed, "
            "and no milestones), or ask something else"
        )
    if not lacking:
        yield Milestone(ask(arm.model.step), 0, Role.BASE, **told)  # type: ignore[arg-type]
    if c.fine_tune is not None and tunes:
        ready = shaped(c, arm.model, c.fine_tune, seed, arm.model.sharing, keep=True)
        if lacking := lacks(c, ready):
            raise ConfigError(f"after fine_tune {arm.name!r} could not be asked: {lacking}; have a stage learn it, or ask something else")
        learning = c.learning(c.fine_tune, seed)
        name = c.fine_tune.title or "fine-tune"
        extra = (learning.texts, learning.images)
        tuned = LearnPairs(ready.step, learning.sets, learning.modality, *extra, resources=c.fine_tune.resources(), name=name)
        yield Milestone(ask(tuned), 1, Role.AFTER, c.evaluate.sets[0], **told)  # type: ignore[arg-type]
