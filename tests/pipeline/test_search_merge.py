"""Any parameter of any method, searched at a stage: what the experiment's file may say, what is refused, and that the pick is written as a
merge of its values would be."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from commands import changed
from search_models import suite_of, two_models

from evaluators.evaluate import evaluate
from foundation.errors import ConfigError, InputError, MergelineError
from foundation.files import directory_manifest
from mergers.engine.execute import execute
from mergers.methods.ties import Ties
from mergers.schedule import Schedule
from pipeline.command.search import merge_settings, searching, stage_search
from pipeline.config.experiment import Built, build, read_config
from pipeline.config.merge_request import open_request
from pipeline.config.merge_source import request_from_file
from pipeline.config.stage_merge import StageMerge
from pipeline.recipes.milestone import Role
from pipeline.search.points import merger_at
from pipeline.search.records import read_found
from pipeline.search.run import search as run_search
from pipeline.search.spec import Axis, SearchSpec
from pipeline.step import Outcome, Step
from pipeline.steps import Merge, MergePicked, Search
from pipeline.steps.learning import FISHER_FILE
from tasks.registry import get_task
from trainers.fisher.measure import fisher

PARTS = ("mm_mlp_adapter", "mm_language_model")
TIES = "merge: {method: ties, density: {search: {low: 0.1, high: 0.9}}, scale: {search: [0.5, 1.0]}, normalize: true}"


def written(place: Path, text: str) -> Path:
    path = place / "small.yaml"
    path.write_text(changed("alpha: 0.5", text))
    return path


def built(place: Path, text: str) -> Built:
    return build(written(place, text), [f"workspace={place}"])


def merges(found: Built) -> list[Any]:
    return [each.model for each in found.milestones if each.role is Role.AFTER]


def test_every_stage_searches_what_its_merge_says(tmp_path: Path) -> None:
    found = built(tmp_path, f"{TIES}\nsearch: {{points: 3, samples: 8}}")
    start = found.milestones[0].model
    for merged in merges(found):
        assert isinstance(merged, MergePicked)
        spec = merged.spec
        assert (spec.method, spec.points, spec.samples, spec.fixed) == ("ties", 3, 8, (("normalize", True),))
        assert spec.axes == (Axis("density", 0.1, 0.9), Axis("scale", values=(0.5, 1.0)))
        assert merged.base is merged.search.base is start
        assert merged.search.spec is spec
    assert [each.search.new for each in merges(found)] == ["parity", "count"]
    assert {each.weights for each in found.milestones if each.stage} == {"ties: density, scale searched on validation"}
    other = built(tmp_path, TIES.replace("ties,", "ties, base: previous,"))
    assert [each.base for each in merges(other)] == [each.sources["previous"] for each in merges(other)]


@pytest.mark.parametrize(
    ("said", "axes", "fixed"),
    [
        ("alpha: {search: {low: 0.2, high: 0.8, depth: 3}}", [f"alpha.{place}" for place in range(3)], ()),
        ("method: {search: [wise_ft, slerp]}, alpha: {search: [0.3, 0.6]}, weight: 0.5", ["method", "alpha"], (("weight", 0.5),)),
        ("'alpha[*vision_tower*]': 1, alpha: {search: {low: 0, high: 1}}", ["alpha"], (("alpha[*vision_tower*]", 1.0),)),
        ("method: dare_linear, density: 0.5, seed: {search: [0, 1]}", ["seed"], (("density", 0.5),)),
        ("parameters: {alpha: {search: {low: 0, high: 1}}}, actors: 0", ["alpha"], ()),
        ("method: ties, weights: [0.4, 0.6], density: {search: [0.2]}", ["density"], (("weights", (0.4, 0.6)),)),
        ("method: nuslerp, weights.tuned: {search: {low: 0.1, high: 0.9}}", ["weights.tuned"], ()),
    ],
)
def test_what_may_be_searched_and_given(tmp_path: Path, said: str, axes: list[str], fixed: tuple[Any, ...]) -> None:
    found = built(tmp_path, f"merge: {{{said}}}\nsearch: {{points: 2}}")
    spec = merges(found)[0].spec
    assert [axis.name for axis in spec.axes] == axes
    assert spec.fixed == fixed
    assert (merges(found)[0].base is None) is (spec.method in ("wise_ft", "slerp"))


def test_where_nothing_is_searched_stages_are_merged_as_given(tmp_path: Path) -> None:
    found = built(tmp_path, "merge: {method: ties, density: 0.3}")
    assert [type(each) for each in merges(found)] == [Merge, Merge]
    assert merges(found)[0].merger == Ties(density=0.3)
    assert merges(found)[0].base is found.milestones[0].model
    plain = built(tmp_path, "merge: {alpha: 0.3}")
    assert merges(plain)[0].fingerprint == merges(built(tmp_path, "alpha: 0.3"))[0].fingerprint
    assert merges(built(tmp_path, "merge: {actors: 1}"))[1].fingerprint == merges(built(tmp_path, "alpha: 0.5"))[1].fingerprint
    layered = merges(built(tmp_path, "merge: {alpha: [0.2, 0.8]}"))[0].merger
    assert layered.parameters == (("alpha", Schedule((("*", (0.2, 0.8)),))),)


def test_alpha_is_searched_the_same_however_it_is_written(tmp_path: Path) -> None:
    ways = ("search: {points: 3}", "alpha: {search: {points: 3}}", "merge: {alpha: {search: {low: 0, high: 1}}}\nsearch: {points: 3}")
    assert len({built(tmp_path, way).identity for way in ways}) == 1


REFUSED = {
    "merge: {method: ties, densty: {search: {low: 0.1, high: 0.9}}}": r":7: .*unknown parameter of ties 'densty'; did you mean 'density'",
    "merge: {actor: 1}": r":7: .*unknown parameter of wise_ft 'actor'; did you mean 'actors'",
    "merge: {method: tise, density: 0.1}": r":7: .*unknown merge method 'tise'; did you mean 'ties'",
    "merge: {alpha: {search: {low: 0.9, high: 0.1}}}": r":7: .*alpha goes from 0\.9 to 0\.1; low must lie below high",
    "merge: {alpha: {search: {low: 0.5, high: 0.5}}}": r"low must lie below high",
    "merge: {alpha: {search: {low: 0, high: 2}}}": r":7: .*alpha is 2\.0; it is the weight .* between 0 and 1",
    "merge: {alpha: {search: {low: 0.1}}}": r"alpha has neither values nor a range",
    "merge: {alpha: {search: []}}": r"alpha has neither values nor a range",
    "merge: {alpha: {search: {lwo: 0.1, high: 1}}}": r"unknown key of its search 'lwo'; did you mean 'low'",
    "merge: {alpha: {search: 3}}": r"search is 3; give \{low: 0, high: 1\}, or a list of values",
    "merge: {alpha: {search: [0.1], glob: 3}}": r"alpha has glob beside search",
    "merge: {method: ties, density: {search: {low: 0, high: 0.9}}}": r":7: merge: at density=0: density is 0\.0",
    "merge: {method: karcher, iterations: {search: {low: 1, high: 9}}}": r"search it by values in place of a range",
    "merge: {method: ties, normalize: 3}": r"normalize cannot be 3",
    "merge: {method: ties, weights: 3}": r"weights is 3; give a list, one for each of previous, tuned",
    "merge: {method: {search: [wise_ft, regmean]}}": r":7: .*regmean needs the gram of both models, which a stage does not measure",
    "merge: {method: ties, statistics: {examples: 3}}": r":7: .*statistics: ties reads none; leave it out",
    "merge: {method: fisher, statistics: {example: 3}}": r"unknown key 'merge\.statistics\.example'; did you mean 'examples'",
    "merge: {method: fisher, statistics: {previous: [nmae]}}": r":7: .*unknown task 'nmae'; did you mean 'name'",
    "merge: {method: fisher, statistics: {previous: [count]}}": r":7: .*names 'count', which is learned on the way",
    "merge: {method: {search: []}}": r"method is the name of one, or several to search",
    "merge: {method: slerp, base: previous}": r"slerp measures from no base; leave it out",
    "merge: {method: dare_linear}": r":7: .*dare_linear needs a value for density",
    "merge: {alpha: 0.3, parameters: {alpha: 0.2}}": r"alpha stands beside parameters and in it",
    "merge: {method: ties, density: {search: [0.1, 0.5]}}\nsearch: {low: 0.1}": r":8: search: low says what is tried of alpha",
    "merge: {method: ties, density: 0.3}\nsearch: {points: 3}": r":8: search has nothing to search: merge gives every value",
    "merge: {method: ties, density: 0.3}\nalpha: 0.3": r":8: alpha stands beside the method or parameters of merge",
    "merge: {method: ties, density: 0.3}\nadaptive: {rule: isotropic}": r":8: adaptive chooses the alpha of wise_ft",
    "merge: {method: ties, density: {search: {low: 0.1, high: 0.9}}}\nsearch: {goal: heldout}": r"unknown value 'heldout'",
    "merge: {method: ties, density: {search: {low: 0.1, high: 0.9}}, scale: {search: {low: 0.1, high: 2}}}\nsearch: {points: 200}": (
        r"the grid has 40,000 points, more than 10,000"
    ),
    "merge: {method: ties, density: {search: [0.1, 0.5]}}\nsearch: {algorithm: random, trials: 3}": r"3 trials of 2 points",
}


@pytest.mark.parametrize("said", REFUSED)
def test_refused_when_the_file_is_read(tmp_path: Path, said: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[said]):
        read_config(written(tmp_path, said))


def test_a_goal_that_no_task_yields_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = written(tmp_path, "search: {goal: held_out}")
    path.write_text(path.read_text().replace("held_out: [name]\n", ""))
    with pytest.raises(ConfigError, match="the goal held_out needs held-out tasks, and the suite has none"):
        build(path, [f"workspace={tmp_path}"])


def test_fisher_measures_the_tuned_model_on_its_task_and_the_previous_on_all_before(tmp_path: Path) -> None:
    said = "merge: {method: fisher, floor: {search: [1e-8, 1e-6]}, statistics: {examples: 16}}"
    found = built(tmp_path, said)
    read = [each.search.statistics for each in merges(found)]
    assert [tuple(each.statistics) for each in merges(found)] == [("previous", "tuned")] * 2
    assert [{name: step.task.name for name, step in each.items()} for each in read] == [
        {"previous": "name", "tuned": "parity"},
        {"previous": "name+parity", "tuned": "count"},
    ]
    for merged in merges(found):
        assert {name: step.model for name, step in merged.statistics.items()} == merged.sources
        assert {step.samples for step in merged.statistics.values()} == {16}
    other = built(tmp_path, "merge: {method: fisher, statistics: {previous: [where, color]}}")
    assert isinstance(merges(other)[0], Merge)
    assert merges(other)[0].statistics["previous"].task.name == "where+color"
    path = written(tmp_path, "merge: {method: fisher}")
    path.write_text(path.read_text().replace("held_out: [name]\n", ""))
    with pytest.raises(ConfigError, match="fisher has nothing to measure the first model on"):
        read_config(path)


def test_a_search_over_fisher_merges_is_written_as_it_was_tried(tmp_path: Path) -> None:
    places = two_models(tmp_path)
    sources = {name: Given(name) for name in places}
    measured = {name: Given(f"fisher of {name}") for name in places}
    known: dict[Step, Path] = {step: places[name] for name, step in sources.items()}
    for name, step in measured.items():
        known[step] = tmp_path / step.name
        known[step].mkdir()
        fisher(places[name], get_task("parity"), PARTS, 3, 0, known[step] / FISHER_FILE)
    axes = (Axis("method", values=("fisher", "slerp")), Axis("weights.tuned", 0.2, 0.8))
    spec = SearchSpec("fisher", axes, points=3, samples=6)
    search = Search(spec, sources, suite_of(6), "vowels/cell", statistics=measured, batch_size=4, workers=0)
    Here(tmp_path / "search").run(search, known)
    trials = read_found(tmp_path / "search").trials
    assert [dict(trial.point) for trial in trials] == [
        *({"method": "fisher", "weights.tuned": weight} for weight in (0.2, 0.5, 0.8)),
        {"method": "slerp"},
    ]
    assert len({trial.value for trial in trials}) == 4
    files = {name: known[step] / FISHER_FILE for name, step in measured.items()}
    for trial in trials:
        made = Here(tmp_path / f"merge-{trial.number}").run(
            Merge(merger_at(spec, trial.point), sources, statistics=measured if trial.number < 3 else {}, actors=0), known
        )
        assert made.checkpoint is not None
        assert evaluate(made.checkpoint, suite_of(6), tmp_path / "evaluation", 4) == trial.scores, trial.point
    picked = MergePicked(search, spec, sources, None, measured, actors=0)
    made = Here(tmp_path / "picked").run(picked, {**known, search: tmp_path / "search"})
    assert made.checkpoint is not None
    assert evaluate(made.checkpoint, suite_of(6), tmp_path / "evaluation", 4) == read_found(tmp_path / "search").pick.scores

    def refused(error: type[MergelineError], said: str, **options: Any) -> None:
        with pytest.raises(error, match=said):
            run_search(spec, places, None, suite_of(6), None, tmp_path / "refused", workers=0, **options)
        assert not (tmp_path / "refused").exists()

    refused(ConfigError, "fisher needs the statistics of every source, and previous comes with none")
    refused(ConfigError, "and tuned comes with none", statistics={"previous": files["previous"]})
    refused(ConfigError, "unknown source 'tunde'; did you mean 'tuned'", statistics={**files, "tunde": files["tuned"]})
    refused(InputError, "the statistics of tuned, .*nothing, are not there", statistics={**files, "tuned": tmp_path / "nothing"})
    alone = SearchSpec("wise_ft", (Axis("alpha", 0.0, 1.0),), points=2, samples=6)
    with pytest.raises(ConfigError, match="wise_ft reads no statistics, but some are given"):
        run_search(alone, places, None, suite_of(6), None, tmp_path / "refused", workers=0, statistics=files)


def test_options_of_the_command_line_say_what_is_searched_at_one_stage(tmp_path: Path) -> None:
    found = built(tmp_path, "alpha: 0.5")
    merge = merge_settings("ties", ["density=0.1:0.9", "scale=0.5,1", "normalize=true"])
    _, search = stage_search(found, 2, {"points": 2}, merge)
    assert search.spec == SearchSpec(
        "ties", (Axis("density", 0.1, 0.9), Axis("scale", values=(0.5, 1))), (("normalize", True),), points=2, samples=200
    )
    assert search.base is found.milestones[0].model
    assert search.sources == merges(found)[1].sources
    _, several = stage_search(found, 1, {}, merge_settings("wise_ft,slerp", ["alpha=0.1,0.9", "weight=0.5"]))
    assert several.spec.axes[0] == Axis("method", values=("wise_ft", "slerp"))
    _, alpha = stage_search(found, 1, {"points": 3}, {})
    assert alpha.spec == SearchSpec("wise_ft", (Axis("alpha", 0.0, 1.0),), points=3, samples=200)
    _, own = stage_search(built(tmp_path, TIES), 1, {"points": 3}, {})
    assert (own.spec.method, own.spec.points) == ("ties", 3)


@pytest.mark.parametrize(
    ("method", "parameters", "settings", "said"),
    [
        (None, ["alpha"], {}, "not of the form NAME=LOW:HIGH"),
        (None, ["alpha=0:1", "alpha=1"], {}, "names alpha twice"),
        (None, ["alpha=1:0"], {}, "low must lie below high"),
        (None, ["alpha=a:b"], {}, "low is 'a'; give low and high, or values"),
        ("ties", ["densty=0:1"], {}, "did you mean 'density'"),
        ("tise", [], {}, "did you mean 'ties'"),
        ("regmean", ["ridge=1e-8,1e-6"], {}, "needs the gram of both models"),
        ("slerp", [], {}, "nothing is searched"),
        ("ties", ["density=0.1:0.9"], {"depth": 3}, "--depth says what is tried of alpha"),
    ],
)
def test_options_that_could_not_be_honoured(
    tmp_path: Path, method: str | None, parameters: list[str], settings: dict[str, Any], said: str
) -> None:
    _, config = read_config(written(tmp_path, "alpha: 0.5"))
    with pytest.raises(ConfigError, match=said):
        searching(config, settings, merge_settings(method, parameters))


@dataclass(frozen=True, eq=False, repr=False)
class Given(Step):
    """A checkpoint that is there."""

    kind: ClassVar[str] = "given"
    name: str


@dataclass
class Here:
    """What a running step is given: the places of the steps before it."""

    directory: Path
    places: dict[Step, Path] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        return self.directory / "work"

    def run(self, step: Step, places: dict[Step, Path]) -> Outcome:
        self.places = places
        self.directory.mkdir()
        return step.run(self)  # type: ignore[arg-type]

    def checkpoint_of(self, step: Step) -> Path:
        return self.places[step]

    def directory_of(self, step: Step) -> Path:
        return self.places[step]

    def digest_of(self, step: Step) -> str:
        return "0" * 64

    def progress(self, done: float, total: float, note: str = "") -> None:
        assert done <= total


@pytest.mark.parametrize(
    "said",
    [
        {"method": "ties", "density": {"search": [0.2, 0.7]}, "scale": {"search": {"low": 0.5, "high": 1.5}}, "normalize": False},
        {"alpha": {"search": {"low": 0.1, "high": 0.9, "depth": 2}}},
        {"method": {"search": ["dare_linear", "slerp"]}, "density": 0.5, "seed": {"search": [1, 2]}, "weight": {"search": [0.3, 0.6]}},
    ],
    ids=["ties", "depth", "methods"],
)
def test_the_pick_is_written_as_the_merge_command_writes_it(tmp_path: Path, said: dict[str, Any]) -> None:
    places = two_models(tmp_path)
    start = places["previous"]  # as at the first stage: the model that the stream starts from
    merge = StageMerge.model_validate({**said, "base": "previous"} if StageMerge.model_validate(said).based else said)
    sources = {name: Given(name) for name in places}
    base = sources["previous"] if merge.based else None
    spec = SearchSpec(merge.methods[0], merge.axes(), merge.fixed(), points=2, samples=6)
    search = Search(spec, sources, suite_of(6), "vowels/cell", base, batch_size=4, workers=0)
    known: dict[Step, Path] = {step: places[name] for name, step in sources.items()}
    outcome = Here(tmp_path / "search").run(search, known)
    picked = read_found(tmp_path / "search").pick
    details = outcome.details
    assert details["pick"] == picked.point
    assert details["value"] == picked.value
    assert details["margin"] >= 0
    assert details["margin_stderr"] > 0
    assert details["answers_kept"] == outcome.metrics["trials"]

    merged = MergePicked(search, spec, sources, base, actors=0)
    made = Here(tmp_path / "merge").run(merged, {**known, search: tmp_path / "search"})
    point = dict(picked.point)
    method = str(point.pop("method", merge.methods[0]))
    own = {"dare_linear": {"density": 0.5, "seed": 1}, "slerp": {}}.get(method, {"normalize": False} if method == "ties" else {})
    values = {"alpha": [point["alpha.0"], point["alpha.1"]]} if "alpha.0" in point else {**own, **point}
    content = {"method": method, **({} if method in ("wise_ft", "slerp") else {"base": str(start)}), **values}
    content["sources"] = {name: str(place) for name, place in places.items()}
    (tmp_path / "merge.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    execute(open_request(request_from_file(tmp_path / "merge.yaml"), tmp_path / "by_command"))
    assert made.checkpoint is not None
    ours, theirs = directory_manifest(made.checkpoint), directory_manifest(tmp_path / "by_command")
    assert {name: digest for name, digest in ours.items() if name != "README.md"} == {
        name: digest
        for name, digest in theirs.items()
        if name != "README.md"  # it names the steps
    }
    assert evaluate(made.checkpoint, suite_of(6), tmp_path / "evaluation", 4) == picked.scores, "as the trial scored"
