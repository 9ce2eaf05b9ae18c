"""What carries the loss under the chat templates and tokenizers that the families use: all the assistant says, nothing else."""

from itertools import groupby
from typing import Any

import pytest
import torch
from chat_templates import ENDS, KINDS, QWEN3, TEMPLATES, image_processor, text_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextProcessor, Qwen2VLProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from foundation.errors import InputError
from models.prompts import conversation, question_text, special_tokens
from tasks.task import Example, Role, Turn
from trainers.data.collate import AnswerCollator, lay_out
from trainers.data.encoding import IGNORED, encode

BLACK = Image.new("RGB", (40, 30))
FIRST = (Turn(Role.USER, "Which digit is shown?"), Turn(Role.ASSISTANT, "It is three."))
TALK = Example("talk", (), "And the color of it?", "Purple, I would say: ①.", FIRST)
PICTURES = Example(
    "pictures",
    (BLACK, BLACK, BLACK),
    "<image>And <image>?",
    "Both are black.",
    (Turn(Role.USER, "<image>\nWhich digit?"), Turn(Role.ASSISTANT, "None.")),
)


def learned(tokenizer: Any, row: dict[str, torch.Tensor]) -> list[str]:
    """The runs of tokens with loss, as text."""
    tokens = zip(row["input_ids"].tolist(), row["labels"].tolist(), strict=True)
    runs = [(keep, [token for token, _ in run]) for keep, run in groupby(tokens, key=lambda token: token[1] != IGNORED)]
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False).strip() for keep, run in runs if keep]


def said(template: str, example: Example) -> list[str]:
    """What shall be learned, turn by turn; LLaVA's own template ends the last answer only, with the token that is added."""
    answers = [turn.text for turn in example.turns if turn.role is Role.ASSISTANT]
    return [answer + (ENDS[template] if template != "llava" or place == len(answers) - 1 else "") for place, answer in enumerate(answers)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "llava"])
def test_every_answer_of_a_text_conversation_is_learned(kind: str, template: str) -> None:
    tokenizer = text_tokenizer(kind, template)
    row = encode(tokenizer, [TALK])[0]
    assert learned(tokenizer, row) == said(template, TALK)
    assert (row["input_ids"] == tokenizer.bos_token_id).sum() == (template in ("llama3", "mistral") or kind == "words")
    assert row["labels"][-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_answer_about_pictures_is_learned(kind: str, template: str) -> None:
    """The tokens of the prompt, as the processor makes them for an evaluator, are the ones before the last answer."""
    processor = image_processor(kind, template)
    for example in (PICTURES, Example("one", (BLACK,), "Which digit is shown?", "It is three.")):
        row = encode(processor, [example])[0]
        assert learned(processor.tokenizer, row) == said(template, example)
        prompt = question_text(processor, len(example.images), example.question, example.before)
        asked = processor(text=[prompt], images=[list(example.images)], return_tensors="pt", **special_tokens(processor, prompt))
        length = asked["input_ids"].shape[1]
        assert torch.equal(row["input_ids"][:length], asked["input_ids"][0])
        assert (row["labels"][length:] == row["input_ids"][length:]).all()
        assert (row["input_ids"] == processor.image_token_id).sum() == 16 * len(example.images)
        assert len(row["pixel_values"]) == len(example.images)


plain = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="<>|[]"), min_size=1, max_size=15)


@given(texts=st.lists(plain.filter(lambda text: text.strip()), min_size=4, max_size=4), which=st.data())
@settings(max_examples=60, deadline=None)
def test_learned_tokens_are_those_that_the_prompts_lack(texts: list[str], which: st.DataObject) -> None:
    """Against the plain way to tell: the tokens of each prompt are a prefix of the conversation's, and an answer's tokens follow them."""
    tokenizer = PLAIN[which.draw(st.sampled_from(sorted(PLAIN)))]
    talk = Example("talk", (), texts[2], texts[3], (Turn(Role.USER, texts[0]), Turn(Role.ASSISTANT, texts[1])))
    row = encode(tokenizer, [talk])[0]
    ids = row["input_ids"].tolist()
    expected = [IGNORED] * len(ids)
    text = conversation(tokenizer, 0, talk.turns).text
    for turns in (talk.turns[:1], talk.turns[:3]):
        begin = len(tokenized(tokenizer, question_text(tokenizer, 0, turns[-1].text, turns[:-1])))
        upto = conversation(tokenizer, 0, talk.turns[: len(turns) + 1]).text
        assert text.startswith(upto)
        end = len(tokenized(tokenizer, upto))
        expected[begin:end] = ids[begin:end]
    assert row["labels"].tolist() == expected


def tokenized(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, **special_tokens(tokenizer, text))["input_ids"]


PLAIN = {(kind, name): text_tokenizer(kind, name) for kind in KINDS for name in TEMPLATES if name != "llava"}


