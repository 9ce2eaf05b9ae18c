"""Prompts: a conversation begins with its question, in text and in tokens, and ends with the end-of-text token."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.errors import InputError
from models.digits_llava import CHAT_TEMPLATE, digits_processor, digits_tokenizer
from models.prompts import conversation_text, question_text, tokenizer_of

CORPUS = ["Which digit is shown?", "three", "top left"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
plain = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="<>|"), min_size=1, max_size=20)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, CHATML, VICUNA])
@given(question=plain, answer=plain, n_images=st.integers(0, 2))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_conversation_begins_with_its_question(template: str, question: str, answer: str, n_images: int) -> None:
    processor = PROCESSORS[template]
    prompt, whole = question_text(processor, n_images, question), conversation_text(processor, n_images, question, answer)
    assert whole.startswith(prompt)
    assert whole.endswith(processor.tokenizer.eos_token)
    assert answer in whole[len(prompt) :]
    assert prompt.count("<image>") == n_images


def with_template(template: str) -> Any:
    processor = digits_processor(CORPUS)
    processor.chat_template = template
    if "im_end" in template:
        processor.tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "extra_special_tokens": ["<|im_start|>"]})
    return processor


PROCESSORS = {template: with_template(template) for template in (CHAT_TEMPLATE, CHATML, VICUNA)}


def test_a_conversation_begins_with_its_question_in_tokens_too() -> None:
    processor = PROCESSORS[CHAT_TEMPLATE]
    for answer in CORPUS:
        prompt = processor.tokenizer(question_text(processor, 1, CORPUS[0]))["input_ids"]
        whole = processor.tokenizer(conversation_text(processor, 1, CORPUS[0], answer))["input_ids"]
        assert whole[: len(prompt)] == prompt
        assert whole[-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.decode(whole[len(prompt) : -1]).strip() == answer


def test_what_follows_the_end_of_an_answer_is_not_learned() -> None:
    assert conversation_text(PROCESSORS[CHATML], 0, "Q", "A").endswith("assistant\nA<|im_end|>")
    assert conversation_text(PROCESSORS[VICUNA], 1, "Q", "A") == "USER: <image>\nQ ASSISTANT: A<eos>"


def test_text_only_models_use_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = digits_tokenizer(CORPUS)
    tokenizer.chat_template = CHATML
    assert tokenizer_of(tokenizer) is tokenizer
    assert question_text(tokenizer, 0, "Q") == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(InputError, match="1 image"):
        question_text(tokenizer, 1, "Q")


def test_faults_are_named() -> None:
    bare = digits_tokenizer(CORPUS)
    with pytest.raises(InputError, match="no chat template"):
        question_text(bare, 0, "Q")
    bare.chat_template = "{% if add_generation_prompt %}ASK{% else %}TELL{% endif %}"
    with pytest.raises(InputError, match="not beginning with its prompt 'ASK'"):
        conversation_text(bare, 0, "Q", "A")
    endless = digits_tokenizer(CORPUS)
    endless.chat_template = CHATML
    endless.eos_token = None
    with pytest.raises(InputError, match="no eos_token"):
        conversation_text(endless, 0, "Q", "A")
