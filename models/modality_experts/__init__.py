"""One transformer for images, text and both, with experts per modality where the config says so: importing it registers the Auto classes.

    import models.modality_experts
    model = transformers.AutoModel.from_pretrained(directory)

The model of VLMo (Bao et al. 2021, arXiv 2111.02358) on BEiT's blocks (Bao et al. 2021, arXiv 2106.08254), as arXiv 2304.14933 merges it.
"""

from transformers import AutoConfig, AutoModel

from models.modality_experts.config import MODEL_TYPE, ModalityExpertsConfig
from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.processor import PairProcessor, load_processor, pair_processor
from models.modality_experts.saving import load, load_config, save

AutoConfig.register(MODEL_TYPE, ModalityExpertsConfig, exist_ok=True)
AutoModel.register(ModalityExpertsConfig, ModalityExpertsModel, exist_ok=True)

__all__ = [
    "ModalityExpertsConfig",
    "ModalityExpertsModel",
    "PairProcessor",
    "load",
    "load_config",
    "load_processor",
    "pair_processor",
    "save",
]
