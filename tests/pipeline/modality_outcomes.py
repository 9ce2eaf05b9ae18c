"""A modality-merging experiment made by hand: references, two sweeps, a merge without an axis, and experts on the way."""

from evaluators.scores import TaskScore
from pipeline.report.modality import RECALLS, Outcome

SET = "captions"
EXACT = 1e-12  # a few float64 roundings of sums of numbers below one
SOME = TaskScore(0.5, 0.1, 9)
STEPS = {0: 25, 1: 50}


def scores(mean: float) -> dict[str, TaskScore]:
    """A set whose recalls lie around their mean."""
    around = zip(RECALLS, (-0.2, 0.1, 0.1, -0.2, 0.1, 0.1), strict=True)
    return {SET: TaskScore(mean, 0.02, 100), **{f"{SET}/{name}": TaskScore(mean + more, 0.03, 100) for name, more in around}}


def outcome(arm: str, seed: int, merged: float, tuned: float | None = None, **more: object) -> Outcome:
    """Of the arm called "FAMILY VALUE" or "FAMILY"."""
    family, _, value = arm.rpartition(" ")
    named = {"family": family, "value": float(value)} if value.replace(".", "").isdigit() else {"family": arm, "value": None}
    held = {"distances": {}, "steps": 60, **named, **more}
    return Outcome(arm=arm, seed=seed, merged=scores(merged), tuned=None if tuned is None else scores(tuned), **held)  # type: ignore[arg-type]


def experiment(seeds: tuple[int, ...] = (0, 1, 2)) -> list[Outcome]:
    """References, two sweeps, a merge without an axis; experts on the way. A seed raises all scores alike, but for one merge."""
    made = []
    for seed in seeds:
        up = 0.02 * seed
        far = {"l2": 9.0 + 0.1 * seed, "cosine": 0.9 - 0.001 * seed}
        made += [outcome("unmerged", seed, 0.70 + up, 0.74 + up), outcome("seed only", seed, 0.50 + up, 0.60 + up)]
        for value, score in ((0.25, 0.55), (0.5, 0.60), (0.75, 0.56)):
            made.append(outcome(f"interpolation {value}", seed, score + up, 0.72 + up, distances=far))
        for value, score in ((0.0, 0.58), (1.0, 0.64)):
            made.append(outcome(f"regmean {value:g}", seed, score + up * (1 + value), 0.71 + up, distances=far))
        made.append(outcome("ties", seed, 0.59 + up, 0.72 + up, distances=far))
        for place, step in STEPS.items():
            whole, lost = 0.58 + 0.06 * place + up, 0.02 + 0.03 * place
            near = {"l2": 3.0 + 3 * place, "cosine": 0.99 - 0.03 * place}
            names = {"value": float(step), "family": "unmerged on the way"}
            made.append(outcome(f"unmerged, step {step}", seed, whole, **names))
            names["family"] = "interpolation on the way"
            made.append(outcome(f"interpolation 0.5, step {step}", seed, whole - lost, distances=near, **names))
    return made


def cells(grid: object) -> dict[str, dict[str, str]]:
    """Row name -> column -> cell."""
    return {row[0]: dict(zip(grid.columns, row, strict=True)) for row in grid.rows}  # type: ignore[attr-defined]
