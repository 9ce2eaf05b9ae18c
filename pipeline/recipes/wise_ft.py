"""`wise_ft`: after every stage, average the fine-tuned model with the one before it, and go on from the average.

Sequential WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1, applied between stages):

    merged_0 = base
    tuned_i  = fine-tune(merged_{i-1}, task_i)
    merged_i = alpha * merged_{i-1} + (1 - alpha) * tuned_i

`alpha` is the weight of the previous stage's model. (The paper's alpha is the fine-tuned model's weight.) With `search` it is chosen after
every stage, on validation questions of the tasks learned so far and the held-out ones; what is learned later is not asked. With `adaptive`
it follows from the weights alone. `merge` names another method for the stages' merges, whose parameters may be searched too.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers.methods.linear import WiseFT as WiseFTMerger
from pipeline.config.kinds import Fraction
from pipeline.config.search_settings import AdaptiveAlpha, AlphaSearch
from pipeline.config.settings import Stream
from pipeline.config.stage_merge import StageMerge, is_searched
from pipeline.recipes.base import FILES, ask, learn, starting_model, validation_suite, within
from pipeline.recipes.milestone import Milestone, Role
from pipeline.search.checks import check_search
from pipeline.search.goal import shares_of
from pipeline.search.points import STAGE
from pipeline.search.spec import SearchSpec
from pipeline.step import Step
from pipeline.steps import Fisher, Merge, MergeAdaptive, MergePicked, Search
from tasks.mixture import MixedTask
from tasks.registry import TASKS
from tasks.task import Split


class WiseFT(Stream):
    """The keys of a WiSE-FT experiment: those of a stream, `alpha` or its `search`, and the stages' merge where it is another."""

    alpha: Fraction = 0.5
    search: AlphaSearch | None = None
    adaptive: AdaptiveAlpha | None = None
    merge: StageMerge = StageMerge()

    @model_validator(mode="before")
    @classmethod
    def _searched(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        alpha = value.get("alpha")
        if isinstance(alpha, dict) and list(alpha) in (["search"], ["adaptive"]):
            ((way, settings),) = alpha.items()
            if value.get(way) is not None:
                raise ValueError(f"alpha is told twice, by alpha: {{{way}: …}} and by {way}; keep one of the two")
            value = {**{key: each for key, each in value.items() if key != "alpha"}, way: settings}
        merge = value.get("merge")
        if isinstance(merge, dict) and value.get("search") is None and searches(merge):
            value = {**value, "search": {}}
        return value

    @model_validator(mode="after")
    def _one_way(self) -> "WiseFT":
        if self.search is not None and self.adaptive is not None:
            raise ValueError("search and adaptive both choose alpha; keep one of the two")
        if self.merge.plain:
            return self
        if "alpha" in self.model_fields_set:
            raise ValueError("alpha stands beside the method or parameters of merge; give it there, as merge: {alpha: …}")
        if self.adaptive is not None:
            raise ValueError("adaptive chooses the alpha of wise_ft, and merge names a method or parameters; keep one of the two")
        if self.search is not None and not self.merge.searched:
            raise ValueError(
                "search has nothing to search: merge gives every value; write e.g. merge: {density: {search: {low: 0.1, high: 0.9}}}"
            )
        if self.search is not None and self.search.own:
            raise ValueError(f"search: {self.search.own[0]} says what is tried of alpha, and merge says what is tried; give it there")
        return self

    @model_validator(mode="after")
    def _measurable(self) -> "WiseFT":
        known = [*self.data, *TASKS]
        for name in self.merge.statistics.previous:
            if name not in known:
                raise ValueError(f"merge: statistics.previous: {unknown('task', name, known)}")
            if name in self.tasks:
                raise ValueError(f"merge: statistics.previous names {name!r}, which is learned on the way; name what the first model knows")
        if self.merge.measured and not (self.merge.statistics.previous or self.held_out):
            told = "fisher has nothing to measure the first model on; name tasks that it knows, as statistics: {previous: […]}"
            raise ValueError(f"merge: {told}")
        return self

    @model_validator(mode="after")
    def _searchable(self) -> "WiseFT":
        try:
            if self.search is not None:
                check_search(self.search_spec(), STAGE, self.merge.based, STAGE if self.merge.measured else ())
        except ConfigError as error:
            told = str(error)
            raise ValueError(told if self.merge.plain else f"merge: {told.removeprefix('search: ')}") from error
        return self

    @model_validator(mode="after")
    def _mergeable(self) -> "WiseFT":
        if self.strategy.name == "routing":
            raise ValueError(
                "strategy routing keeps what it learns beside the model, where a merge would lose it; "
                "use recipe: sequential with it, or another strategy here"
            )
        return self

    def search_spec(self) -> SearchSpec:
        """What is searched after every stage."""
        assert self.search is not None
        if self.merge.plain:
            return self.search.spec(self.seed)
        return self.search.over(self.merge.methods[0], self.merge.axes(), self.merge.fixed(), self.seed)


def searches(merge: Mapping[str, Any]) -> bool:
    """Whether the keys of a merge, as they are written, search anything."""
    below = merge.get("parameters")
    return any(map(is_searched, (*merge.values(), *(below.values() if isinstance(below, dict) else ()))))


def wise_ft(c: WiseFT, store: Path) -> Iterator[Milestone]:
    """The base is asked first; every stage is asked before and after its merge."""
    models = [starting_model(c.base, c.seed, store)]
    suite = c.suite(store / FILES)
    yield Milestone(ask(models[0], c, suite), 0, Role.BASE, seed=c.seed)
    weights = merge_words(c)
    for stage, task in enumerate(c.tasks, start=1):
        tuned = learn(c, models, store)
        yield from within(tuned, c, stage, suite)
        yield Milestone(ask(tuned, c, suite), stage, Role.BEFORE, task, seed=c.seed, weights=weights)
        sources = {"previous": models[-1], "tuned": tuned}
        search = searched(c, sources, models[0], stage, store) if c.search else None
        models.append(merged(c, sources, models[0], stage, search, store))
        yield Milestone(ask(models[-1], c, suite), stage, Role.AFTER, task, seed=c.seed, weights=weights, search=search)


def merged(c: WiseFT, sources: Mapping[str, Step], start: Step, stage: int, search: Search | None, store: Path) -> Step:
    """The merge of a stage: as it is given, as a search picks, or with the alpha that follows from the weights."""
    actors = c.merge.actors
    if search is not None:
        return MergePicked(search, search.spec, sources, search.base, search.statistics, actors=actors)
    if not c.merge.plain:
        return Merge(c.merge.merger(), sources, base_of(c, sources, start), measured(c, sources, stage, store), actors=actors)
    if c.adaptive is None:
        return Merge(WiseFTMerger(c.alpha), sources, actors=actors)
    if stage == 1:
        return Merge(WiseFTMerger(c.adaptive.first), sources, actors=actors)
    return MergeAdaptive(sources, start, c.adaptive.rule, stage - 1, c.adaptive.blocks, actors=actors)


def base_of(c: WiseFT, sources: Mapping[str, Step], start: Step) -> Step | None:
    """What methods that measure from a base do so from; None where there is none such."""
    if not c.merge.based:
        return None
    return sources["previous"] if c.merge.base == "previous" else start


def measured(c: WiseFT, sources: Mapping[str, Step], stage: int, store: Path) -> dict[str, Step]:
    """What methods that read Fisher information read of each source: the previous model's on all it has learned, the tuned one's on the
    task just learned. Empty where there is no such method."""
    if not c.merge.measured:
        return {}
    known = dict.fromkeys([*(c.merge.statistics.previous or c.held_out), *c.tasks[: stage - 1]])
    spec, samples, gpus = c.train.spec(c.seed), c.merge.statistics.examples, min(c.train.gpus, 1)

    def fisher(name: str, tasks: Iterable[str]) -> Fisher:
        of = tuple(c.task(task, Split.TRAIN, store / FILES) for task in tasks)
        task = of[0] if len(of) == 1 else MixedTask(of)
        return Fisher(sources[name], task, spec.parts, samples, c.seed, spec.threads, gpus=gpus)

    return {"previous": fisher("previous", known), "tuned": fisher("tuned", c.tasks[stage - 1 : stage])}


def merge_words(c: WiseFT) -> str:
    """What the two models count for, in words."""
    if c.search is not None:
        spec = c.search_spec()
        method = "" if spec.method == "wise_ft" else f"{' or '.join(c.merge.methods)}: "
        return f"{method}{', '.join(axis.name for axis in spec.axes)} searched on validation"
    if not c.merge.plain:
        return f"{c.merge.methods[0]} {' '.join(f'{name} {value}' for name, value in c.merge.parameters.items())}".strip()
    if c.adaptive is not None:
        return f"alpha from the weights ({c.adaptive.rule.replace('_', ' ')})"
    return f"{c.alpha:g} x previous + {1 - c.alpha:g} x tuned"


def searched(c: WiseFT, sources: Mapping[str, Step], start: Step, stage: int, store: Path) -> Search:
    """The search of a stage, by what may be known at that stage. ConfigError for a goal that no task yields."""
    assert c.search is not None
    suite = validation_suite(c, c.tasks[:stage], c.search.samples, store)
    spec, new = c.search_spec(), c.tasks[stage - 1]
    shares_of(spec, suite, new)
    return Search(
        spec,
        sources,
        suite,
        new,
        base_of(c, sources, start),
        measured(c, sources, stage, store),
        batch_size=c.evaluate.batch_size,
        threads=c.evaluate.threads,
        workers=c.search.workers,
        gpus=c.search.gpus,
    )
