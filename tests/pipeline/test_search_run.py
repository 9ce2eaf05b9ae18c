"""Searches from start to end in this process: two tiny models, real merges, real questions."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from search_models import Vowels, suite_of, two_models

from evaluators.evaluate import evaluate
from evaluators.scores import task_score
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError, MergelineError
from mergers.checkpoints.checkpoint import read_checkpoint
from mergers.engine.execute import execute
from mergers.plan import plan_merge
from mergers.sources.source import Source
from pipeline.search.answers import FOLDER, read_answers, write_answers
from pipeline.search.checks import check_sources
from pipeline.search.goal import pick
from pipeline.search.points import merger_at
from pipeline.search.records import NAME
from pipeline.search.run import search
from pipeline.search.setting import setting_of
from pipeline.search.spec import Algorithm, Axis, Goal, SearchSpec, Trial
from pipeline.search.trainable import TrialActor, carried
from tasks.task import Example

SAMPLES = 6
ALPHA = Axis("alpha", 0.0, 1.0)
GRID = SearchSpec("wise_ft", (ALPHA,), points=5, samples=SAMPLES)
SUITE = suite_of()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return two_models(tmp_path_factory.mktemp("models"))


def run(spec: SearchSpec, models: dict[str, Path], scratch: Path, suite: Suite = SUITE, **options: Any) -> list[Trial]:
    base = options.pop("base", None)
    return search(spec, models, base, suite, "vowels/cell", scratch, workers=0, batch_size=4, **options)


def timeless(trials: list[Trial]) -> list[Trial]:
    return [replace(trial, seconds=0) for trial in trials]


def test_a_grid_gives_what_evaluating_written_merges_gives(models, tmp_path) -> None:
    trials = run(GRID, models, tmp_path / "scratch")
    asked = replace(SUITE, samples=SAMPLES)
    for place, trial in (("tuned", trials[0]), ("previous", trials[-1])):
        assert trial.scores == evaluate(models[place], asked, tmp_path / "evaluation", 4), "alpha 0 and 1 are the sources themselves"
    sources = [Source(name, read_checkpoint(path)) for name, path in models.items()]
    execute(plan_merge(merger_at(GRID, trials[2].point), sources, tmp_path / "merged"))
    assert trials[2].scores == evaluate(tmp_path / "merged", asked, tmp_path / "evaluation", 4)
    assert [trial.point for trial in trials] == [{"alpha": alpha} for alpha in (0, 0.25, 0.5, 0.75, 1)]
    assert [trial.number for trial in trials] == list(range(5))
    assert all(trial.samples == SAMPLES and not trial.stopped and trial.stderr > 0 for trial in trials)
    assert len({trial.value for trial in trials}) == 5
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == [FOLDER, NAME], "nothing else is written"
    assert write_answers(tmp_path / "scratch", trials, tmp_path / "all") == 5
    for number, answers in read_answers(tmp_path / "all").items():
        for task, scores in answers.scores.items():
            assert task_score(list(scores)) == trials[number].scores[task], "what each sample scored makes up the trial's score"


class Killed(Exception):
    pass


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_search_that_was_killed_goes_on(models, tmp_path, algorithm) -> None:
    spec = replace(GRID, algorithm=algorithm, trials=5)
    whole = run(spec, models, tmp_path / "whole")
    first: list[int] = []

    def die(trial: Trial) -> None:
        first.append(trial.number)
        if len(first) == 2:
            raise Killed

    with pytest.raises(Killed):
        run(spec, models, tmp_path / "killed", on_trial=die)
    with open(tmp_path / "killed" / NAME, "a") as file:
        file.write('{"trial": {"num')
    then: list[int] = []
    heard: list[tuple[float, float]] = []
    trials = run(
        spec,
        models,
        tmp_path / "killed",
        on_trial=lambda trial: then.append(trial.number),
        on_progress=lambda done, total, note: heard.append((done, total)),
    )
    assert (first, then) == ([0, 1], [2, 3, 4])
    assert heard == [(2, 5), (3, 5), (4, 5), (5, 5)]
    assert timeless(trials) == timeless(whole)
    assert run(spec, models, tmp_path / "killed", on_trial=die) == trials, "a complete search runs nothing"


def test_halving_stops_the_worse_and_leaves_the_scores_of_the_others(models, tmp_path) -> None:
    spec = replace(GRID, points=9, samples=8, halving=True)
    whole = run(replace(spec, halving=False), models, tmp_path / "whole")
    trials = run(spec, models, tmp_path / "halved")
    stopped = [trial for trial in trials if trial.stopped]
    assert 0 < len(stopped) < 9
    assert {trial.samples for trial in stopped} <= {2, 4}
    assert all(trial == other for trial, other in zip(timeless(trials), timeless(whole), strict=True) if not trial.stopped)
    assert not pick(trials).stopped
    lines = (tmp_path / "halved" / NAME).read_text().splitlines(keepends=True)
    shutil.copytree(tmp_path / "halved", tmp_path / "cut")
    (tmp_path / "cut" / NAME).write_text("".join(lines[:5]))
    assert timeless(run(spec, models, tmp_path / "cut")) == timeless(trials), "what was decided before counts after"


def test_several_methods_with_and_without_a_base(models, tmp_path) -> None:
    """A method's merge does not depend on which was in the model before it."""
    axes = (Axis("method", values=("wise_ft", "task_arithmetic", "slerp")), Axis("alpha", values=(0.5,)), Axis("scale", values=(0.5, 2.0)))
    spec = SearchSpec("wise_ft", axes, samples=SAMPLES, fixed=(("normalize", True),))
    base = tmp_path / "base"
    two_models(tmp_path / "others")
    shutil.move(tmp_path / "others" / "tuned", base)
    shutil.copy(models["previous"] / "config.json", base)
    trials = run(spec, models, tmp_path / "scratch", base=base)
    assert [dict(trial.point) for trial in trials] == [
        {"method": "wise_ft", "alpha": 0.5},
        {"method": "task_arithmetic", "scale": 0.5},
        {"method": "task_arithmetic", "scale": 2.0},
        {"method": "slerp"},
    ]
    asked = replace(SUITE, samples=SAMPLES)
    sources = [Source(name, read_checkpoint(path)) for name, path in models.items()]
    for trial in trials:
        merger = merger_at(spec, trial.point)
        anchor = Source("base", read_checkpoint(base)) if trial.point["method"] == "task_arithmetic" else None
        execute(plan_merge(merger, sources, tmp_path / "merged", base=anchor, replace=True))
        assert trial.scores == evaluate(tmp_path / "merged", asked, tmp_path / "evaluation", 4), trial.point


