"""Searches on Ray Tune: the same trials as in this process for any number of workers, whatever dies, and no word from Tune."""

import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import search_models
from ray import cloudpickle
from search_models import Vowels, suite_of, two_models

from evaluators.suite import Suite
from foundation.errors import ResourceError
from pipeline.search import feeding
from pipeline.search.answers import FOLDER, read_answers, write_answers
from pipeline.search.goal import pick
from pipeline.search.records import NAME, Records, identity_of
from pipeline.search.run import search
from pipeline.search.setting import setting_of
from pipeline.search.spec import Axis, SearchSpec, Trial
from pipeline.search.tuning import bound_to
from tasks.task import Example

cloudpickle.register_pickle_by_value(search_models)  # the workers do not have this directory on their path
cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

GRID = SearchSpec("wise_ft", (Axis("alpha", 0.0, 1.0),), points=5, samples=6)


@dataclass(frozen=True)
class Deadly(Vowels):
    """Kills the process that scores it as often as there are files in its directory: each is one death of one worker."""

    file: str = ""
    version: ClassVar[int] = 1

    def score(self, response: str, example: Example) -> float:
        for life in Path(self.file).glob("*"):
            with suppress(FileNotFoundError):  # another worker took it
                life.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().score(response, example)


def suite(file: Path, lives: int) -> Suite:
    shutil.rmtree(file, ignore_errors=True)
    file.mkdir()
    for life in range(lives):
        (file / str(life)).touch()
    return replace(suite_of(), held_out=(Deadly("name", str(file)),))


def timeless(trials: list[Trial]) -> list[Trial]:
    return [replace(trial, seconds=0) for trial in trials]


def test_two_workers_of_which_one_dies(ray_cluster: None, tmp_path: Path, capfd: Any) -> None:
    models = two_models(tmp_path)
    capfd.readouterr()
    expected = search(GRID, models, None, suite(tmp_path / "lives", 0), None, tmp_path / "here", workers=0)
    heard: list[int] = []
    options: dict[str, Any] = {"workers": 2, "on_trial": lambda trial: heard.append(trial.number)}
    trials = search(GRID, models, None, suite(tmp_path / "lives", 1), None, tmp_path / "there", **options)
    assert timeless(trials) == timeless(expected)
    assert sorted(heard) == list(range(5))
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [FOLDER, NAME]
    printed = "".join(capfd.readouterr())
    others = ("Loading weights", "(raylet)")  # transformers' bar, and what Ray says of the worker that died
    assert [line for line in printed.splitlines() if line.strip() and not any(other in line for other in others)] == []


def test_failures_end_the_search_and_it_goes_on(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = two_models(tmp_path)
    spec = replace(GRID, halving=True)

    def run(lives: int, **options: Any) -> list[Trial]:
        return search(spec, models, None, suite(tmp_path / "lives", lives), None, tmp_path / "scratch", **options)

    def stop(trial: Trial) -> None:
        if trial.number == 1:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        run(0, on_trial=stop)
    monkeypatch.setattr(feeding, "RESTARTS", 0)
    with pytest.raises(ResourceError, match=r"the worker of trial 2 \(alpha=0\.5\) died 1 times; free memory.*the last one said: "):
        run(1)
    then: list[int] = []
    trials = run(0, on_trial=lambda trial: then.append(trial.number))
    assert then == [2, 3, 4]
    expected = search(spec, models, None, suite(tmp_path / "lives", 0), None, tmp_path / "here", workers=0)
    assert timeless(trials) == timeless(expected), "one worker, so halving decides the same"
    assert any(trial.stopped for trial in trials)


def test_two_searches_at_one_time_keep_to_their_own_models(ray_cluster: None, tmp_path: Path) -> None:
    """As the searches of two seeds do, which run in one job; and what binds an actor to its search has a name of its own each time."""
    import ray

    models = two_models(tmp_path)
    swapped = {"previous": models["tuned"], "tuned": models["previous"]}
    asked = suite(tmp_path / "lives", 0)

    @ray.remote(num_cpus=0)
    def run(sources: dict[str, Path], place: Path) -> list[Trial]:
        return search(GRID, sources, None, asked, None, place, workers=1)

    found = ray.get([run.remote(each, tmp_path / name) for each, name in ((models, "one"), (swapped, "other"))])
    for each, sources, name in ((found[0], models, "a"), (found[1], swapped, "b")):
        assert timeless(each) == timeless(search(GRID, sources, None, asked, None, tmp_path / name, workers=0))
    assert bound_to(None).__name__ != bound_to(None).__name__  # type: ignore[arg-type]


def test_halving_with_two_workers(ray_cluster: None, tmp_path: Path) -> None:
    """Who is stopped depends on who comes first, so it is checked against the rule, not against a list."""
    models = two_models(tmp_path)
    spec, asked = replace(GRID, points=12, samples=8), suite(tmp_path / "lives", 0)
    alone = search(spec, models, None, asked, None, tmp_path / "alone", workers=0, batch_size=2)
    options: dict[str, Any] = {"workers": 2, "batch_size": 2}
    halved = replace(spec, halving=True)
    trials = search(halved, models, None, asked, None, tmp_path / "halved", **options)
    stopped = [trial for trial in trials if trial.stopped]
    kept = [trial for trial in trials if not trial.stopped]
    assert [trial.point for trial in trials] == [trial.point for trial in alone]
    assert stopped, "of twelve trials some fall behind"
    assert {trial.samples for trial in stopped} <= {2, 4}
    assert timeless(kept) == timeless([trial for trial in alone if trial.number in {each.number for each in kept}])
    assert all(trial.samples == 8 for trial in kept)
    best = pick(trials)
    assert not best.stopped
    assert best.value == max(trial.value for trial in kept)
    courses = [ended.course for ended in Records(tmp_path / "halved", identity(halved, models, asked)).read().values()]
    for part in (0, 1):
        gone = [course[part] for course in courses if len(course) == part + 1]
        went = [course[part] for course in courses if len(course) > part + 1]
        assert max(gone, default=0.0) <= max(went), "the best of those that came as far goes on"
    again = search(halved, models, None, asked, None, tmp_path / "halved", **options, on_trial=lambda trial: pytest.fail("asked again"))
    assert again == trials
    found = write_answers(tmp_path / "halved", trials, tmp_path / "all")
    assert found == 12
    assert {number: len(answers) for number, answers in read_answers(tmp_path / "all").items()} == {
        trial.number: 3 * trial.samples for trial in trials
    }


def identity(spec: SearchSpec, models: dict[str, Path], asked: Suite) -> str:
    return identity_of(setting_of(spec, models, None, asked, None, 1, 2))
