"""Versions of a registered model as their tags tell them, and what follows from them: which is the latest, which the best.

Only scores on validation data say which is best. Nothing is ever chosen on test data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pipeline.lineage import score_of
from pipeline.recipes.milestone import Milestone
from pipeline.step import canonical
from pipeline.store import Store
from tasks.task import Split

LATEST, BEST = "latest-merged", "best"
ENDED_TAG, SCORES_TAG = "mergeline.ended", "mergeline.validation"
LONGEST_TEXT = 5000
"""Characters that MLflow's registry has room for in a description."""

MANY = 12
"""Tasks that are named one by one."""

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Score:
    """A score on validation data. `basis`: a digest of what was asked; scores of one basis may be compared. `asked`: a model as it is."""

    value: float
    basis: str
    told: str
    asked: bool


@dataclass(frozen=True)
class Version:
    """A version as its tags tell it."""

    number: int
    tags: Tags

    @property
    def scores(self) -> list[Score]:
        """Its scores on validation data."""
        return [Score(**told) for told in json.loads(self.tags.get(SCORES_TAG, "[]"))]

    @property
    def ended(self) -> float:
        """When the newest run that ends with it was finished; 0 where none does."""
        return float(self.tags.get(ENDED_TAG, 0))


def found_versions(client: Any, name: str) -> dict[int, Version]:
    """The versions of a registered model by number; none where there is no such model."""
    token = None
    found: dict[int, Version] = {}
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found |= {int(each.version): Version(int(each.version), dict(each.tags)) for each in page}
        token = page.token
        if not token:
            return dict(sorted(found.items()))


def scores_on_validation(milestone: Milestone, store: Store) -> list[Score]:
    """How a model did on validation data, where there is any: asked itself, or in the search that chose its weights. Never test scores."""
    found = []
    suite = milestone.evaluation.suite
    asked = store.by_key(milestone.evaluation.key)
    if asked is not None and suite.split is Split.VALIDATION:
        told = f"mean over {_named(suite.names)}, {_count(suite.samples)} each"
        found.append(Score(score_of(asked), text_digest(canonical(suite, "suite")), told, asked=True))
    search: Any = milestone.search
    chosen = store.by_key(search.key) if search is not None else None
    if chosen is not None and chosen.content["details"].get("split") == Split.VALIDATION.value:
        details = chosen.content["details"]
        names = [*details["stream"], *details["held_out"]]
        basis = [canonical(search.suite, "suite"), details["goal"], details["weight"], details["new"]]
        told = f"of the search that chose its weights, by the goal {details['goal']} over {_named(names)}"
        found.append(Score(chosen.metrics["value"], text_digest(basis), f"{told}, {_count(details['samples'])} each", asked=False))
    return found


def _named(tasks: Sequence[str]) -> str:
    """Tasks by name, or the first of very many."""
    return ", ".join(tasks) if len(tasks) <= MANY else f"{', '.join(tasks[:MANY])} and {len(tasks) - MANY} more"


def _count(samples: int | None) -> str:
    return "all validation samples" if samples is None else f"{samples} validation samples"


def text_digest(value: Any) -> str:
    """A short digest of plain data."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def latest_of(versions: Sequence[Version]) -> Version | None:
    """The last merged checkpoint of the newest finished run; None where no run is finished."""
    return max((each for each in versions if each.ended), key=lambda each: (each.ended, each.number), default=None)


def best_of(versions: Sequence[Version]) -> tuple[Version | None, str]:
    """The version with the highest score on validation data, and the reason in words.

    Only scores of one basis are compared: that of the newest run's last checkpoint, else of the newest version that has one; a model that
    was asked as it is goes before the search that chose it. Ties go to the older version.
    """
    scored = sorted((each for each in versions if each.scores), key=lambda each: (each.ended, each.number))
    if not scored:
        return None, NO_BEST
    basis = max(scored[-1].scores, key=lambda score: (score.asked, score.basis)).basis
    known = [(score, each) for each in versions for score in each.scores if score.basis == basis]
    score, best = max(known, key=lambda pair: (pair[0].value, -pair[1].number))
    told = f"the highest of {len(known)} versions that were measured so" if len(known) > 1 else "the only version that was measured so"
    return best, f"version {best.number}, with {score.value:.4f} on validation data: {told} ({score.told})."


NO_BEST = (
    "not set, because no version has a score on validation data and nothing is chosen on test data. To have it set, let a search choose "
    "the merge's weights (it asks the validation split), or run the experiment once more with `evaluate.split=validation`: models that are "
    "stored are only asked again."
)


def described(name: str, experiment: str, best: str) -> str:
    """The registered model's description."""
    lines = [
        f"Merged checkpoints of the experiment `{experiment}`, a version each. "
        "A version's source is the place of its checkpoint; no weights are copied here.",
        "",
        f"- `{LATEST}`: the last merged checkpoint of the newest finished run.",
        f"- `{BEST}`: {best}",
        "",
        f"Where a version comes from: `python -m pipeline lineage models:/{name}@{LATEST} --tracking <this server>`",
    ]
    return "\n".join(lines)[:LONGEST_TEXT]
