"""`merge`: files and options carried out, plans that do nothing, and what is refused before any work."""

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import Command, ended, everything_in
from safetensors.torch import save_file
from small_merges import MERGE, SHAPES, load, save_random

from foundation.files import directory_manifest
from mergers import WiseFT
from mergers.methods.task_arithmetic import TaskArithmetic
from pipeline.graph.actors import merge_step
from pipeline.steps import Merge, Pretrained


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with checkpoints base, a, b."""
    for seed, name in enumerate(("base", "a", "b")):
        save_random(tmp_path / name, seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def command(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would fail: nothing here needs it
    return lambda *arguments: ended(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MERGE.replace("density: 0.2", "density: 1.2"), "density is 1.2; it is the share"),
        (MERGE.replace("density: 0.2", "density: {'*.mlp.*': 0.1, '*': [0.1, 1.2]}"), "where '*' matches: density is 1.2"),
        (MERGE.replace("density: 0.2", "density: 0.2\nweights: [1, -1]"), "the weight of 'code' is -1.0"),
        (MERGE.replace("base: base\n", ""), "ties measures every source from a base checkpoint; name one as base"),
        (MERGE.replace("density: 0.2", "density: {'*.mpl.*': 0.1, '*': 0.2}"), "'*.mpl.*' matches none of 12 tensors; did you mean 'mlp'?"),
        (MERGE.replace("scale: 1.5", "files_from: mth"), "files_from: unknown source 'mth'; did you mean 'math'?"),
        (MERGE.replace("math: a", "math: {checkpoint: a, statistics: a}"), "statistics of 'math': there is no file a"),
    ],
)
def test_what_cannot_be_merged_so_is_refused_before_any_work(command: Command, here: Path, text: str, message: str) -> None:
    (here / "m.yaml").write_text(text)
    before = everything_in(here)
    told = command("merge", "--config", "m.yaml", "out")
    assert told.code in (2, 3), told.said
    assert message in told.err
    assert told.out == ""
    assert everything_in(here) == before


# The command


def test_a_file_is_merged_as_it_says(command: Command, here: Path) -> None:
    (here / "m.yaml").write_text(
        "method: task_arithmetic\nbase: base\nsources:\n  a: a\n  b: b\nweights: [1, -1]\nscale: {'*.mlp.*': [0, 1], '*': 0.5}\n"
    )
    told = command("merge", "--config", "m.yaml", "out", "--processes", "2")
    assert told.code == 0, told.said
    assert "out = task_arithmetic of a, b, base base" in told.out
    assert "next: python -m pipeline evaluate out" in told.out
    assert "weights = (1.0, -1.0), scale = {*.mlp.*: [0.0, 1.0], *: 0.5}, normalize = False" in (here / "out" / "README.md").read_text()
    base, a, b = (load(here / name) for name in ("base", "a", "b"))
    for name, found in load(here / "out").items():
        scale = int(name.split(".")[2]) / 2 if ".mlp." in name else 0.5
        exact = base[name].double() + scale * (a[name].double() - b[name].double())
        # Three float32 additions of values below 10 in size: an error of a few times 2^-24 of that.
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def test_options_ask_for_the_same_as_a_file(command: Command, here: Path) -> None:
    (here / "m.yaml").write_text('method: ties_per_tensor\nbase: base\nsources:\n  "checkpoint 1": a\n  "checkpoint 2": b\ndensity: 0.3\n')
    assert command("merge", "--config", "m.yaml", "--output", "one", "--set", "scale=2").code == 0
    options = ("--method", "ties_per_tensor", "--checkpoints", "a", "b", "--base", "base", "--set", "density=0.3", "scale=2")
    told = command("merge", *options, "--output", "two")
    assert told.code == 0, told.said
    assert directory_manifest(here / "one") == directory_manifest(here / "two")


def test_a_plan_does_nothing(command: Command, here: Path) -> None:
    (here / "m.yaml").write_text(MERGE)
    before = everything_in(here)
    of_merge = command("merge", "--config", "m.yaml", "m-merged", "--plan")
    of_file = command("plan", "m.yaml")
    assert everything_in(here) == before
    assert of_file.out.splitlines()[:-1] == of_merge.out.splitlines()
    for told in (
        "merge: Ties(density=0.2",
        "source 'math': weight 1",
        "base 'base'",
        "work items",
        "memory",
        "free disk",
        "reads",
        "writes",
    ):
        assert told in of_merge.out
    assert of_file.out.splitlines()[-1] == "next: python -m pipeline merge --config m.yaml m-merged"


def test_a_merge_file_is_validated_without_opening_a_checkpoint(command: Command, here: Path) -> None:
    (here / "m.yaml").write_text(MERGE.replace("math: a", "math: org/model@main"))
    told = command("validate", "m.yaml")
    assert told.out.splitlines() == [
        "m.yaml: valid; ties of org/model@main, b, base base",
        "next: python -m pipeline plan m.yaml",
    ]
    assert command("validate", "m.yaml", "density=7").code == 2


def test_dtype_and_shard_size(command: Command, here: Path) -> None:
    told = command("merge", "--checkpoints", "a", "b", "--output", "out", "--dtype", "bfloat16", "--max-shard-size", "2kB")
    assert told.code == 0, told.said
    found = load(here / "out")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert found.keys() == SHAPES.keys()
    assert len(list((here / "out").glob("*.safetensors"))) > 1
    assert json.loads((here / "out" / "config.json").read_text())["model_type"] == "llama"


def test_nonfinite_weights_pass_only_where_allowed(command: Command, here: Path) -> None:
    tensors = load(here / "a")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, here / "a" / "model.safetensors", metadata={"format": "pt"})
    told = command("merge", "--checkpoints", "a", "b", "--output", "out")
    assert told.code == 3
    assert "add --allow-nonfinite" in told.err
    assert command("merge", "--checkpoints", "a", "b", "--output", "out", "--allow-nonfinite").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "out"], "Missing option '--checkpoints'"),
        (["--config", "m.yaml"], "Missing option '--output'"),
        (["--config", "m.yaml", "out", "--output", "other"], "the output is named twice, out and --output other"),
        (["--config", "m.yaml", "out", "--method", "ties"], "--config and --method both say what is merged"),
        (["--config", "m.yaml", "out", "--checkpoints", "a", "b"], "--config and --checkpoints both say what is merged"),
        (["--config", "n.yaml", "out"], "there is no file n.yaml; name a merge file, e.g. merge.yaml"),
        (["--config", ".", "out"], "is a directory; name the merge file in it"),
        (["--config", "m.yaml", "out", "--set", "denisty=1"], "command line: unknown key 'denisty'; did you mean 'density'?"),
        (["--config", "m.yaml", "out", "--set"], "Option '--set' requires an argument"),
        (["--config", "m.yaml", "out", "--dtype", "fp8"], "--dtype: unknown dtype 'fp8'"),
        (["--config", "m.yaml", "out", "--max-shard-size", "big"], "--max-shard-size is 'big'; give bytes, e.g. 5GB"),
        (["--config", "m.yaml", "out", "--processes", "0"], "Invalid value for '--processes'"),
        (["--method", "teis", "--checkpoints", "a", "b", "--output", "out"], "--method: unknown merge method 'teis'; did you mean 'ties'?"),
        (["--method", "ties", "--checkpoints", "a", "b", "--output", "out"], "name one with --base"),
        (["--method", "wise_ft", "--checkpoints", "a", "b", "--alphas", "1", "0", "--output", "out"], "what it takes: --set alpha=..."),
        (["--method", "ties", "--checkpoints", "a", "--base", "base", "--set", "x=1", "--output", "out"], "command line: unknown key 'x'"),
        (["--checkpoints", "a", "b", "--base", "base", "--output", "out"], "weighted_average has no use for a base"),
    ],
)
def test_misuse_of_merge(command: Command, here: Path, arguments: list[str], message: str) -> None:
    (here / "m.yaml").write_text(MERGE)
    told = command("merge", *arguments)
    assert told.code == 2, told.said
    assert message in told.err
    assert not (here / "out").exists()


def test_wise_ft_gives_its_sources_their_names(command: Command, here: Path) -> None:
    told = command("merge", "--method", "wise_ft", "--checkpoints", "a", "b", "--set", "alpha=0.25", "--output", "out")
    assert told.code == 0, told.said
    assert "out = 0.25 x a + 0.75 x b" in told.out


def test_a_merge_step_may_have_a_base(here: Path) -> None:
    paths = {name: (here / name, f"digest of {name}") for name in ("a", "b")}
    outcome = merge_step(TaskArithmetic(scale=0.5), paths, (here / "base", "digest of base"), here / "out", 0, lambda done, total: None)
    assert outcome.files
    assert "Base: base (digest of base)" in (here / "out" / "README.md").read_text()


def test_a_base_is_an_input_of_the_step_and_its_absence_changes_no_fingerprint() -> None:
    steps = {name: Pretrained(source=name) for name in ("previous", "tuned")}
    without, based = Merge(WiseFT(0.5), steps), Merge(WiseFT(0.5), steps, base=Pretrained(source="base"))
    # The fingerprint that this merge had before a step could have a base: what is stored under it must stay known.
    assert Merge(WiseFT(0.5), {"previous": Pretrained(source="a"), "tuned": Pretrained(source="b")}).fingerprint == (
        "c276ec8300b00ab919ec0f78699e54032709a1dd37e76709eb1768a9e3cc0bd6"
    )
    assert based.fingerprint != without.fingerprint
    assert [step.source for step in based.inputs if isinstance(step, Pretrained)] == ["previous", "tuned", "base"]
    assert based.detached().fingerprint == based.fingerprint


def test_a_lone_source_may_be_added_to_its_base(command: Command, here: Path) -> None:
    told = command("merge", "--method", "task_arithmetic", "--checkpoints", "a", "--base", "base", "--set", "scale=-1", "--output", "out")
    assert told.code == 0, told.said
    expected = 2 * load(here / "base")["lm_head.weight"].double() - load(here / "a")["lm_head.weight"].double()
    torch.testing.assert_close(load(here / "out")["lm_head.weight"].double(), expected, rtol=0, atol=1e-5)  # as above
