"""The keys of experiments with a modality-expert transformer: the model, its stages of learning, and what it is asked.

Sets of images with text are named: those that are made here (`digits_captions`, …), and Arrow files of the user's under `data`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from evaluators.pairs.suite import Asked, PairSuite
from foundation.errors import ConfigError
from foundation.hints import unknown
from models.parts import parse_selection
from pipeline.config.arrow_settings import ArrowData
from pipeline.config.kinds import Count, Flag, NotNegative, Positive, Seed, Settings, WholeNumber
from pipeline.config.model_settings import ModelStart
from pipeline.config.train_settings import StageKeys
from tasks.pairs.records import Kind, PairSet
from tasks.pairs.registry import PAIR_SETS, get_pair_set
from tasks.task import Split
from trainers.modality.spec import HEADS_OF, Augmentation, Masking, ModalityLearning, ModalitySpec, Objective
from trainers.spec import check_workers

EVERYTHING = ["glob:*"]
Probability = Annotated[float, Field(gt=0, lt=1, strict=True)]


COMPARING = (Objective.ITC, Objective.ITM, Objective.RETRIEVAL)
"""The objectives that compare the pairs of a micro batch with one another."""
HEAD_OF: dict[Kind, Objective] = {
    Kind.CAPTIONS: Objective.RETRIEVAL,
    Kind.QUESTIONS: Objective.VQA,
    Kind.COMPARISONS: Objective.NLVR2,
    Kind.LABELS: Objective.CLASSIFICATION,
}
"""The plainest objective that gives a model the head by which a kind of set is asked."""


STAGES = ("images_first", "seed_pretrain", "pretrain", "fine_tune")


class Masks(Settings):
    """Which words and patches are hidden: the probability of a word (or token) alone and beside its image, and of a patch.

    `blocks`: patches are hidden in rectangles, as BEiT does, and not one by one.
    """

    text: Probability = 0.15
    with_image: Probability = 0.25
    whole_words: Flag = True
    patches: Probability = 0.4
    blocks: Flag = True


def _check_pattern(part: str) -> None:
    """ConfigError unless a selection is a glob or a regex: the named parts are those of vision-language models of other families."""
    if not part.startswith(("glob:", "regex:")):
        raise ConfigError(f"{part!r} names no part of a modality-expert model; select by name, e.g. glob:heads.* or regex:mlp[.]v[.]")
    parse_selection(part, "parts")


class PairStage(StageKeys):
    """One stage of learning from images with text. `objectives` maps each objective to its weight in the loss.

    `title` is what progress and MLflow call it. `sets` are learned together; `texts` and `images` feed the objectives of one modality
    (text_mlm, mim), which else take those of `sets`.
    """

    title: str = ""
    sets: Annotated[list[str], Field(min_length=1)]
    texts: list[str] = []  # noqa: RUF012
    images: list[str] = []  # noqa: RUF012
    objectives: Annotated[dict[str, Positive], Field(min_length=1)]
    parts: Annotated[list[str], Field(min_length=1)] = EVERYTHING
    masking: Masks = Masks()
    augmentation: Literal["none", "random"] = "none"
    flip: Flag = False
    image_size: Count | None = None
    learning_rate: Positive = 2e-4
    weight_decay: NotNegative = 0.01
    warmup_ratio: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.1
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    adam_beta2: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.98

    @field_validator("objectives")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        strange = next((name for name in value if name not in list(Objective)), None)
        if strange is not None:
            raise ValueError(f"objectives: {unknown('objective', strange, [each.value for each in Objective])}")
        return value

    @field_validator("title")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError(f"title is {value!r}; give one line")
        return value

    @field_validator("sets", "texts", "images")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        twice = next((name for name in value if value.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"names the set {twice!r} twice; name it once")
        return value

    @model_validator(mode="after")
    def _honoured(self) -> "PairStage":
        try:
            modality = self.modality(seed=0)
            for part in (*self.parts, *self.learning_rates):
                _check_pattern(part)
            micro, _ = check_workers(modality.train, self.workers)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        comparing = next((name for name in self.objectives if name in COMPARING), None)
        if comparing and micro * self.workers < 2:
            raise ValueError(
                f"{comparing} compares the pairs of a micro batch, and there is one; give batch_size and micro_batch_size of 2 or more"
            )
        for key, objective in (("texts", Objective.TEXT_MLM), ("images", Objective.MIM)):
            if getattr(self, key) and objective not in self.objectives:
                raise ValueError(f"{key} are for the objective {objective.value}, which is not there; add it, or leave {key} out")
        return self

    def modality(self, seed: int) -> ModalitySpec:
        """The stage as the trainers take it; ConfigError for what no stage could honour."""
        rates = tuple(sorted(self.learning_rates.items()))
        train = self.stage(seed, tuple(self.parts), self.learning_rate, rates)
        weights = tuple((Objective(name), weight) for name, weight in self.objectives.items())
        return ModalitySpec(train, weights, Masking(**self.masking.model_dump()), Augmentation(self.augmentation), self.flip)

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that its objectives need."""
        return tuple(dict.fromkeys(head for name in self.objectives for head in HEADS_OF[Objective(name)]))


