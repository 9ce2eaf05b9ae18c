"""The keys of modality merging: which merges of the experts are made, what is measured for them, which are fine-tuned.

merges:
  - {method: interpolation, ratio: [0.25, 0.5, 0.75]}
  - {method: arithmetic, scale: [0.25, 0.5, 1.0]}
  - {method: regmean, off_diagonal: [0, 0.9, 1]}
  - {method: ties, density: 0.2}

A list is one merge for each of its values (`weights`, a list in itself, takes a list of lists for that); `title` names a single one.
`interpolation`, `arithmetic`, `sequential_arithmetic` and `regmean` are the paper's ways (`mergers/experts.py`); any other method of the
merge table goes by its own name and takes its own hyperparameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundation.errors import ConfigError
from foundation.files import file_name
from foundation.hints import unknown
from mergers.experts import EXPERTS, LANGUAGE, METHODS, VISION, expert_merger, needs_base, needs_statistic
from mergers.table import ROWS
from pipeline.config.kinds import Count, Flag, NotNegative, Settings, WholeNumber
from pipeline.config.pair_settings import ModalityPretraining, PairStage
from pipeline.config.settings import MergeWork
from trainers.modality.spec import Objective
from trainers.modality.statistics.spec import FisherSpec, GramSpec, Passage, Products

Reference = Literal["unmerged", "seed", "agnostic"]
REFERENCES: tuple[Reference, ...] = ("unmerged", "seed", "agnostic")
UsedBy = Literal["retrieval", "vqa", "nlvr2", "all"]
SEED_ARM = "seed only"
"""What the reference `seed` is shown as."""
SEQUENCES = ("weights",)
"""Parameters whose value is a list of numbers, one for each expert."""
ON_THE_WAY = ", step "
"""What stands in the name of an arm that was merged at a milestone."""
MAX_TITLE = 80


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

    @model_validator(mode="after")
    def _made(self) -> "ModalityMerging":
        for index, each in enumerate(self.merges):
            try:
                list(spread_out(each, self.experts))
            except ConfigError as error:
                raise ValueError(f"merges[{index}]: {error}") from error
        held: dict[str, str] = {}
        for name in self.arms:
            other = held.setdefault(file_name(name).lower(), name)
            if other is not name:
                same = "is there twice" if other == name else f"and {other!r} would be one directory"
                raise ValueError(f"merges: {name!r} {same}; name each merge once, by a title of its own")
        return self

    @model_validator(mode="after")
    def _based(self) -> "ModalityMerging":
        based = next((chosen for chosen in self.choices_made() if chosen.needs_base), None)
        if based is not None and self.seed_pretrain is None and self.model.checkpoint is None:
            raise ValueError(
                f"merges: {based.method} measures the experts from their seed; add seed_pretrain, or start from its checkpoint"
            )
        return self

    @model_validator(mode="after")
    def _named_once(self) -> "ModalityMerging":
        for key, names in (("references", list[str](self.references)), ("fine_tuned", self.fine_tuned or [])):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{key}: {twice!r} is there twice; name it once")
        for name in self.fine_tuned or ():
            if name not in self.arms:
                raise ValueError(f"fine_tuned: {unknown('arm', name, self.arms)}")
        if self.fine_tuned and self.fine_tune is None:
            raise ValueError(f"fine_tuned names {self.fine_tuned[0]!r}, but no stage says how; add fine_tune, or leave fine_tuned out")
        return self

    @property
    def experts(self) -> tuple[str, ...]:
        """The experts that are merged."""
        return (VISION, LANGUAGE) if self.used_by == "retrieval" else EXPERTS

    @property
    def arms(self) -> list[str]:
        """The names of all models that are asked, those on the way aside."""
        named = [SEED_ARM if name == "seed" else name for name in dict.fromkeys(self.references)]
        return [*named, *(chosen.name for chosen in self.choices_made())]

    def choices_made(self) -> Iterator[Chosen]:
        """Every merge of the list, a list of values taken apart."""
        for each in self.merges:
            yield from spread_out(each, self.experts)

    def tunes(self, arm: str) -> bool:
        """Whether the arm's model is fine-tuned; those on the way are not."""
        return (ON_THE_WAY not in arm) if self.fine_tuned is None else arm in self.fine_tuned


def spread_out(merge: Mapping[str, Any], experts: Sequence[str] = EXPERTS) -> Iterator[Chosen]:
    """The merges that one entry of the list stands for; ConfigError for a method or parameter that is not there."""
    method = merge.get("method")
    known = [*METHODS, *(name for name in ROWS if name not in METHODS)]
    if not isinstance(method, str) or method not in known:
        raise ConfigError(unknown("method", str(method), known) if "method" in merge else "has no method; add one, e.g. method: ties")
    parameters = {name: value for name, value in merge.items() if name not in ("method", "title")}
    lists = [name for name, value in parameters.items() if _varies(method, name, value)]
    title = merge.get("title")
    if title is not None:
        _check_title(method, title, lists)
    if len(lists) > 1:
        raise ConfigError(f"{method} has lists for {' and '.join(lists)}; vary one parameter in an entry, and write another entry for more")
    varied = lists[0] if lists else next(iter(parameters), None)
    for value in parameters[lists[0]] if lists else [parameters.get(varied) if varied else None]:
        given = {**parameters, varied: value} if varied else {}
        expert_merger(method, given, experts)  # refuses what it cannot take
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        own = number is None and varied  # a value that is no number stands with its parameter's name
        told = "" if number is None else f" {number:g}"
        more = "".join(f" {name} {_told(each)}" for name, each in given.items() if own or name != varied)
        yield Chosen(title or f"{method.replace('_', ' ')}{told}{more}", method, given, number)


def _varies(method: str, name: str, value: Any) -> bool:
    """Whether a value is a list of values, a merge for each; ConfigError where neither it nor its values are what a parameter can be."""
    if isinstance(value, list) and not value:
        raise ConfigError(f"{method}: {name} is an empty list; give a value, or several")
    nested = isinstance(value, list) and isinstance(value[0], list)
    several = isinstance(value, list) and (name not in SEQUENCES or nested)
    for each in value if several else [value]:
        if name in SEQUENCES and not isinstance(each, list):
            raise ConfigError(f"{method}: {name} is {each!r}; give a list with a number for each expert, e.g. [0.5, 0.5]")
        if isinstance(each, dict) or (isinstance(each, list) and name not in SEQUENCES):
            raise ConfigError(f"{method}: {name} is {each!r}; give one value, or a list of them")
    return several


def _told(value: Any) -> str:
    return " ".join(f"{each}" for each in value) if isinstance(value, list) else f"{value}"


def _check_title(method: str, title: Any, lists: Sequence[str]) -> None:
    """ConfigError for a title that cannot name one merge in tables and directories."""
    if lists or not isinstance(title, str) or not title.strip():
        raise ConfigError(f"{method}: title is {title!r}; it is the name of one merge, so give a text, and no list of values beside it")
    if not title.isprintable() or len(title) > MAX_TITLE or ON_THE_WAY in title:
        raise ConfigError(
            f"{method}: title is {title[:MAX_TITLE]!r}; give one line of up to {MAX_TITLE} characters, without {ON_THE_WAY.strip()!r}, "
            "which names the merges at milestones"
        )
