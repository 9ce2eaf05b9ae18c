"""A stage over pairs: it learns, leaves frozen parts alone, and ends with the same bytes however it is interrupted or cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from modality_stages import ALL, crash, learning, model_of, run, start_for
from safetensors.torch import load_file

from foundation.errors import ConfigError, InputError
from foundation.files import directory_manifest
from models.modality_experts.processor import load_processor
from models.modality_experts.saving import load, save
from models.modality_experts.starts import reshaped
from tasks.pairs.digits import DigitsCaptions, DigitsComparisons, DigitsLabels, DigitsQuestions
from trainers.checkpoints.milestones import milestone_directory
from trainers.modality.spec import Augmentation, Objective
from trainers.parameter_groups import without_decay


class Logged:
    """What was logged, by step."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}

    def __call__(self, step: int, values: dict[str, float]) -> None:
        self.steps[step] = self.steps.get(step, {}) | values

    def __getitem__(self, step: int) -> dict[str, float]:
        return {name: value for name, value in self.steps[step].items() if name != "train/samples_per_second"}


CAPTIONS = (DigitsCaptions(captions=2),)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with layers that are dropped by chance, so that a resumed stage has random numbers to go on with."""
    return start_for(tmp_path_factory.mktemp("start") / "start", ALL, sharing="all", drop_path=0.3)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def test_a_crashed_stage_ends_as_if_undisturbed(start: Path, tmp_path: Path) -> None:
    whole, parts = Logged(), Logged()
    what = learning(sets=CAPTIONS, milestones=(3,))
    what = replace(what, modality=replace(what.modality, augmentation=Augmentation.RANDOM))
    undisturbed = run(start, tmp_path, "whole", what, whole)
    crash(start, tmp_path, "parts", what, at=6)
    resumed = run(start, tmp_path, "parts", what, parts)
    assert (resumed.resumed_from_step, resumed.loss) == (4, undisturbed.loss)
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")
    milestones = [milestone_directory(tmp_path / name, 3) for name in ("whole", "parts")]
    assert directory_manifest(milestones[0]) == directory_manifest(milestones[1])
    assert {name for name in whole[6] if "loss" in name} == {"train/loss", *(f"train/loss_{name.value}" for name in ALL)}
    assert parts[6] == whole[6]
    assert whole[6]["train/loss"] == pytest.approx(sum(whole[6][f"train/loss_{name.value}"] for name in ALL), rel=1e-6)


def test_batches_made_in_processes_of_their_own_are_the_same(start: Path, tmp_path: Path) -> None:
    for name, loaders in (("own", 0), ("beside", 2)):
        run(start, tmp_path, name, learning(sets=CAPTIONS, max_steps=3, loaders=loaders))
    assert directory_manifest(tmp_path / "own") == directory_manifest(tmp_path / "beside")


def test_another_stage_s_checkpoints_are_refused(start: Path, tmp_path: Path) -> None:
    crash(start, tmp_path, "parts", learning(), at=3)
    with pytest.raises(ConfigError, match="its sets is"):
        run(start, tmp_path, "parts", learning(sets=CAPTIONS))


def test_frozen_parts_keep_their_bits_and_trained_ones_move(start: Path, tmp_path: Path) -> None:
    result = run(start, tmp_path, "out", learning(parts=("glob:*.v.*", "glob:heads.itc.*"), max_steps=2, weight_decay=0.1))
    before, after = weights(start), weights(tmp_path / "out")
    learned = {name for name in before if ".v." in name or name.startswith("heads.itc.")}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == learned
    assert sum(result.trained_parameters.values()) == sum(before[name].numel() for name in learned)
    processors = [load_processor(place).texts(["red three"])["input_ids"] for place in (start, tmp_path / "out")]
    assert torch.equal(*processors)


@pytest.mark.parametrize("micro", [2, 4])
def test_a_mean_over_words_does_not_depend_on_the_cut(tmp_path: Path, micro: int) -> None:
    """Micro batches hide different numbers of words. Rounding aside: a mean of means is off by 1e-3 and more."""
    objectives = (Objective.MLM, Objective.TEXT_MLM, Objective.MIM)
    start = start_for(tmp_path / "start", objectives)
    logged = []
    for name, size in (("whole", 8), ("cut", micro)):
        steps = Logged()
        run(start, tmp_path, name, learning(objectives, max_steps=1, micro_batch_size=size), steps)
        logged.append(steps[1])
    for name in logged[0]:
        assert logged[1][name] == pytest.approx(logged[0][name], rel=1e-5), name


def test_seed_then_specific_experts_learn(tmp_path: Path) -> None:
    """Two stages, the second with experts of its own that start as copies: both lower the loss, which goes on from where it was."""
    objectives = (Objective.MLM, Objective.ITC)
    start = start_for(tmp_path / "start", objectives)
    longer: dict[str, Any] = {"max_steps": 20, "batch_size": 16, "samples": 160, "learning_rate": 5e-3, "log_steps": 4}
    seed, specific = Logged(), Logged()
    run(start, tmp_path, "seed", learning(objectives, **longer), seed)
    model = reshaped(tmp_path / "seed", sharing="all")
    save(model, load_processor(tmp_path / "seed"), tmp_path / "own")
    run(tmp_path / "own", tmp_path, "specific", learning(objectives, **longer, seed=1), specific)
    words = "train/loss_mlm"
    assert seed[20][words] < seed[4][words] - 0.8
    assert specific[20][words] < specific[4][words] < seed[4][words] - 0.5
    assert load(tmp_path / "specific").config.sharing == "all"


FINE_TUNING = {
    Objective.RETRIEVAL: DigitsCaptions(),
    Objective.VQA: DigitsQuestions(),
    Objective.NLVR2: DigitsComparisons(),
    Objective.CLASSIFICATION: DigitsLabels(),
}


@pytest.mark.parametrize("objective", FINE_TUNING)
def test_fine_tuning(tmp_path: Path, objective: Objective) -> None:
    """Twenty steps over one batch of sixteen: the loss falls to less than nine tenths. Heads learn at a rate of their own."""
    pairs: Any = FINE_TUNING[objective]
    choices = list(pairs.choices())
    start = start_for(
        tmp_path / "start", [objective], answers=choices, classes=choices, token_types=3, initializer_range=0.2, layer_scale=1.0
    )
    logged = Logged()
    rates = {"learning_rate": 3e-3, "learning_rates": (("glob:heads.*", 1e-2),)}
    short: dict[str, Any] = {"max_steps": 20, "batch_size": 16, "samples": 16, "log_steps": 1, **rates}
    run(start, tmp_path, "out", learning([objective], (pairs,), **short), logged)
    assert logged[20]["train/loss"] < 0.9 * logged[1]["train/loss"]


def test_no_decay_for_norms_vectors_and_position_biases() -> None:
    model = model_of((Objective.ITC, Objective.MIM, Objective.MLM), sharing="all")
    exempt = without_decay(model)
    decayed = {name for name, parameter in model.named_parameters() if id(parameter) not in exempt}
    ends = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "dense.weight", "decoder.weight", "out.weight", "projection.weight")
    assert {name for name in decayed if not name.endswith(ends)} == {
        "embeddings.word.weight",
        "embeddings.token_type.weight",
        "embeddings.patch.weight",
    }
    assert {name.rsplit(".", 1)[1] for name, _ in model.named_parameters() if name not in decayed} == {
        "weight",
        "bias",
        "q_bias",
        "v_bias",
        "gamma1",
        "gamma2",
        "cls",
        "mask_patch",
        "table",
        "logit_scale",
    }


@pytest.mark.parametrize(
    ("objectives", "sets", "changes", "said"),
    [
        (ALL, (DigitsCaptions(),), {"packing": True}, "packing is not for modality-expert models"),
        (ALL, (DigitsCaptions(),), {"micro_batch_size": 1}, "itc, itm compares the pairs of a micro batch"),
        ((Objective.RETRIEVAL, Objective.MLM), (DigitsLabels(),), {}, "learn from captions"),
        ((Objective.ITC,), (DigitsCaptions(),), {"milestones": (7,), "max_steps": None, "epochs": 1.0}, "the stage ends after step 2"),
    ],
)
def test_what_no_stage_can_honour_is_refused(
    start: Path, tmp_path: Path, objectives: Any, sets: Any, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(start, tmp_path, "out", learning(objectives, sets, **changes))
    assert not (tmp_path / "out").exists()


def test_a_start_without_the_heads_is_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the model has no head 'vqa' \(it has mlm, itm, itc, itc_vl, mim\)"):
        run(start, tmp_path, "out", learning((Objective.VQA,), (DigitsQuestions(),)))
    other = start_for(tmp_path / "other", [Objective.CLASSIFICATION], classes=["cat", "dog"])
    with pytest.raises(InputError, match=r"choices of the sets, e.g. 'eight', are none of the 2"):
        run(other, tmp_path, "out", learning((Objective.CLASSIFICATION,), (DigitsLabels(),)))
    single = start_for(tmp_path / "single", [Objective.NLVR2], token_types=2)
    with pytest.raises(InputError, match="2 token types; start from one with 3"):
        run(single, tmp_path, "out", learning((Objective.NLVR2,), (DigitsComparisons(),)))


def test_how_a_stage_runs_changes_no_bit_and_its_precision_little(start: Path, tmp_path: Path) -> None:
    """Recomputed activations, dropped layers among them, are the same; bfloat16 keeps 8 bits, and four steps move the loss by little."""
    results = {
        name: run(start, tmp_path, name, learning(**{"max_steps": 4, "log_steps": 4, **changes}))
        for name, changes in {
            "plain": {},
            "again": {"gradient_checkpointing": True, "save_steps": 3},
            "half": {"precision": "bfloat16"},
        }.items()
    }
    assert results["again"].files == results["plain"].files
    assert results["half"].files != results["plain"].files
    assert results["half"].loss == pytest.approx(results["plain"].loss, rel=1e-2)
