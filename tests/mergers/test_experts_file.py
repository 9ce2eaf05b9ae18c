"""Modality merging asked for in a merge file: views that leave tensors to one another, and what the output's config.json says."""

import json
from pathlib import Path

import pytest
from small_experts import grams, saved, seed_of, shapes, tensors_of

from foundation.errors import ConfigError
from mergers import execute
from mergers.experts import SHARED_CONFIG, expert_sources, interpolation
from mergers.plan import plan_merge
from mergers.sources.view_spec import parse_view
from mergers.sources.views import Expert
from pipeline.config.merge_request import open_request
from pipeline.config.merge_source import request_from_file

FILE = """
method: {method}
sources:
  v: {{checkpoint: {moe}, view: {{expert: v, of: [v, l, vl], unless: vl}}, {more_v}}}
  l: {{checkpoint: {moe}, view: {{expert: l, of: [v, l, vl], unless: [vl]}}, {more_l}}}
  vl: {{checkpoint: {moe}, view: {{expert: vl, of: [v, l, vl]}}, {more_vl}}}
config: {{sharing: shared}}
"""


@pytest.fixture
def written(bench):
    def write(method, more="", **each):
        more = {f"more_{name}": each.get(name, each.get("every", "")) for name in ("v", "l", "vl")} | {"tail": more}
        path = bench.root / "merge.yaml"
        path.write_text(FILE.format(method=method, moe=bench.root / "moe", **more) + more["tail"])
        return path

    return write


def merged_by(path: Path, output: Path, *overrides: str) -> None:
    execute(open_request(request_from_file(path, overrides), output))


def digests(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir() if path.suffix in (".safetensors", ".json")}


def test_a_file_merges_as_the_library_does(bench, written):
    checkpoint = saved(bench, "moe", "all", tensors_of("all"))
    third = 1 / 3
    path = written("weighted_average", v=f"weight: {third}", l=f"weight: {third}", vl=f"weight: {third}")
    merged_by(path, bench.root / "out")
    plan = plan_merge(interpolation(0.5), expert_sources(checkpoint, used_by="vqa"), bench.root / "library", config=SHARED_CONFIG)
    execute(plan)
    assert digests(bench.root / "out") == digests(bench.root / "library")
    assert json.loads((bench.root / "out" / "config.json").read_text())["sharing"] == "shared"


def test_arithmetic_and_regmean_in_a_file(bench, written):
    held = tensors_of("all")
    saved(bench, "moe", "all", held)
    seed_of(bench)
    grams(bench, held)
    for method, more, own in (
        ("task_arithmetic", f"base: {bench.root / 'seed'}\nscale: 0.75\n", ""),
        ("sequential_arithmetic", f"base: {bench.root / 'seed'}\nscale: 0.75\n", ""),
        ("regmean", "off_diagonal: 1.0\n", f"statistics: {bench.root / 'gram.safetensors'}"),
    ):
        merged_by(written(method, more, every=own), bench.root / method)
        assert {name: tuple(tensor.shape) for name, tensor in bench.load(method).items()} == shapes("shared")


def test_the_config_can_be_laid_over_and_a_wrong_one_is_refused(bench, written):
    saved(bench, "moe", "all", tensors_of("all"))
    path = written("weighted_average")
    merged_by(path, bench.root / "out", "config.heads=[]")
    assert json.loads((bench.root / "out" / "config.json").read_text())["heads"] == []
    with pytest.raises(ConfigError, match="config: unknown key 'haeds'; did you mean 'heads'"):
        merged_by(path, bench.root / "other", "config.haeds=[]")
    assert not (bench.root / "other").exists()


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"expert": "v", "of": ["v", "l"], "unless": "vl"}, "'v' unless 'vl': name other experts of the checkpoint, .*: l"),
        ({"expert": "v", "of": ["v", "l"], "unless": "v"}, "'v' unless 'v': name other experts"),
        ({"expert": "v", "of": ["v", "l"], "unless": 3}, "unless names an expert, or a list of them"),
        ({"expert": "v", "of": ["v", "l"], "unles": "l"}, "unknown key 'unles'; did you mean 'unless'"),
    ],
)
def test_views_that_leave_tensors_to_no_one(view, message):
    with pytest.raises(ConfigError, match=message):
        parse_view(view)


def test_a_view_leaves_what_another_expert_has():
    view = parse_view({"expert": "v", "of": ["v", "l", "vl"], "unless": "vl"})
    assert view == Expert("v", ("v", "l", "vl"), ("vl",))
    assert view.outputs(["a.0.v.w", "a.1.v.w", "a.1.vl.w", "a.0.l.w", "b"]) == ["a.0.w", None, None, None, "b"]
    assert view.describe() == "expert v of v, l, vl where there is no vl"
    assert view.idle(["a.0.v.w"]) == "no tensor has a component 'vl' in its name"
