"""Whatever is wrong with what a user gives is refused before anything runs: one message, the right exit code, nothing left behind."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import COMPARE, EXPERIMENT, Command, Ended, changed, ended, everything_in
from safetensors.torch import load_file, save_file

from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from tasks.digits import all_texts

BASE = "{pretrain: digits_llava, settings: {tower_steps: 3, language_steps: 3, most_samples: 40, threads: 1}}"
TRAINED = "  max_steps: 8\n"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Writes an experiment file, gives it to a command, and holds what is true of every refusal."""
    monkeypatch.chdir(tmp_path)

    def give(text: str | bytes, *overrides: str, command: str = "validate", code: int = 2) -> Ended:
        (tmp_path / "e.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        before = everything_in(tmp_path)
        told = ended(capsys, command, "e.yaml", *overrides)
        assert told.code == code, told.said
        assert told.out == ""
        assert told.err.startswith("error: ")
        assert "Traceback" not in told.err
        assert everything_in(tmp_path) == before
        return told

    return give


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # a mistyped or misplaced key
        ("alpha: 0.5", "alhpa: 0.5", "e.yaml:7: unknown key 'alhpa'; did you mean 'alpha'?"),
        ("  max_steps", "  max_stpes", "e.yaml:10: unknown key 'train.max_stpes'; did you mean 'max_steps'?"),
        ("alpha: 0.5", "learning_rate: 1e-4", "e.yaml:7: unknown key 'learning_rate'; it belongs under 'train'."),
        (TRAINED, "  alpha: 0.5\n", "e.yaml:10: unknown key 'train.alpha'; it belongs at the top level, not indented."),
        ("alpha: 0.5", "samples: 3", "e.yaml:7: unknown key 'samples'; it belongs under 'train' or under 'evaluate' or under 'search'."),
        ("alpha: 0.5", "tower_steps: 3", "e.yaml:7: unknown key 'tower_steps'; it belongs under 'base.settings'."),
        ("alpha: 0.5", "learning_rtae: 1e-4", "e.yaml:7: unknown key 'learning_rtae'; did you mean 'learning_rate' under 'train'?"),
        ("recipe: wise_ft", "recipe: sequential", "e.yaml:7: unknown key 'alpha'; it is a key of recipe wise_ft, not of this one."),
        ("alpha: 0.5", "alpha: 0.5\nalpha: 0.3", "e.yaml:8: key 'alpha' stands here and on line 7; keep one of them"),
        ("name: small\n", "", "e.yaml:1: the key 'name' is missing; add it, e.g. name: my_experiment"),
        # a mistyped word
        ("wise_ft", "wiseft", "e.yaml:1: unknown recipe 'wiseft'; did you mean 'wise_ft'?"),
        ("recipe: wise_ft\n", "", "e.yaml:1: no recipe is named; add a line such as recipe: wise_ft."),
        ("[parity, count]", "[partiy, count]", "e.yaml:5: tasks[0]: unknown task 'partiy'; did you mean 'parity'?"),
        (TRAINED, "  schedule: cosin\n", "e.yaml:10: train.schedule: unknown value 'cosin'; did you mean 'cosine'?"),
        (TRAINED, "  schedule:\n", "e.yaml:10: train.schedule has no value; give one of constant, cosine, linear"),
        (
            TRAINED,
            "  mm_tunable_parts: mm_mlp_adaptor\n",
            "e.yaml:10: train: mm_tunable_parts: unknown part 'mm_mlp_adaptor'; did you mean",
        ),
        (TRAINED, "  mm_tunable_parts: 3\n", "e.yaml:10: mm_tunable_parts is 3; name parts"),
        (
            TRAINED,
            "  mm_language_model_train_mlp_only: true\n  mm_tunable_parts: mm_mlp_adapter\n",
            "e.yaml:10: train: mm_language_model_train_mlp_only narrows mm_language_model, but mm_tunable_parts names projector",
        ),
        (TRAINED, "  mm_tunable_parts: mm_vision_tower\n", "no default learning rate for parts vision_tower; set learning_rate"),
        # a wrong type
        ("alpha: 0.5", "alpha: half", "e.yaml:7: alpha is the text 'half'; give a number"),
        ("alpha: 0.5", "alpha: true", "e.yaml:7: alpha is true; give a number"),
        ("alpha: 0.5", "alpha:", "e.yaml:7: alpha has no value; give a number"),
        ("alpha: 0.5", "alpha: [0.5]", "e.yaml:7: alpha is [0.5]; give a number"),
        ("alpha: 0.5", "alpha: nan", "e.yaml:7: alpha is the text 'nan'; give a number"),
        (TRAINED, "  learning_rate: '1e-4'\n", "e.yaml:10: train.learning_rate is the text '1e-4'; give a number, without quotes: 1e-4"),
        (TRAINED, "  max_steps: 8.5\n", "e.yaml:10: train.max_steps is 8.5; give a whole number"),
        (TRAINED, "  max_steps: 1e3\n", "e.yaml:10: train.max_steps is 1000.0; give a whole number, e.g. 1000"),
        (TRAINED, "  mm_language_model_train_mlp_only: yes\n", "is the text 'yes'; give true or false"),
        ("evaluate: {samples: 8}", "evaluate: [8]", "e.yaml:12: evaluate is [8]; give keys and values, indented below it"),
        ("evaluate: {samples: 8}", "evaluate:", "e.yaml:12: evaluate has no value; give keys and values, indented below it"),
        ("tasks: [parity, count]", "tasks: parity", "e.yaml:5: tasks is the text 'parity'; give a list, in [brackets]"),
        # a number out of range, and numbers that do not go together
        ("alpha: 0.5", "alpha: -0.1", "e.yaml:7: alpha is -0.1; give at least 0"),
        ("alpha: 0.5", "alpha: 1.5", "e.yaml:7: alpha is 1.5; give at most 1"),
        ("seed: 0", "seed: -1", "e.yaml:3: seed is -1; give at least 0"),
        (TRAINED, "  learning_rate: 0\n", "e.yaml:10: train.learning_rate is 0; give more than 0"),
        (TRAINED, "  learning_rate: 1e999\n", "e.yaml:10: train.learning_rate is inf; give a finite number"),
        (TRAINED, "  gpus: -1\n", "e.yaml:10: train.gpus is -1; give at least 0"),
        (TRAINED, f"  max_steps: {10**12}\n", "e.yaml:10: train.max_steps is 1000000000000; give at most 1,000,000,000"),
        (TRAINED, "  workers: 3\n", "e.yaml:11: train: batch_size 8 cannot be shared by 3 workers; give a multiple of 3"),
        (TRAINED, "  micro_batch_size: 3\n", "e.yaml:10: train: micro_batch_size 3 does not divide the 8 samples per worker"),
        ("samples: 64", "samples: 4", "e.yaml:9: train: samples 4 is less than batch_size 8"),
        # tasks and bases that contradict themselves
        ("tasks: [parity, count]", "tasks: []", "e.yaml:5: tasks is []; name at least 1"),
        ("tasks: [parity, count]", "tasks: [parity, parity]", "e.yaml:5: tasks names 'parity' more than once"),
        ("held_out: [name]", "held_out: [count]", "e.yaml:6: held_out names 'count', which is one of the tasks that are learned"),
        (BASE, "{}", "e.yaml:4: base names no model; give a checkpoint"),
        (BASE, "", "e.yaml:4: base has no value; give a checkpoint"),
        (BASE, "''", "e.yaml:4: base.checkpoint is the text ''; give a name or a path"),
        (BASE, "digits_llava", "write base: {pretrain: digits_llava}"),
        (BASE, "{checkpoint: a, pretrain: digits_llava}", "e.yaml:4: base names two models, checkpoint 'a' and pretrain 'digits_llava'"),
        (BASE, "{checkpoint: a, settings: {threads: 1}}", "e.yaml:4: base: settings belong to pretrain: digits_llava"),
        ("name: small", "name: a/b", "e.yaml:2: name is 'a/b', but a run's directory is called after it"),
        ("name: small", "name: report", "e.yaml:2: name is 'report', where reports on several runs are written"),
        ("alpha: 0.5", "tracking: {uri: foo}", "e.yaml:7: tracking.uri is 'foo', which is neither a tracking server"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(refused: Callable[..., Ended], old: str, new: str, message: str) -> None:
    assert message in refused(changed(old, new)).err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "e.yaml is empty; an experiment begins with a line such as `recipe: wise_ft`"),
        ("# nothing\n", "e.yaml is empty"),
        ("- a\n", "what this file holds is a list"),
        ("hello\n", "what this file holds is the single value 'hello'"),
        ("a: [1\nb: }\n", "e.yaml:2: this is not valid YAML"),
        ("a:\n\t- b\n", "e.yaml:2: this is not valid YAML"),
        ("a: 1\nb: \0\n", "e.yaml:2: this is not valid YAML: a control character"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (EXPERIMENT + "---\na: 1\n", "e.yaml:13: this is not valid YAML"),
        ("a: " + "9" * 5000, "e.yaml:1: "),
        ("a: !!int x", "e.yaml:1: 'x' cannot be read as int"),
    ],
)
def test_a_file_that_is_no_experiment(refused: Callable[..., Ended], text: str | bytes, message: str) -> None:
    assert message in refused(text).err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alpha", "override 'alpha' is not of the form key=value, e.g. alpha=0.3"),
        ("alpha=", "command line: alpha has no value; give a number"),
        ("alpha=[", "override 'alpha=[': this is not valid YAML"),
        ("alpha=-1", "command line: alpha is -1; give at least 0"),
        ("alhpa=0.3", "command line: unknown key 'alhpa'; did you mean 'alpha'?"),
        ("alpha.x=1", "override 'alpha.x=1': alpha is 0.5, which has no keys inside; give alpha=..."),
        ("tasks.0=count", "tasks is ['parity', 'count'], which has no keys inside; give the whole list, e.g. tasks=[a,b]"),
        ("train=3", "command line: train is 3; give keys and values"),
        ("workspace=e.yaml", "e.yaml is a file; name a directory"),
        ("workspace=e.yaml/below", "lies below"),
        ("base=no/such/place", "command line: base: checkpoint 'no/such/place' does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_an_override_is_refused_alike_by_all_commands(
    refused: Callable[..., Ended], command: str, override: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would fail: nothing may get that far
    assert message in refused(EXPERIMENT, override, command=command, code=3 if override.startswith("base=") else 2).err


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(refused: Callable[..., Ended]) -> None:
    text = changed("partiy", "partiy", EXPERIMENT.replace("parity", "partiy").replace("alpha:", "alhpa:").replace("max_steps", "max_stpes"))
    lines = refused(text).err.splitlines()
    assert [line.removeprefix("error: ").partition(": ")[0] for line in lines] == ["e.yaml:5", "e.yaml:7", "e.yaml:10"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("recipe: sequential", "recipe: sequentail", "e.yaml:9: arm 'plain': unknown recipe 'sequentail'; did you mean 'sequential'?"),
        ("{recipe: sequential}", "{}", "e.yaml:9: arm 'plain' names no recipe; add one of sequential, wise_ft"),
        (
            "    alpha: 0.5",
            "    seed: 3",
            "e.yaml:12: arm 'averaged': 'seed' belongs to the whole comparison; list the seeds under 'seeds'",
        ),
        ("    alpha: 0.5", "    alhpa: 0.5", "e.yaml:12: unknown key 'alhpa'; did you mean 'alpha'?"),
        ("    alpha: 0.5", "    train: {max_steps: 0}", "e.yaml:12: train.max_steps is 0; give at least 1"),
        ("  train: {max_steps: 8}", "  alpha: 0.5", "e.yaml:7: unknown key 'alpha'; it is a key of recipe wise_ft, not of this one."),
        ("  plain: {recipe: sequential}", "  plain:", "e.yaml:9: arms.plain has no value; give keys and values"),
        ("seeds: [0, 1]", "seeds: []", "e.yaml:3: seeds is []; name at least 1"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "e.yaml:3: seeds [0, 0] name one seed twice"),
        ("seeds: [0, 1]", "seeds: [-1]", "e.yaml:3: seeds[0] is -1; give at least 0"),
        ("  averaged:", "  plain :", "e.yaml:10: key 'plain' stands here and on line 9"),
        ("  plain: {recipe: sequential}", "  a b: {recipe: sequential}\n  a/b: {recipe: sequential}", "would share a directory"),
    ],
)
def test_a_mistake_in_a_comparison_is_named_with_its_arm_and_line(refused: Callable[..., Ended], old: str, new: str, message: str) -> None:
    assert message in refused(changed(old, new, COMPARE)).err