class PairEvaluation(Settings):
    """How models are asked: the same records for every model. `rerank`: how many retrieved candidates the matching head orders again."""

    sets: Annotated[list[str], Field(min_length=1)]
    held_out: list[str] = []  # noqa: RUF012
    split: Literal["test", "validation"] = "test"
    samples: Annotated[int, Field(ge=2, strict=True)] | None = None
    rerank: WholeNumber = 0
    batch_size: Count = 100
    threads: Count = 1
    gpus: NotNegative = 0

    @model_validator(mode="after")
    def _each_once(self) -> "PairEvaluation":
        asked = [*self.sets, *self.held_out]
        twice = next((name for name in asked if asked.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"sets and held_out name {twice!r} twice; name it once")
        return self


class ModalityStream(Settings):
    """What all experiments with a modality-expert model share. Each of `seeds` makes, trains and asks models of its own."""

    model: ModelStart
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]  # noqa: RUF012
    data: dict[str, ArrowData] = {}  # noqa: RUF012
    fine_tune: PairStage | None = None
    evaluate: PairEvaluation

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"seeds {value} name one seed twice; name each once")
        return value

    @field_validator("data")
    @classmethod
    def _names_of_its_own(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = next((name for name in value if name in PAIR_SETS), None)
        if taken is not None:
            raise ValueError(f"data names {taken!r}, which is a set that is there already; choose another name")
        return value

    @property
    def stages(self) -> dict[str, PairStage]:
        """Key -> every stage that the experiment has, in the order in which they are learned."""
        found = {name: getattr(self, name, None) for name in STAGES}
        return {name: stage for name, stage in found.items() if isinstance(stage, PairStage)}

    @model_validator(mode="after")
    def _sets_are_there(self) -> "ModalityStream":
        for name, stage in self.stages.items():
            kind = stage.modality(seed=0).kind
            for key in ("sets", "texts", "images"):
                for each in getattr(stage, key):
                    found = self._kind(f"{name}.{key}", each)
                    if key == "sets" and found is not kind:
                        wanted = ", ".join(stage.objectives)
                        raise ValueError(f"{name}: {wanted} learn from {kind.value}, but {each!r} holds {found.value}; name another set")
                    if key == "texts" and found is Kind.LABELS:
                        raise ValueError(f"{name}.texts: {each!r} holds {found.value}, which have no text; name another set")
        for each in (*self.evaluate.sets, *self.evaluate.held_out):
            found = self._kind("evaluate.sets", each)
            if self.evaluate.rerank and found is not Kind.CAPTIONS:
                raise ValueError(f"evaluate: rerank orders what was retrieved, but {each!r} holds {found.value}; leave rerank out")
        return self

    def _kind(self, where: str, name: str) -> Kind:
        if name in self.data:
            return self.data[name].what
        if name not in PAIR_SETS:
            raise ValueError(f"{where}: {unknown('set', name, [*self.data, *PAIR_SETS])} (files of yours: see data)")
        return PAIR_SETS[name].kind

    def set(self, name: str) -> PairSet:
        """The set that the experiment calls `name`."""
        return self.data[name].make(name) if name in self.data else get_pair_set(name)

    def learning(self, stage: PairStage, seed: int) -> ModalityLearning:
        """What a stage is to learn, and how."""
        texts, images = (tuple(self.set(name) for name in names) for names in (stage.texts, stage.images))
        return ModalityLearning(tuple(self.set(name) for name in stage.sets), stage.modality(seed), texts, images)

    def suite(self) -> PairSuite:
        """What every model of this experiment is asked."""
        e = self.evaluate

        def asked(name: str) -> Asked:
            return Asked(self.set(name), e.rerank if self._kind("evaluate", name) is Kind.CAPTIONS else 0)

        return PairSuite(tuple(map(asked, e.sets)), tuple(map(asked, e.held_out)), Split(e.split), e.samples)

    def choices(self, stage: PairStage) -> dict[str, tuple[str, ...]]:
        """What the heads of a stage choose among, by the config's word for it; empty where they choose among nothing."""
        words = {Kind.QUESTIONS: "answers", Kind.LABELS: "classes"}
        sets = [self.set(name) for name in stage.sets]
        word = words.get(sets[0].kind)
        if word is None:
            return {}
        first, *others = [each.choices() for each in sets]
        if any(other != first for other in others):
            raise ConfigError(
                f"the sets {', '.join(stage.sets)} choose among different {word}; convert them with one vocabulary, or learn them in turn"
            )
        return {word: first}

    def streams(self, file: Any = None) -> Any:
        """No streams of tasks: for what asks every experiment for them."""
        return iter(())

    @property
    def heads_asked(self) -> tuple[str, ...]:
        """The heads by which the suite asks."""
        kinds = (self._kind("evaluate", name) for name in (*self.evaluate.sets, *self.evaluate.held_out))
        heads = [head for kind in kinds for head in HEADS_OF[HEAD_OF[kind]]]
        return tuple(dict.fromkeys([*heads, *(HEADS_OF[Objective.ITM] if self.evaluate.rerank else ())]))

    def tunes(self, arm: str) -> bool:
        """Whether a model is fine-tuned: all are, unless the recipe chooses among them."""
        return True


class ModalityPretraining(ModalityStream):
    """A model that is pre-trained first, and before that on images alone where `images_first` says how."""

    images_first: PairStage | None = None
    pretrain: PairStage
