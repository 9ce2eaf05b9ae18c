"""Save a modality-expert model as a plain Hugging Face directory, and load one so that nothing is missing."""

from pathlib import Path

import torch
from transformers import AutoConfig

from foundation.errors import InputError
from models.load import FAULTS, describe_fault, first_line, refuse_own_code, save_checkpoint
from models.modality_experts.config import ModalityExpertsConfig
from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.processor import PairProcessor


def save(model: ModalityExpertsModel, processor: PairProcessor, directory: str | Path) -> None:
    """Write model and processor to `directory`. Not atomic: write to a temporary neighbour and `publish_directory` it."""
    save_checkpoint(model, processor, directory)


def load(directory: str | Path, dtype: torch.dtype | str = torch.float32) -> ModalityExpertsModel:
    """The model in `directory`, on the CPU, in `dtype` ("auto": as stored), in evaluation mode.

    Raises InputError where the directory is no such model, or its tensors are not exactly the model's (names and shapes).
    """
    from safetensors import SafetensorError

    load_config(directory)
    try:
        model, report = ModalityExpertsModel.from_pretrained(
            directory, output_loading_info=True, dtype=dtype, trust_remote_code=False, ignore_mismatched_sizes=True
        )
    except (OSError, SafetensorError) as error:
        raise InputError(f"{directory}: its weights cannot be read: {first_line(error)}; copy the checkpoint again") from error
    faults = [describe_fault(fault, report[f"{fault}_keys"]) for fault in FAULTS if report[f"{fault}_keys"]]
    if faults:
        raise InputError(f"{directory}: the tensors do not fit its config: {'; '.join(faults)}; save the checkpoint again")
    return model.eval()


def load_config(directory: str | Path) -> ModalityExpertsConfig:
    """The configuration in `directory`; InputError where it is not one of a modality-expert model."""
    refuse_own_code(directory)
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{directory}: its config.json cannot be read: {first_line(error)}") from error
    if not isinstance(config, ModalityExpertsConfig):
        raise InputError(f"{directory}: holds a model of type {config.model_type!r}, not a modality-expert transformer; name one")
    return config