# Checkpoints


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained digits model as a checkpoint."""
    directory = tmp_path_factory.mktemp("checkpoints") / "whole"
    save_checkpoint(digits_llava(seed=0), digits_processor(all_texts()), directory)
    return directory


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: ended(capsys, *arguments)


def truncate(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_a_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors.pop(next(name for name in sorted(tensors) if "norm" in name))
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})


def cut_a_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    name = next(name for name in sorted(tensors) if "mlp" in name and tensors[name].dim() == 2)
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})


def empty_the_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"")


def drop_the_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()


def ask_for_own_code(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))


DAMAGES = {
    "truncated": (truncate, "is truncated"),
    "lacks a tensor": (drop_a_tensor, "lacks 1 of|1 missing"),
    "another shape": (cut_a_tensor, "shapes must be equal|mismatched"),
    "empty": (empty_the_weights, "is empty"),
    "no config": (drop_the_config, "config.json"),
    "own code": (ask_for_own_code, "auto_map"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("asked", ["validate", "run", "evaluate", "merge"])
def test_a_damaged_checkpoint_is_refused_before_anything_runs(
    command: Command, whole: Path, tmp_path: Path, damage: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (asked, damage) == ("merge", "no config"):
        pytest.skip("an average needs a config.json of the first checkpoint only")
    monkeypatch.setitem(sys.modules, "ray", None)
    shutil.copytree(whole, tmp_path / "hurt")
    spoil, message = DAMAGES[damage]
    spoil(tmp_path / "hurt")
    (tmp_path / "e.yaml").write_text(changed(BASE, "hurt"))
    before = everything_in(tmp_path)
    told = command(
        *{
            "validate": ("validate", "e.yaml"),
            "run": ("run", "e.yaml"),
            "evaluate": ("evaluate", "hurt", "--output", "answers"),
            "merge": ("merge", "--checkpoints", whole, "hurt", "--output", "out"),
        }[asked]
    )
    assert told.code == 3, told.said
    assert any(part in told.err for part in message.split("|")), told.err
    assert told.err.startswith("error: ")
    assert len([line for line in told.err.splitlines() if not line.startswith("note: ")]) == 1, told.err
    assert told.out == ""
    left = {name: content for name, content in everything_in(tmp_path).items() if name not in before}
    assert left == {}
    if asked in ("validate", "run"):
        assert told.err.startswith("error: e.yaml:4: base: ")


def test_a_part_that_the_base_has_not_is_refused(command: Command, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    save_checkpoint(LlamaForCausalLM(LlamaConfig(**sizes)), digits_processor(all_texts()).tokenizer, tmp_path / "text_only")
    (tmp_path / "e.yaml").write_text(changed(BASE, "text_only"))
    told = command("validate", "e.yaml")
    assert told.code == 3
    assert "part 'projector' matches no parameter" in told.err


@pytest.mark.parametrize("text", ["whole/", "./whole", "{checkpoint: whole}"])
def test_a_whole_checkpoint_is_taken(command: Command, whole: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(whole, tmp_path / "whole")
    (tmp_path / "e.yaml").write_text(changed(BASE, text))
    assert command("validate", "e.yaml").code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hwole", "there is no 'hwole' in {here}; did you mean whole?"),
        ("./hwole", "did you mean whole?"),
        ("whole/model.safetensors", "is a file; name the checkpoint directory it lies in: whole"),
        ("runs/tiny/checkpoints/base", "there is no 'runs' in"),
        ("whole/stage_1", "there is no 'stage_1' in"),
        ("bare", "holds no weights"),
    ],
)
@pytest.mark.parametrize("asked", ["validate", "evaluate", "merge"])
def test_a_mistyped_path_is_never_a_hub_id(command: Command, whole: Path, tmp_path: Path, asked: str, text: str, message: str) -> None:
    shutil.copytree(whole, tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    (tmp_path / "e.yaml").write_text(changed(BASE, text))
    arguments = {"validate": ("e.yaml",), "evaluate": (text,), "merge": ("--checkpoints", "whole", text, "--output", "out")}
    told = command(asked, *arguments[asked])
    assert told.code == 3
    assert message.format(here=tmp_path) in told.err


def test_what_has_the_form_of_a_hub_id_is_said_to_be_fetched(command: Command, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(changed(BASE, "some-org/some-model@main"))
    told = command("validate", "e.yaml")
    assert told.code == 0
    assert "some-org/some-model@main will be fetched from the hub when it runs" in told.out


@pytest.mark.parametrize(
    ("address", "code"), [("somewhere", 2), ("host:port", 2), (":6379", 2), ("127.0.0.1:1", 4), ("ray://127.0.0.1:1", 4)]
)
def test_a_cluster_that_is_not_there_is_told_at_once(command: Command, tmp_path: Path, address: str, code: int) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    told = command("run", "e.yaml", "--address", address)
    assert told.code == code, told.said
    assert address in told.err
    assert [path.name for path in tmp_path.iterdir()] == ["e.yaml"]


def test_a_workspace_that_the_system_refuses(command: Command, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    told = command("run", "e.yaml", "workspace=/proc/nowhere")
    assert told.code == 4
    assert "workspace /proc/nowhere cannot be written" in told.err
