"""A stage that was interrupted goes on and ends with the same bytes; a damaged checkpoint never counts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from penalised import Crash, CrashError
from transformers import Trainer, TrainerCallback, TrainingArguments

from foundation.errors import ConfigError, InputError, ResourceError
from foundation.files import directory_manifest
from models.load import load_model, load_processor
from models.parts import set_trainable
from tasks.registry import get_task
from tasks.task import Split
from trainers.checkpoints.resume import MANIFEST, checkpoints, load_trained, save_trained, seal
from trainers.data.collate import AnswerCollator
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.lora import LoRA
from trainers.strategy import Adaptation, Context
from trainers.train import StageResult, companion_files

Stage = Callable[..., StageResult]
Logged = list[tuple[int, dict[str, float]]]


@dataclass(frozen=True)
class Crashing(FineTuning):
    """Plain fine-tuning that crashes; the step is no part of what the stage is."""

    at: int = field(default=0, repr=False)

    def start(self, model: Any, context: Context) -> Adaptation:
        """Freeze as FineTuning does."""
        return replace(super().start(model, context), callbacks=(Crash(self.at),))


@pytest.fixture
def crash(stage: Stage, spec: Any) -> Callable[..., None]:
    """Runs a stage until it crashes."""

    def run(name: str, at: int, **options: Any) -> None:
        with pytest.raises(CrashError):
            stage(name, strategy=Crashing(at), **options)

    return run


def steps_in(work: Path) -> list[str]:
    return [path.name for path in checkpoints(work)]


@pytest.mark.parametrize(("at", "resumed_from"), [(1, 0), (3, 2), (4, 2), (5, 4), (7, 6)])
def test_a_crashed_stage_ends_as_if_undisturbed(stage: Stage, crash: Any, spec: Any, tmp_path: Path, at: int, resumed_from: int) -> None:
    whole: Logged = []
    parts: Logged = []
    undisturbed = stage("whole", on_log=lambda *entry: whole.append(entry), strategy=Crashing())
    crash("parts", at, on_log=lambda *entry: parts.append(entry))
    resumed = stage("parts", on_log=lambda *entry: parts.append(entry), strategy=Crashing())
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")
    assert (resumed.resumed_from_step, resumed.loss) == (resumed_from, undisturbed.loss)
    values = [entry for entry in whole if "train/loss" in entry[1]]
    assert [entry for entry in values if entry not in parts] == []
    assert [entry for entry in parts if "train/loss" in entry[1] and entry not in values] == []


def test_crash_after_crash(stage: Stage, crash: Any, spec: Any, tmp_path: Path) -> None:
    stage("whole", strategy=Crashing())
    for at in (3, 3, 5, 7):
        crash("parts", at)
    stage("parts", strategy=Crashing())
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")


def test_only_the_newest_two_are_kept(crash: Any, tmp_path: Path) -> None:
    crash("parts", 7)
    assert steps_in(tmp_path / "parts-work") == ["checkpoint-4", "checkpoint-6"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a flipped bit": lambda checkpoint: flip(checkpoint / "optimizer.pt"),
    "a cut file": lambda checkpoint: (checkpoint / "model.safetensors").write_bytes(b""),
    "a lost file": lambda checkpoint: (checkpoint / "rng_state.pth").unlink(),
    "no manifest": lambda checkpoint: (checkpoint / MANIFEST).unlink(),
    "half a manifest": lambda checkpoint: (checkpoint / MANIFEST).write_text((checkpoint / MANIFEST).read_text()[:100]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(stage: Stage, crash: Any, spec: Any, tmp_path: Path, damage: str) -> None:
    stage("whole", strategy=Crashing())
    crash("parts", 7)
    DAMAGE[damage](tmp_path / "parts-work" / "checkpoint-6")
    assert stage("parts", strategy=Crashing()).resumed_from_step == 4
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")


def test_with_all_checkpoints_damaged_the_stage_starts_again(stage: Stage, crash: Any, spec: Any, tmp_path: Path) -> None:
    stage("whole", strategy=Crashing())
    crash("parts", 7)
    for checkpoint in checkpoints(tmp_path / "parts-work"):
        flip(checkpoint / "scheduler.pt")
    assert stage("parts", strategy=Crashing()).resumed_from_step == 0
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")


@dataclass(frozen=True)
class CrashingLoRA(LoRA):
    """LoRA that crashes; its dropout draws random numbers at every step."""

    at: int = field(default=0, repr=False)

    def start(self, model: Any, context: Context) -> Adaptation:
        """As LoRA does."""
        return replace(super().start(model, context), callbacks=(Crash(self.at),))


def test_random_numbers_of_other_workers(stage: Stage, tmp_path: Path) -> None:
    """One worker goes on from what two left: not as if undisturbed, for it has no random numbers to go on with, but always the same way."""
    stage("whole", strategy=CrashingLoRA(rank=4, dropout=0.5))
    with pytest.raises(CrashError):
        stage("same", strategy=CrashingLoRA(rank=4, dropout=0.5, at=5))
    for copy in ("first", "second"):
        shutil.copytree(tmp_path / "same-work", tmp_path / f"{copy}-work")
        checkpoint = tmp_path / f"{copy}-work" / "checkpoint-4"
        (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
        belongs_to = json.loads((checkpoint / MANIFEST).read_text())["stage"]
        seal(checkpoint, belongs_to)
    for name in ("same", "first", "second"):
        torch.rand(len(name))
        assert stage(name, strategy=CrashingLoRA(rank=4, dropout=0.5)).resumed_from_step == 4
    whole, same, first, second = (directory_manifest(tmp_path / name) for name in ("whole", "same", "first", "second"))
    assert whole == same != first == second


def test_what_is_not_ours_in_the_work_directory_stays(stage: Stage, crash: Any, tmp_path: Path) -> None:
    work = tmp_path / "parts-work"
    (work / "checkpoint-final").mkdir(parents=True)
    (work / "checkpoint-99").write_text("a file")
    crash("parts", 5)
    assert stage("parts", strategy=Crashing()).resumed_from_step == 4
    assert (work / "checkpoint-final").is_dir()
    assert (work / "checkpoint-99").read_text() == "a file"


def test_a_checkpoint_that_may_not_be_read_is_not_thrown_away(
    stage: Stage, crash: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash("parts", 5)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "optimizer.pt")
    with pytest.raises(ResourceError, match=r"checkpoint-4/optimizer.pt may not be read or removed by this process"):
        stage("parts", strategy=Crashing())
    assert steps_in(tmp_path / "parts-work") == ["checkpoint-2", "checkpoint-4"]


def test_execution_settings_may_change_on_the_way(stage: Stage, crash: Any, spec: Any, tmp_path: Path) -> None:
    stage("whole", strategy=Crashing())
    crash("parts", 5)
    assert stage("parts", strategy=Crashing(), save_steps=1, log_steps=2).resumed_from_step == 4
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0.5}, "its learning_rate is 0.001, this stage's is 0.5"),
        ({"flip": "model.safetensors"}, "its start"),
        ({"flip": "chat_template.jinja"}, "its start"),
    ],
)
def test_checkpoints_of_another_stage_are_refused(
    stage: Stage, crash: Any, spec: Any, base: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    crash("parts", 5)
    start = tmp_path / "start"
    shutil.copytree(base, start)
    if name := change.get("flip"):
        flip(start / name)
    with pytest.raises(ConfigError, match=said):
        stage("parts", start=start, strategy=Crashing(), **({} if name else change))
    assert steps_in(tmp_path / "parts-work") == ["checkpoint-2", "checkpoint-4"]


def test_all_that_lies_beside_the_weights_belongs_to_a_start(base: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(base, start)
    names = {path.name for path in base.iterdir()} - {"model.safetensors"}
    assert names >= {"config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"}
    (start / "additional_chat_templates").mkdir()
    for name in ("pytorch_model.bin", ".hidden", "additional_chat_templates/tool_use.jinja"):
        (start / name).write_text("")
    assert {path.name for path in companion_files(start)} == names | {"tool_use.jinja"}


def test_weights_of_other_parts_are_not_taken(base: Path, tmp_path: Path) -> None:
    model = load_model(base)
    set_trainable(model, ["projector"])
    save_trained(model, tmp_path / "checkpoint-1")
    set_trainable(model, ["language_model.mlp"])
    with pytest.raises(InputError, match=r"names differ, e.g. 'model.language_model.layers.0.mlp"):
        load_trained(model, tmp_path / "checkpoint-1")


def test_the_checkpoint_holds_trained_weights_by_their_names_in_memory(crash: Any, spec: Any, base: Path, tmp_path: Path) -> None:
    crash("parts", 3)
    model, start = load_model(base), load_model(base)
    set_trainable(model, spec.parts)
    load_trained(model, tmp_path / "parts-work" / "checkpoint-2")
    pairs = zip(model.named_parameters(), start.parameters(), strict=True)
    assert all(parameter.requires_grad != torch.equal(parameter, before) for (_, parameter), before in pairs)
    assert json.loads((tmp_path / "parts-work" / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2


def test_the_trainer_s_own_resume_would_restore_no_weights(base: Path, tmp_path: Path) -> None:
    """Why `resume.py` keeps names and loading in its own hands: without it the stage would go on from the start's weights, unnoticed."""
    collate = AnswerCollator(get_task("parity").examples(Split.TRAIN, 16), load_processor(base))
    seen: dict[str, list[torch.Tensor]] = {}

    class Look(TrainerCallback):
        """Notes the weights before the first step."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            seen["begin"] = [parameter.detach().clone() for parameter in model.parameters()]

    def naive() -> Trainer:
        settings = {"per_device_train_batch_size": 8, "max_steps": 2, "save_steps": 2, "learning_rate": 1e-3, "use_cpu": True}
        quiet = {"report_to": "none", "disable_tqdm": True, "remove_unused_columns": False}
        args = TrainingArguments(output_dir=str(tmp_path), **settings, **quiet)
        return Trainer(load_model(base, torch.float32), args, collate, range(16), callbacks=[Look()])

    first = naive()
    first.train()
    trained = list(first.model.parameters())
    naive().train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    start = list(load_model(base, torch.float32).parameters())
    assert not all(torch.equal(before, after) for before, after in zip(start, trained, strict=True))
    assert all(torch.equal(before, resumed) for before, resumed in zip(start, seen["begin"], strict=True))
