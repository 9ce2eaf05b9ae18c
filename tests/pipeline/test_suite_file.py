"""A suite in a file of its own: under an experiment's keys, and alone; what is refused, with its place."""

from pathlib import Path

import pytest

from foundation.errors import ConfigError
from pipeline.config.experiment import build, read_config
from pipeline.config.suite_file import read_suite
from pipeline.steps import Evaluate
from tasks.task import Split

SUITE = "targets: [parity, count]\nheld_out: [name, where]\nevaluate: {samples: 7, batch_size: 3}\n"
EXPERIMENT = "recipe: wise_ft\nname: asked\nbase: {pretrain: digits_llava}\nsuite: suite.yaml\ntasks: [count, parity]\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    return tmp_path


def test_an_experiment_asks_what_its_suite_says(here: Path) -> None:
    _, config = read_config(Path("experiment.yaml"))
    assert (config.tasks, config.held_out) == (["count", "parity"], ["name", "where"])
    assert (config.evaluate.samples, config.evaluate.batch_size) == (7, 3)
    evaluation = next(step for step in build(Path("experiment.yaml")).steps if isinstance(step, Evaluate))
    assert evaluation.suite.names == ("name", "where", "count", "parity")


def test_the_experiments_own_keys_lie_above(here: Path) -> None:
    (here / "experiment.yaml").write_text(EXPERIMENT + "held_out: [color]\nevaluate: {samples: 9}\n")
    _, config = read_config(Path("experiment.yaml"))
    assert (config.held_out, config.evaluate.samples, config.evaluate.batch_size) == (["color"], 9, 3)


def test_the_run_file_stands_alone(here: Path) -> None:
    resolved = build(Path("experiment.yaml")).resolved
    assert "suite" not in resolved
    assert (resolved["held_out"], resolved["evaluate"]) == (["name", "where"], {"samples": 7, "batch_size": 3})


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        (EXPERIMENT.replace("[count, parity]", "[count, cuont]"), r"experiment.yaml:5: .*'cuont'.*did you mean 'count'.*targets of suite"),
        (EXPERIMENT.replace("[count, parity]", "[read]"), r"experiment.yaml:5: .*'read'.*targets of suite suite.yaml"),
        (EXPERIMENT.replace("suite.yaml", "siute.yaml"), r"experiment.yaml:4: suite: there is no file siute.yaml"),
        (EXPERIMENT.replace("suite: suite.yaml", "suite: 3"), r"experiment.yaml:4: suite names a file"),
    ],
)
def test_what_the_suite_does_not_hold_is_refused(here: Path, experiment: str, said: str) -> None:
    (here / "experiment.yaml").write_text(experiment)
    with pytest.raises(ConfigError, match=said):
        read_config(Path("experiment.yaml"))


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("targets: [parity, naem]\n", r"suite.yaml:1: .*'naem'.*did you mean 'name'"),
        ("targets: [parity]\nheld_out: [parity]\n", r"'parity' more than once"),
        ("evaluate: {samples: 3}\n", "no task"),
        ("targets: [parity]\nhold_out: [name]\n", r"suite.yaml:2: unknown key 'hold_out'; did you mean 'held_out'"),
        ("targets: [parity]\ndata: {parity: {test: x.json}}\n", "there already"),
    ],
)
def test_a_suite_that_cannot_be_asked_is_refused(here: Path, suite: str, said: str) -> None:
    (here / "suite.yaml").write_text(suite)
    with pytest.raises(ConfigError, match=said):
        read_suite(Path("suite.yaml"))


def test_a_suite_alone(here: Path) -> None:
    suite = read_suite(Path("suite.yaml")).suite(only=["where", "parity"])
    assert (suite.names, suite.split, suite.samples) == (("where", "parity"), Split.TEST, 7)


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "suites").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_suites_that_come_with_us_are_valid(file: Path) -> None:
    assert read_suite(file).targets
