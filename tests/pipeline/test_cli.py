"""The command line: light to start, plain about misuse, and `merge` as the seed system's averaging script was tested."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import EXPERIMENT, Command, ended
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from foundation.errors import ConfigError
from foundation.files import directory_manifest
from pipeline.command.arguments import spread

HEAVY = ("torch", "ray", "transformers", "mlflow", "sklearn", "matplotlib", "pyarrow", "PIL")
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: ended(capsys, *arguments)


# Light to start


@pytest.mark.parametrize("arguments", [["--help"], ["merge", "--help"], ["validate", "e.yaml"], ["plan", "e.yaml"]])
def test_what_answers_at_once_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    code = (
        "import sys\nfrom pipeline.cli import main\n"
        f"sys.argv = ['mergeline', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('imported:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1].split() == ["imported:"]


# Misuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["--verion"], "No such option: --verion"),
        (["run"], "Missing argument 'file'"),
        (["plan"], "Missing argument 'file'"),
        (["report"], "Missing argument 'runs'"),
        (["evaluate"], "Missing argument 'checkpoint'"),
        (["run", "e.yaml", "--adress", "x"], "--address"),
        (["run", "e.yaml", "--cpus", "0"], "Invalid value for '--cpus'"),
        (["plan", "nothing.yaml"], "there is no file nothing.yaml; name an experiment file"),
        (["validate", "."], "is a directory; name the experiment file in it"),
        (["merge", "--output", "out"], "Missing option '--checkpoints'"),
        (["merge", "--checkpoints", "A", "B"], "Missing option '--output'"),
        (["merge", "--checkpoints", "--output", "out"], "--checkpoints is given no value before --output"),
        (["merge", "--checkpoints", "A", "--output", "out"], "--checkpoints names only A; an average needs at least 2"),
        (["merge", "--checkpoints", "A,B", "--output", "out"], "--checkpoints names only A,B; an average needs at least 2"),
        (["merge", "--checkpoints", "A", "B", "--output", "out", "--actors", "-1"], "Invalid value for '--actors'"),
        (["evaluate", "A", "--tasks", "partiy"], "unknown task 'partiy'; did you mean 'parity'?"),
        (["evaluate", "A", "--tasks", "parity", "parity"], "--tasks names 'parity' more than once"),
        (["evaluate", "A", "--split", "tst"], "--split: unknown split 'tst'; did you mean 'test'?"),
        (["evaluate", "A", "--samples", "0"], "Invalid value for '--samples'"),
        (["evaluate", "A", "--output", "e.yaml"], "--output e.yaml is a file; name a directory"),
        (["evaluate", "A", "--output", "."], "exists and is not empty (it holds e.yaml)"),
        (["report", "a", "a"], "a run is named twice: a a"),
    ],
)
def test_misuse_is_told_and_ends_with_2(command: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    told = command(*arguments)
    assert told.code == 2, told.said
    assert message in told.err
    assert "Traceback" not in told.err
    assert [path.name for path in tmp_path.iterdir()] == ["e.yaml"]


def test_a_run_that_does_not_exist(command: Command, tmp_path: Path) -> None:
    told = command("report", "nope")
    assert (told.code, told.err.startswith("error: there is no run 'nope': runs does not exist")) == (3, True)
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "run.json").write_text("{}")
    told = command("report", "tniy")
    assert told.code == 3
    assert "unknown run 'tniy'; did you mean 'tiny'?" in told.err


def test_no_command_shows_the_commands(command: Command) -> None:
    told = command()
    assert told.code == 2
    assert all(name in told.said for name in ("run", "plan", "validate", "merge", "evaluate", "report", "ui"))


def test_the_next_command_can_be_pasted(command: Command, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    told = command("validate", "e.yaml", "tasks=[count, parity]")
    assert told.out.splitlines()[-1] == "next: python -m pipeline plan e.yaml 'tasks=[count, parity]'"
    told = command("plan", "e.yaml", "tasks=[count, parity]")
    assert told.out.splitlines()[-1] == "next: python -m pipeline run e.yaml 'tasks=[count, parity]'"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--checkpoints", "A", "B", "--output", "o"], ["--checkpoints", "A", "--checkpoints", "B", "--output", "o"]),
        (["--alphas", "0.5", "-0.5", "1.0"], ["--alphas", "0.5", "--alphas", "-0.5", "--alphas", "1.0"]),
        (["--output", "o", "A"], ["--output", "o", "A"]),
        (["--checkpoints=A", "--checkpoints=B"], ["--checkpoints=A", "--checkpoints=B"]),
        ([], []),
    ],
)
def test_several_values_after_one_flag(given: list[str], meant: list[str]) -> None:
    assert spread(given) == meant


def test_a_flag_without_values() -> None:
    with pytest.raises(ConfigError, match="--alphas is given no value before --verbose"):
        spread(["--alphas", "--verbose"])


# `merge`, by the seed system's list: loading, equal, weighted and three-way averaging, the command line


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three bfloat16 models of one architecture, and one that is wider."""
    home = tmp_path_factory.mktemp("models")
    for seed, (name, hidden) in enumerate([("a", 16), ("b", 16), ("c", 16), ("wide", 32)]):
        torch.manual_seed(seed)
        config = LlamaConfig(vocab_size=32, max_position_embeddings=32, **{**SIZES, "hidden_size": hidden})
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(home / name)
    return {name: home / name for name in ("a", "b", "c", "wide")}


