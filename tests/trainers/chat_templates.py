"""Chat templates of well-known families, as their publishers describe the formats, for a tokenizer that knows their special tokens."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from models.digits_llava import digits_processor

CORPUS = ["Which digit is shown?", "It is three.", "And the color of it?", "Purple, I would say.", "USER ASSISTANT system user assistant"]

PARTS = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + PARTS
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen writes it, without a default system turn."""

QWEN = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}" + CHATML
"""Qwen2's: a default system turn where none is given."""

QWEN3 = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    + PARTS
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes an answer in another way once the conversation goes on."""

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}" + PARTS + "{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Llama 3's: writes the first token itself and trims."""

VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    + PARTS
    + " {% else %}{{ message['role'].upper() }}: "
    + PARTS
    + "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""Vicuna's, LLaVA-1.5's language model."""

LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}{% else %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""LLaVA-1.5's as it is on the hub: generation marks, images first, and no end token."""

MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ('user', 'assistant') %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% if message['role'] == 'user' %}[INST] " + PARTS + " [/INST]{% else %} " + PARTS + "</s>{% endif %}{% endfor %}"
)
"""Mistral-Instruct's: no generation prompt of its own, and no system turn."""

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]", "<s>", "</s>")

ENDS = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama3": "<|eot_id|>", "vicuna": "</s>", "llava": "</s>", "mistral": "</s>"}
TEMPLATES = {"chatml": CHATML, "qwen": QWEN, "llama3": LLAMA3, "vicuna": VICUNA, "llava": LLAVA, "mistral": MISTRAL}
"""By name, those that work for conversations of several turns; `ENDS` is the token that ends an answer."""


def byte_level(corpus: list[str], prefix: bool) -> Any:
    """A byte-level BPE, with or without a space before each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=not prefix)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def word_pieces(corpus: list[str]) -> Any:
    """A tokenizer like Llama 2's and Mistral's: spaces are part of words, bytes where a letter is unknown, <s> put before every text."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "<s>"]
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False))
    first = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", first)])
    return tokenizer


KINDS = {"bytes": lambda corpus: byte_level(corpus, False), "spaced": lambda corpus: byte_level(corpus, True), "words": word_pieces}
"""Tokenizers of the kinds that the families use."""


def text_tokenizer(kind: str, template: str) -> Any:
    """A tokenizer of that kind with a chat template of TEMPLATES and the end token that goes with it."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](CORPUS), bos_token="<s>", eos_token=ENDS[template], unk_token="<unk>", pad_token="<pad>",
        additional_special_tokens=[*SPECIAL, "<image>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def image_processor(kind: str, template: str) -> Any:
    """LLaVA's processor around that tokenizer; 16 tokens an image."""
    tokenizer = text_tokenizer(kind, template)
    template_text, tokenizer.chat_template = tokenizer.chat_template, None
    images = digits_processor(["one"]).image_processor
    return LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="full", chat_template=template_text, image_token="<image>"
    )
