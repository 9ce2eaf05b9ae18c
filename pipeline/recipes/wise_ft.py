"""`wise_ft`: after every stage, average the fine-tuned model with the one before it, and go on from the average.

Sequential WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1, applied between stages):

    merged_0 = base
    tuned_i  = fine-tune(merged_{i-1}, task_i)
    merged_i = alpha * merged_{i-1} + (1 - alpha) * tuned_i

`alpha` is the weight of the previous stage's model. (The paper's alpha is the fine-tuned model's weight.) With `search` it is chosen after
every stage, on validation questions of the tasks learned so far and the held-out ones; what is learned later is not asked. With `adaptive`
it follows from the weights alone.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from mergers.methods.linear import WiseFT as WiseFTMerger
from pipeline.config.kinds import Fraction
from pipeline.config.search_settings import AdaptiveAlpha, AlphaSearch
from pipeline.config.settings import MergeWork, Stream
from pipeline.recipes.base import FILES, ask, learn, starting_model, validation_suite, within
from pipeline.recipes.milestone import Milestone, Role
from pipeline.step import Step
from pipeline.steps import Merge, MergeAdaptive, MergePicked, Search


class WiseFT(Stream):
    """The keys of a WiSE-FT experiment: those of a stream, `alpha` or its `search`, and how merges are spread."""

    alpha: Fraction = 0.5
    search: AlphaSearch | None = None
    adaptive: AdaptiveAlpha | None = None
    merge: MergeWork = MergeWork()

    @model_validator(mode="before")
    @classmethod
    def _searched_alpha(cls, value: Any) -> Any:
        alpha = value.get("alpha") if isinstance(value, dict) else None
        if not isinstance(alpha, dict) or list(alpha) not in (["search"], ["adaptive"]):
            return value
        ((way, settings),) = alpha.items()
        if value.get(way) is not None:
            raise ValueError(f"alpha is told twice, by alpha: {{{way}: …}} and by {way}; keep one of the two")
        return {**{key: each for key, each in value.items() if key != "alpha"}, way: settings}

    @model_validator(mode="after")
    def _one_way(self) -> "WiseFT":
        if self.search is not None and self.adaptive is not None:
            raise ValueError("search and adaptive both choose alpha; keep one of the two")
        return self

    @model_validator(mode="after")
    def _mergeable(self) -> "WiseFT":
        if self.strategy.name == "routing":
            raise ValueError(
                "strategy routing keeps what it learns beside the model, where a merge would lose it; "
                "use recipe: sequential with it, or another strategy here"
            )
        return self


def wise_ft(c: WiseFT, store: Path) -> Iterator[Milestone]:
    """The base is asked first; every stage is asked before and after its merge."""
    models = [starting_model(c.base, c.seed, store)]
    suite = c.suite(store / FILES)
    yield Milestone(ask(models[0], c, suite), 0, Role.BASE, seed=c.seed)
    weights = alpha_words(c)
    for stage, task in enumerate(c.tasks, start=1):
        tuned = learn(c, models, store)
        yield from within(tuned, c, stage, suite)
        yield Milestone(ask(tuned, c, suite), stage, Role.BEFORE, task, seed=c.seed, weights=weights)
        sources = {"previous": models[-1], "tuned": tuned}
        search = searched(c, sources, stage, store) if c.search else None
        models.append(merged(c, sources, models[0], stage, search))
        yield Milestone(ask(models[-1], c, suite), stage, Role.AFTER, task, seed=c.seed, weights=weights, search=search)


def merged(c: WiseFT, sources: Mapping[str, Step], base: Step, stage: int, search: Search | None) -> Step:
    """The merge of a stage: with the alpha that is given, that a search picks, or that follows from the weights."""
    actors = c.merge.actors
    if search is not None:
        return MergePicked(search, search.spec, sources, actors=actors)
    if c.adaptive is None:
        return Merge(WiseFTMerger(c.alpha), sources, actors=actors)
    if stage == 1:
        return Merge(WiseFTMerger(c.adaptive.first), sources, actors=actors)
    return MergeAdaptive(sources, base, c.adaptive.rule, stage - 1, c.adaptive.blocks, actors=actors)


def alpha_words(c: WiseFT) -> str:
    """What the two models count for, in words."""
    if c.search is not None:
        return "alpha searched on validation"
    if c.adaptive is not None:
        return f"alpha from the weights ({c.adaptive.rule.replace('_', ' ')})"
    return f"{c.alpha:g} x previous + {1 - c.alpha:g} x tuned"


def searched(c: WiseFT, sources: Mapping[str, Step], stage: int, store: Path) -> Search:
    """The search for a stage's alpha, by what may be known at that stage."""
    assert c.search is not None
    suite = validation_suite(c, c.tasks[:stage], c.search.samples, store)
    return Search(
        c.search.spec(c.seed),
        sources,
        suite,
        c.tasks[stage - 1],
        batch_size=c.evaluate.batch_size,
        threads=c.evaluate.threads,
        workers=c.search.workers,
        gpus=c.search.gpus,
    )