def test_a_template_that_rewrites_earlier_answers_is_refused() -> None:
    tokenizer = text_tokenizer("bytes", "qwen")
    tokenizer.chat_template = QWEN3
    with pytest.raises(InputError, match=r"example 'talk'.*turn 2 of 4.*in another way when the conversation goes on"):
        encode(tokenizer, [TALK])
    alone = Example("alone", (), "Which digit?", "Three.")
    assert learned(tokenizer, encode(tokenizer, [alone])[0]) == ["<think>\n\n</think>\n\nThree.<|im_end|>"]


def test_what_a_template_refuses_is_said() -> None:
    ordered = Example("o", (), "Which?", "This.", (Turn(Role.SYSTEM, "Be brief."),))
    with pytest.raises(InputError, match=r"example 'o'.*system, user.*Only user and assistant roles are supported"):
        encode(text_tokenizer("words", "mistral"), [ordered])
    for template in ("chatml", "qwen", "llama3", "vicuna"):
        assert "Be brief." in conversation(text_tokenizer("bytes", template), 0, ordered.turns).text


def test_a_prompt_that_melts_into_the_answer_is_refused() -> None:
    """The space at the prompt's end becomes part of the answer's first word."""
    tokenizer = text_tokenizer("words", "vicuna")
    tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(InputError, match=r"example 'm'.*'It is three\.</s>'.*cannot be learned alone"):
        encode(tokenizer, [Example("m", (), "Which?", "It is three.")])


def test_mixed_batches_hold_each_examples_images_in_order() -> None:
    """Text alone, one image and three: rows are kept and laid side by side, whatever came before."""
    processor = image_processor("bytes", "qwen")
    white = Example("white", (Image.new("RGB", (8, 8), "white"),), "Which digit is shown?", "None.")
    examples = [TALK, PICTURES, white]
    whole = AnswerCollator(examples, processor)
    batch = whole([2, 0, 1])
    assert [float(image.max()) > 0 for image in batch["pixel_values"]] == [True, False, False, False]
    assert sorted(whole.rows) == [0, 1, 2]
    none = AnswerCollator(examples, processor, room=0)([2, 0, 1])
    assert all(torch.equal(batch[name], none[name]) for name in batch)
    assert "pixel_values" not in whole([0, 0])


def test_llava_next_writes_an_image_out_by_its_size() -> None:
    """Tiles and image tokens differ from image to image; labels and the batch's tiles follow."""
    inner = image_processor("bytes", "qwen")
    side = {"height": 16, "width": 16}
    tiles = LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=side, image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]], do_center_crop=True
    )
    processor = LlavaNextProcessor(
        tiles,
        inner.tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=inner.chat_template,
        image_token="<image>",
    )
    wide, square = Image.new("RGB", (64, 20)), Image.new("RGB", (32, 32), "white")
    examples = [
        Example("wide", (wide,), "Which digit?", "None."),
        Example("both", (square, wide), "<image>?", "Both.", (Turn(Role.USER, "<image>\nWhich?"), Turn(Role.ASSISTANT, "None."))),
    ]
    rows = encode(processor, examples)
    assert [learned(processor.tokenizer, row) for row in rows] == [said("qwen", example) for example in examples]
    batch = AnswerCollator(examples, processor)([1, 0])
    assert batch["image_sizes"].tolist() == [[32, 32], [20, 64], [20, 64]]
    assert batch["pixel_values"].shape == (3, 5, 3, 16, 16)
    assert (batch["pixel_values"][1:, 3:] == 0).all()


def test_what_marks_image_tokens_is_there_for_rows_of_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen-VL's processor gives mm_token_type_ids for examples with images alone; the model wants them for every row."""
    pad = "<|image_pad|>"
    tokenizer = text_tokenizer("bytes", "chatml")
    template, tokenizer.chat_template = tokenizer.chat_template.replace("<image>", f"<|vision_start|>{pad}<|vision_end|>"), None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|vision_start|>", pad, "<|vision_end|>", "<|video_pad|>"]})
    check = "transformers.processing_utils.ProcessorMixin.check_argument_for_proper_class"  # wants torchvision, for videos
    monkeypatch.setattr(check, lambda self, name, given: type(given))
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
    collate = AnswerCollator([TALK, PICTURES], Qwen2VLProcessor(images, tokenizer, None, chat_template=template))
    batch = collate([0, 1, 0])
    assert torch.equal(batch["mm_token_type_ids"], (batch["input_ids"] == tokenizer.convert_tokens_to_ids(pad)).long())
    assert batch["mm_token_type_ids"].any(dim=1).tolist() == [False, True, False]
    assert batch["image_grid_thw"].shape == (3, 3)
    assert "mm_token_type_ids" not in collate([0, 0])


def test_what_goes_by_examples_with_images_is_laid_end_to_end() -> None:
    """As LLaVA-OneVision's batch_num_images: one number for each example that shows images."""
    row = {"input_ids": torch.arange(5), "labels": torch.arange(5)}
    batch = lay_out([row, row | {"counts": torch.tensor([2])}, row | {"counts": torch.tensor([1])}], fill=0)
    assert batch["counts"].tolist() == [2, 1]