def tensors(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


def assert_average(directory: Path, weighted: list[tuple[float, Path]]) -> None:
    """Every tensor is the weighted sum, computed in float64, to half a unit in bfloat16's last place.

    The mantissa has 8 bits, so rounding once moves a value by at most 2^-9 of it; the float32 sum before adds far less (2^-20 of 1).
    """
    found, sources = tensors(directory), [(weight, tensors(path)) for weight, path in weighted]
    for name, tensor in found.items():
        exact = sum((weight * source[name].double() for weight, source in sources), torch.zeros(()).double())
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor.double(), exact, rtol=2**-8, atol=2**-20)


def test_equal_weights_by_default_and_the_result_loads(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    told = command("merge", "--checkpoints", models["a"], models["b"], "--output", "out")
    assert told.code == 0, told.said
    assert f"out = 0.5 x {models['a']} + 0.5 x {models['b']}" in told.out
    assert_average(tmp_path / "out", [(0.5, models["a"]), (0.5, models["b"])])
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert bool(torch.isfinite(loaded(torch.tensor([[1, 2, 3]])).logits).all())


def test_weighted(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    assert command("merge", "--checkpoints", models["a"], models["b"], "--alphas", "0.3", "0.7", "--output", "out").code == 0
    assert_average(tmp_path / "out", [(0.3, models["a"]), (0.7, models["b"])])


def test_three_way_as_the_seed_wrote_it(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    three = [models["a"], models["b"], models["c"]]
    told = command("merge", "--checkpoints", *three, "--output", "out", "--alphas", "0.3", "0.3", "0.4", "--verbose", "--actors", "0")
    assert told.code == 0, told.said
    assert_average(tmp_path / "out", list(zip([0.3, 0.3, 0.4], three, strict=True)))
    assert "weighted_average of checkpoint 1, checkpoint 2, checkpoint 3" in told.out
    assert "next: python -m pipeline evaluate out" in told.out


def test_repeated_flags_are_the_same_as_several_values(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    pair = [models["a"], models["b"]]
    command("merge", "--checkpoints", *pair, "--alphas", "0.3", "0.7", "--output", "one")
    command("merge", f"--checkpoints={pair[0]}", f"--checkpoints={pair[1]}", "--alphas=0.3", "--alphas=0.7", "--output=two")
    assert directory_manifest(tmp_path / "one") == directory_manifest(tmp_path / "two")


def test_two_equal_checkpoints_keep_every_byte_at_any_weights(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    told = command("merge", "--checkpoints", models["a"], models["a"], "--alphas", "0.1", "0.9", "--output", "out")
    assert told.code == 0, told.said
    before, after = tensors(models["a"]), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].view(torch.int16), after[name].view(torch.int16)) for name in before)


def test_a_weight_of_one_gives_that_checkpoint_back(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    assert command("merge", "--checkpoints", models["a"], models["b"], "--alphas", "0", "1", "--output", "out").code == 0
    found, expected = tensors(tmp_path / "out"), tensors(models["b"])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        (["0.5"], "1 weights for 2 checkpoints"),
        (["0.3", "0.3", "0.4"], "3 weights for 2 checkpoints"),
        (["0.5", "-0.5"], "the weight of 'checkpoint 2' is -0.5; weights must be finite and not negative"),
        (["0.5", "0.4"], "weights sum to 0.9: they must sum to 1"),
        (["0.5", "half"], "--alphas: 'half' is not a number"),
        (["0.5,0.5"], "--alphas: '0.5,0.5' is not a number; give one weight per checkpoint with blanks between"),
        (["nan", "1"], "the weight of 'checkpoint 1' is nan"),
        (["0", "0"], "weights sum to 0"),
    ],
)
def test_weights_that_make_no_average(command: Command, models: dict[str, Path], tmp_path: Path, alphas: list[str], message: str) -> None:
    told = command("merge", "--checkpoints", models["a"], models["b"], "--output", "out", "--alphas", *alphas)
    assert told.code == 2, told.said
    assert message in told.err
    assert list(tmp_path.iterdir()) == []


def test_a_negative_weight_among_three_is_a_weight_not_an_option(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    three = [models["a"], models["b"], models["c"]]
    told = command("merge", "--checkpoints", *three, "--output", "out", "--alphas", "0.5", "-0.5", "1.0")
    assert told.code == 2
    assert told.err == (
        "error: the weight of 'checkpoint 2' is -0.5; weights must be finite and not negative, so that an average stays between its "
        f"sources\nnote: checkpoint 2 is {models['b']}\n"
    )


def test_checkpoints_of_different_shapes(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    told = command("merge", "--checkpoints", models["a"], models["wide"], "--output", "out")
    assert told.code == 3
    assert "not of one architecture" in told.err
    assert f"note: checkpoint 1 is {models['a']}, checkpoint 2 is {models['wide']}" in told.err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept_unless_it_may_be_replaced(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("merge", "--checkpoints", models["a"], models["b"], "--output", "out")
    assert command(*arguments).code == 0
    before = directory_manifest(tmp_path / "out")
    told = command(*arguments, "--alphas", "0.1", "0.9")
    assert told.code == 2
    assert "add --replace" in told.err
    assert directory_manifest(tmp_path / "out") == before
    assert command(*arguments, "--alphas", "0.1", "0.9", "--replace").code == 0
    assert directory_manifest(tmp_path / "out") != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("output", ["file", "file/below", "held"])
def test_an_output_that_cannot_be(command: Command, models: dict[str, Path], tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "mine").write_text("kept")
    told = command("merge", "--checkpoints", models["a"], models["b"], "--output", output, "--replace")
    assert told.code == 2, told.said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "held", "mine"]


def test_a_source_is_never_written_over(command: Command, models: dict[str, Path]) -> None:
    before = directory_manifest(models["a"])
    told = command("merge", "--checkpoints", models["a"], models["b"], "--output", models["a"], "--replace")
    assert told.code == 2
    assert directory_manifest(models["a"]) == before


def test_the_average_is_between_its_sources(command: Command, models: dict[str, Path], tmp_path: Path) -> None:
    command("merge", "--checkpoints", models["a"], models["b"], "--alphas", "0.25", "0.75", "--output", "out")
    first, second, found = tensors(models["a"]), tensors(models["b"]), tensors(tmp_path / "out")
    for name in found:
        low, high = torch.minimum(first[name], second[name]), torch.maximum(first[name], second[name])
        assert bool(((low <= found[name]) & (found[name] <= high)).all())
    assert not math.isnan(float(found["model.norm.weight"].sum()))
