"""Makes the modality-expert model that an experiment starts from, with its tokenizer and image processor, in a directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.errors import InputError


def start_experts(origin: str, config: Mapping[str, Any], source: Path, tokenizer_place: Path, copy: bool, seed: int, output: Path) -> int:
    """Write the model to `output`; returns how many weights it has."""
    from models.modality_experts import pair_processor, save
    from models.modality_experts.config import ModalityExpertsConfig
    from models.modality_experts.starts import from_beit, from_vlmo, new
    from models.modality_experts.tiny import digits_config, word_tokenizer

    if origin == "digits":
        from tasks.pairs.registry import corpus

        tokenizer = word_tokenizer(corpus())
        settings = digits_config(vocab_size=len(tokenizer), **config)
    else:
        tokenizer = read_tokenizer(tokenizer_place)
        settings = ModalityExpertsConfig(**{"vocab_size": len(tokenizer), **config})
    if origin == "beit":
        model = from_beit(source, settings, copy=copy, seed=seed)
    elif origin == "vlmo":
        model = from_vlmo(source, settings, seed=seed)
    else:
        model = new(settings, seed)
    save(model, pair_processor(tokenizer, settings), output)
    return sum(parameter.numel() for parameter in model.parameters())


def read_tokenizer(directory: Path) -> Any:
    """The fast tokenizer in a directory; nothing is fetched and no code of its own is run. InputError where there is none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from models.load import first_line

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare ones
        raise InputError(f"{directory}: its tokenizer cannot be read: {first_line(error)}; give a BERT tokenizer") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.pad_token_id is None:
        raise InputError(f"{directory}: holds {type(tokenizer).__name__}, no fast tokenizer with a padding token; give a BERT tokenizer")
    return tokenizer
