"""Prompts: a conversation begins with its question, in text and in tokens, and ends with the end-of-text token."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.errors import InputError
from models.digits_llava import CHAT_TEMPLATE, digits_processor, digits_tokenizer
from models.prompts import IMAGE_MARK, Line, content, conversation, conversation_text, messages, question_text, tokenizer_of
from tasks.task import IMAGE_MARK as TASKS_MARK

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


def test_images_stand_where_they_are_marked() -> None:
    processor = PROCESSORS[CHATML]
    turns = [Line("user", "<image>\nFirst"), Line("assistant", "A"), Line("user", "Then <image> and\n<image>"), Line("assistant", "B")]
    text = conversation(processor, 3, turns).text
    assert text.count("<image>") == 3
    assert "user\n<image>First<|im_end|>" in text
    assert "user\nThen <image> and<image><|im_end|>" in text
    assert text.startswith(question_text(processor, 3, turns[2].text, turns[:2]))
    assert IMAGE_MARK == TASKS_MARK


def test_unmarked_images_come_first_and_once() -> None:
    turns = [Line("system", "S"), Line("user", "Q"), Line("assistant", "A"), Line("user", "R")]
    shown = [[part["type"] for part in message["content"]] for message in messages(PROCESSORS[CHATML], 2, turns)]
    assert shown == [["text"], ["image", "image", "text"], ["text"], ["text"]]


@given(st.lists(st.sampled_from(["<image>", "\n", "a", " "]), max_size=8).map("".join))
def test_only_line_breaks_beside_marks_are_lost(text: str) -> None:
    parts = content(0, text)
    assert sum(part["type"] == "image" for part in parts) == text.count("<image>")
    words = "".join(part["text"] for part in parts if part["type"] == "text")
    assert words.strip("\n") == text.replace("<image>", "").strip("\n")


def test_numbers_of_images_that_do_not_match_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 image\(s\) are given but <image> stands 1 time"):
        question_text(PROCESSORS[CHATML], 2, "<image>\nQ")
    with pytest.raises(InputError, match="what the assistant says holds <image>"):
        conversation_text(PROCESSORS[CHATML], 1, "Q", "<image>")
    tokenizer = digits_tokenizer(CORPUS)
    tokenizer.chat_template = CHATML
    with pytest.raises(InputError, match="no image processor"):
        question_text(tokenizer, 0, "<image>Q")


def test_a_turn_that_a_template_leaves_out_is_refused() -> None:
    tokenizer = digits_tokenizer(CORPUS)
    tokenizer.chat_template = "{% for message in messages if message['role'] != 'system' %}<|user|>{{ message['content'] }}{% endfor %}"
    with pytest.raises(InputError, match=r"leaves out or rewrites turn 1, the system's 'Be brief\.'"):
        conversation(tokenizer, 0, [Line("system", "Be brief."), Line("user", "Q"), Line("assistant", "A")])


def test_today_is_the_same_day_every_day() -> None:
    tokenizer = digits_tokenizer(CORPUS)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}: " + CHATML
    assert question_text(tokenizer, 0, "Q").startswith("26 Jul 2024: <|im_start|>")


def test_generation_marks_say_what_is_learned() -> None:
    """Where a template has them: also for an answer that is written in another way later on, and with the end token outside of them."""
    tokenizer = digits_tokenizer(CORPUS)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}:{% if message['role'] == 'assistant' %}{% if loop.last %} So,{% endif %}"
        "{% generation %} {{ message['content'] }}{% endgeneration %}<eos>{% else %} {{ message['content'] }};{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    said = conversation(tokenizer, 0, [Line("user", "Q"), Line("assistant", "A"), Line("user", "R"), Line("assistant", "B")])
    assert said.text == "user: Q;assistant: A<eos>user: R;assistant: So, B<eos>"
    assert [said.text[start:end] for start, end in said.learned] == [" A<eos>", " B<eos>"]
    assert said.text[: said.prompt] == "user: Q;assistant: A<eos>user: R;assistant:"
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{% generation %} {{ message['content'] }}", "{{ message['content'] }}{% generation %}"
    )
    with pytest.raises(InputError, match="leave out"):
        conversation(tokenizer, 0, [Line("user", "Q"), Line("assistant", "A")])
