"""What the tests of modality stages share: tiny starts, short stages over digits, and a batch made by hand."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.processor import pair_processor
from models.modality_experts.saving import save
from models.modality_experts.starts import new
from models.modality_experts.tiny import digits_config, word_tokenizer
from tasks.pairs.digits import DigitsCaptions, corpus
from tasks.pairs.records import PairSet
from trainers.learn import learn
from trainers.modality.spec import HEADS_OF, ModalityLearning, ModalitySpec, Objective
from trainers.spec import TrainSpec
from trainers.stage import StageResult

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "patch_size": 16, "fusion_layer": 1}
WORDS = 132
"""The words of the digits' tokenizer."""
ALL = (Objective.ITC, Objective.ITM, Objective.MLM, Objective.TEXT_MLM, Objective.MIM)


class CrashError(Exception):
    """Thrown in the middle of a stage."""


def heads_for(objectives: Sequence[Objective]) -> list[str]:
    """The heads that these need."""
    return [head for name in objectives for head in HEADS_OF[name]]


def model_of(objectives: Sequence[Objective], seed: int = 0, **changes: Any) -> ModalityExpertsModel:
    """An untrained tiny model with the heads for `objectives`."""
    return new(digits_config(**{**TINY, "vocab_size": WORDS, "heads": heads_for(objectives), **changes}), seed)


def start_for(directory: Path, objectives: Sequence[Objective], **changes: Any) -> Path:
    """Such a model as a checkpoint."""
    model = model_of(objectives, **changes)
    save(model, pair_processor(word_tokenizer(corpus()), model.config), directory)
    return directory


def learning(objectives: Sequence[Objective] = ALL, sets: tuple[PairSet, ...] = (DigitsCaptions(),), **changes: Any) -> ModalityLearning:
    """Seven steps over two whole batches an epoch; `changes` are fields of the TrainSpec."""
    short = {"parts": ("glob:*",), "learning_rate": 1e-3, "max_steps": 7, "samples": 20, "batch_size": 8, "save_steps": 2, "log_steps": 3}
    return ModalityLearning(sets, ModalitySpec(TrainSpec(**{**short, **changes}), tuple((name, 1.0) for name in objectives)))


def run(start: Path, home: Path, name: str, what: ModalityLearning, on_log: Any = None) -> StageResult:
    """The stage called `name`: output in home / name, its checkpoints in home / "name-work"."""
    return learn(what, start, home / name, home / f"{name}-work", on_log)


def crash(start: Path, home: Path, name: str, what: ModalityLearning, at: int) -> None:
    """Run a stage until its window ends at step `at`, and throw there, before that step's checkpoint."""

    def thrown(step: int, values: dict[str, float]) -> None:
        if step == at:
            raise CrashError

    with contextlib.suppress(CrashError):
        run(start, home, name, what, thrown)
        raise AssertionError(f"the stage never logged step {at}")


def batch_of(model: ModalityExpertsModel, pairs: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch for all objectives on captions, drawn at random; texts of different lengths, the first two the same."""
    config, draw = model.config, torch.Generator().manual_seed(seed)
    length, side, patches = config.max_text_length, config.image_size, config.patches
    ids = torch.randint(5, config.vocab_size, (pairs, length), generator=draw)
    mask = (torch.arange(length) < torch.randint(4, length, (pairs, 1), generator=draw)).long()
    ids[1], mask[1] = ids[0], mask[0]
    labels = ids.masked_fill(torch.rand(ids.shape, generator=draw) > 0.3, -100).masked_fill(mask == 0, -100)
    pixels: Callable[[], torch.Tensor] = lambda: torch.rand(pairs, 3, side, side, generator=draw)  # noqa: E731
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "pixel_values": pixels(),
        "other_pixels": pixels(),
        "masked_ids": ids.masked_fill(labels >= 0, 4) * mask,
        "masked_labels": labels,
        "text_ids": ids.masked_fill(labels >= 0, 4) * mask,
        "text_mask": mask,
        "text_labels": labels,
        "image_pixels": pixels(),
        "masked_patches": torch.rand(pairs, patches, generator=draw) < 0.5,
        "showings": torch.arange(pairs),
        "labels": torch.arange(pairs) % 2,
    }
