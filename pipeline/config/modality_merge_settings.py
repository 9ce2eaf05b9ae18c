"""The keys of modality merging: which merges of the experts are made, what is measured for them, which are fine-tuned.

merges:
  - {method: interpolation, ratio: [0.25, 0.5, 0.75]}
  - {method: arithmetic, scale: [0.25, 0.5, 1.0]}
  - {method: regmean, off_diagonal: [0, 0.9, 1]}
  - {method: ties, density: 0.2}

A list is one merge for each of its values; `title` names a single one. `interpolation`, `arithmetic`, `sequential_arithmetic` and `regmean`
are the paper's ways (`mergers/experts.py`); any other method of the merge table goes by its own name and takes its own hyperparameters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers.experts import METHODS, expert_merger, needs_base, needs_statistic
from mergers.table import ROWS
from pipeline.config.kinds import Count, Flag, NotNegative, Settings, WholeNumber
from pipeline.config.pair_settings import ModalityPretraining, PairStage
from pipeline.config.settings import MergeWork
from trainers.modality.spec import Objective
from trainers.modality.statistics.spec import FisherSpec, GramSpec, Passage, Products

Reference = Literal["unmerged", "seed", "agnostic"]
REFERENCES: tuple[Reference, ...] = ("unmerged", "seed", "agnostic")
UsedBy = Literal["retrieval", "vqa", "nlvr2", "all"]


@dataclass(frozen=True)
class Chosen:
    """One merge: the name of its arm, its method with all parameters, and the value that a list of values gave it."""

    name: str
    method: str
    parameters: Mapping[str, Any]
    value: float | None

    @property
    def family(self) -> str:
        """The method in words."""
        return self.method.replace("_", " ")

    @property
    def needs_base(self) -> bool:
        """Whether it measures the experts from the seed."""
        return needs_base(self.method)

    @property
    def statistic(self) -> str | None:
        """What must have been measured on the experts: "gram", "fisher" or nothing."""
        return needs_statistic(self.method)


class GramWork(Settings):
    """What Grams are measured on: training records alone. `pairs`: also through the vision-language experts; `every` k: one token in k.
    `products: float64` for RegMean with `off_diagonal: 1`, which inverts the Gram as it is, the directions that no input has among them.

    `parts` is how the records are cut; how many actors measure them changes no byte.
    """

    samples: Count | None = 1000
    pairs: Flag = False
    every: Count = 1
    products: Literal["float32", "float64"] = "float32"
    parts: Count = 8
    actors: WholeNumber = 2
    gpus: NotNegative = 0

    def spec(self) -> GramSpec:
        """As the measurement takes it."""
        passages = tuple(Passage) if self.pairs else None
        return GramSpec(passages, self.samples, self.parts, self.every, Products(self.products))


class FisherWork(Settings):
    """What Fisher information is measured on, for the method `fisher`: training records, each told apart from `among` - 1 others."""

    objective: Literal["retrieval", "mlm"] = "retrieval"
    samples: Count | None = 1000
    among: Annotated[int, Field(ge=2, strict=True)] = 8
    parts: Count = 8

    def spec(self, seed: int) -> FisherSpec:
        """As the measurement takes it."""
        return FisherSpec(Objective(self.objective), samples=self.samples, among=self.among, parts=self.parts, seed=seed)


class ModalityMerging(ModalityPretraining):
    """A seed, experts from it, and every merge of them. `used_by`: the task whose experts alone take part; `all` takes them all.

    `pretrain` is how the experts learn from the seed (and the agnostic model that is held against them). At its milestones the first of
    `merges` is made too. `fine_tuned`: the arms that are fine-tuned, all unless given.
    """

    seed_pretrain: PairStage | None = None
    merges: Annotated[list[dict[str, Any]], Field(min_length=1)]
    used_by: UsedBy = "retrieval"
    references: list[Reference] = list(REFERENCES)  # noqa: RUF012
    gram: GramWork = GramWork()
    fisher: FisherWork = FisherWork()
    merge: MergeWork = MergeWork()
    fine_tuned: list[str] | None = None

    @field_validator("merges")
    @classmethod
    def _made(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = []
        for index, each in enumerate(value):
            try:
                names += [chosen.name for chosen in spread_out(each)]
            except ConfigError as error:
                raise ValueError(f"merges[{index}]: {error}") from error
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"merges: {twice!r} is there twice; name each merge once")
        return value

    @model_validator(mode="after")
    def _based(self) -> "ModalityMerging":
        based = next((chosen for chosen in self.choices_made() if chosen.needs_base), None)
        if based is not None and self.seed_pretrain is None and self.model.checkpoint is None:
            raise ValueError(
                f"merges: {based.method} measures the experts from their seed; add seed_pretrain, or start from its checkpoint"
            )
        known = [{"seed": "seed only"}.get(name, name) for name in self.references] + [chosen.name for chosen in self.choices_made()]
        for name in self.fine_tuned or ():
            if name not in known:
                raise ValueError(f"fine_tuned: {unknown('arm', name, known)}")
        return self

    def choices_made(self) -> Iterator[Chosen]:
        """Every merge of the list, a list of values taken apart."""
        for each in self.merges:
            yield from spread_out(each)

    def tunes(self, arm: str) -> bool:
        """Whether the arm's model is fine-tuned; those on the way are not."""
        return (", step " not in arm) if self.fine_tuned is None else arm in self.fine_tuned


def spread_out(merge: Mapping[str, Any]) -> Iterator[Chosen]:
    """The merges that one entry of the list stands for; ConfigError for a method or parameter that is not there."""
    method = merge.get("method")
    known = [*METHODS, *(name for name in ROWS if name not in METHODS)]
    if not isinstance(method, str) or method not in known:
        raise ConfigError(unknown("method", str(method), known))
    parameters = {name: value for name, value in merge.items() if name not in ("method", "title")}
    lists = [name for name, value in parameters.items() if isinstance(value, list)]
    title = merge.get("title")
    if title is not None and (lists or not isinstance(title, str) or not title.strip()):
        raise ConfigError(f"{method}: title is {title!r}; it is the name of one merge, so give a text, and no list of values beside it")
    if len(lists) > 1:
        raise ConfigError(f"{method} has lists for {' and '.join(lists)}; vary one parameter in an entry, and write another entry for more")
    varied = lists[0] if lists else next(iter(parameters), None)
    for value in parameters[lists[0]] if lists else [parameters.get(varied) if varied else None]:
        given = {**parameters, varied: value} if varied else {}
        expert_merger(method, given)  # refuses what it cannot take
        number = float(value) if isinstance(value, int | float) else None
        told = "" if number is None else f" {number:g}"
        more = "".join(f" {name} {each}" for name, each in given.items() if name != varied)
        yield Chosen(title or f"{method.replace('_', ' ')}{told}{more}", method, given, number)