@dataclass(frozen=True)
class Failing(Vowels):
    """A task whose scoring fails."""

    version: ClassVar[int] = 1
    bug: bool = False

    def score(self, response: str, example: Example) -> float:
        if self.bug:
            raise ZeroDivisionError("a bug")
        raise InputError("the answers are lost")


def test_an_error_names_its_trial(models, tmp_path) -> None:
    spec = replace(GRID, axes=(Axis("alpha", values=(0.25,)),))
    with pytest.raises(InputError, match=r"search: trial 0 \(alpha=0\.25\): the answers are lost"):
        run(spec, models, tmp_path, replace(SUITE, held_out=(Failing("name"),)))
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        run(spec, models, tmp_path / "other", replace(SUITE, held_out=(Failing("name", bug=True),)))
    assert caught.value.__notes__ == ["search: in trial 0 (alpha=0.25)"]
    assert len((tmp_path / NAME).read_text().splitlines()) == 1, "a trial that failed has not ended"


def test_an_actor_goes_from_trial_to_trial_and_hands_on_errors(models, tmp_path, monkeypatch) -> None:
    """The class that Tune runs, driven by hand."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))  # where it would make a directory for itself
    spec = replace(GRID, halving=True)
    setting = setting_of(spec, models, None, SUITE, None, 1, 2)

    class Bound(TrialActor):
        def setup(self, config: dict[str, Any]) -> None:
            super().setup(config, setting)

    actor = Bound({"number": 3, "point": '{"alpha": 0.75}'})
    results = [actor.train() for _ in range(3)]
    assert [(result["quarters"], result["done"]) for result in results] == [(1, False), (2, False), (4, True)]
    assert [result["ended"].course for result in results] == [tuple(each["value"] for each in results[: end + 1]) for end in range(3)]
    loaded = actor.trials.questions
    for alpha in (0.75, 0.1, 0.75):
        assert actor.reset_config({"number": 4, "point": json.dumps({"alpha": alpha})})
        again = [actor.step()["value"] for _ in range(3)]
        assert (again == [result["value"] for result in results]) == (alpha == 0.75)
    assert actor.trials.questions is loaded, "nothing is loaded twice"
    actor.reset_config({"number": 5, "point": '{"alpha": 2.0}'})
    failed = actor.step()
    assert failed["done"]
    assert "search: at alpha=2: alpha is 2.0" in str(failed["failure"])


class Unsendable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__("one text")


def test_errors_reach_the_driver_with_their_traceback() -> None:
    def told(error: Exception) -> Exception:
        try:
            raise error
        except Exception as raised:
            return carried(raised)

    known = told(InputError("lost"))
    assert isinstance(known, InputError)
    assert not hasattr(known, "__notes__"), "a message for the user needs no traceback"
    bug = told(ZeroDivisionError("a bug"))
    assert isinstance(bug, ZeroDivisionError)
    assert "in told" in bug.__notes__[0]
    other = told(Unsendable(1, 2))
    assert type(other) is RuntimeError
    assert "Unsendable: one text" in str(other)


def test_refused_before_a_model_is_loaded(models, tmp_path, monkeypatch) -> None:
    def refused(error: type[MergelineError], message: str, **changes: Any) -> None:
        arguments = {"spec": GRID, "models": models, "scratch": tmp_path, **changes}
        with pytest.raises(error, match=message):
            run(**arguments)
        assert not (tmp_path / NAME).exists()

    monkeypatch.setattr("pipeline.search.trials.Trials.load", None)
    refused(ConfigError, "alpha is 1.5", spec=replace(GRID, axes=(Axis("alpha", 0.0, 1.5),)))
    refused(ConfigError, "held_out needs held-out tasks", spec=replace(GRID, goal=Goal.HELD_OUT), suite=replace(SUITE, held_out=()))
    refused(ConfigError, "the glob .* matches none of 80 tensors", spec=replace(GRID, axes=(Axis("alpha[*.lyers.0.*]", 0.0, 1.0),)))
    refused(InputError, "nothing is not a directory", models={**models, "tuned": tmp_path / "nothing"})
    refused(ConfigError, "threads is 0", threads=0)
    with pytest.raises(ConfigError, match="workers is -1"):
        search(GRID, models, None, SUITE, None, tmp_path, workers=-1)


def test_another_search_in_the_same_place_is_refused(models, tmp_path) -> None:
    run(replace(GRID, points=1), models, tmp_path)
    with pytest.raises(InputError, match="holds the trials of another search"):
        run(replace(GRID, points=2), models, tmp_path)


def test_layers_apart(models, tmp_path) -> None:
    """Alphas of 0 and 1 for all tensors, in three globs, are the sources themselves again."""
    axes = (Axis("alpha[*language_model.model.layers.0.*]", values=(0.0, 1.0)), Axis("alpha[*vision_tower*]", values=(0.0, 1.0)))
    spec = SearchSpec("wise_ft", (*axes, Axis("alpha", values=(0.0, 1.0))), samples=SAMPLES)
    trials = run(spec, models, tmp_path)
    assert len(trials) == len({trial.value for trial in trials}) == 8
    asked = replace(SUITE, samples=SAMPLES)
    assert trials[0].scores == evaluate(models["tuned"], asked, tmp_path / "evaluation", 4)
    assert trials[7].scores == evaluate(models["previous"], asked, tmp_path / "evaluation", 4)


def test_headers_are_enough_to_refuse_sources_that_do_not_fit(models, tmp_path) -> None:
    shutil.copytree(models["tuned"], tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["model_type"] = "llama"
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(MergelineError, match="llama"):
        check_sources(GRID, {**models, "tuned": tmp_path / "other"}, None)
