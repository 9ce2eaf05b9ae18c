"""Lengths before the first step are those of the rows, whatever a processor writes for images; images of files are not decoded for them."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_templates import CORPUS, byte_level, text_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Gemma3Processor, LlavaNextProcessor, LlavaOnevisionProcessor, PreTrainedTokenizerFast
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from foundation.errors import InputError
from tasks.files import examples as file_examples
from tasks.files import headers
from tasks.files.task import file_task
from tasks.task import Example, Role, Split, Turn
from trainers.data import lengths
from trainers.data.encoding import encode
from trainers.data.lengths import Alike, lengths_and_kinds, measure
from trainers.data.rehearsal import Kept
from trainers.spec import TrainSpec

SIDE = {"height": 16, "width": 16}
TILES = [[16, 32], [32, 16], [32, 32]]


def llava_next() -> Any:
    """Tiles every image by its shape."""
    tokenizer = text_tokenizer("bytes", "qwen")
    template, tokenizer.chat_template = tokenizer.chat_template, None
    images = LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIDE, image_grid_pinpoints=TILES, do_center_crop=True)
    return LlavaNextProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="full", chat_template=template, image_token="<image>"
    )


def onevision() -> Any:
    """Tiles an image only where it is the example's only one."""
    tokenizer = text_tokenizer("bytes", "chatml")
    template, tokenizer.chat_template = tokenizer.chat_template, None
    images = LlavaOnevisionImageProcessorPil(size=SIDE, image_grid_pinpoints=TILES)
    return LlavaOnevisionProcessor(
        images, tokenizer, None, num_image_tokens=4, vision_feature_select_strategy="full", chat_template=template, image_token="<image>"
    )


def gemma() -> Any:
    """Writes line breaks around every image, which become one token with those of the text beside it."""
    special = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<soft>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level([*CORPUS, "\n\n\n\nA\n\n\n\nB\n\n\n\n"] * 9, False), eos_token="<|im_end|>", pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"], extra_special_tokens=special, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    template = text_tokenizer("bytes", "chatml").chat_template.replace("<image>", "<start_of_image>")
    return Gemma3Processor(Gemma3ImageProcessorPil(size=SIDE), tokenizer, chat_template=template, image_seq_length=4)


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    """Processors that write images out in unlike ways. (A check of classes would want torchvision for videos.)"""
    patch = pytest.MonkeyPatch()
    patch.setattr("transformers.processing_utils.ProcessorMixin.check_argument_for_proper_class", lambda self, name, given: type(given))
    made = {"llava_next": llava_next(), "onevision": onevision(), "gemma": gemma()}
    patch.undo()
    return made


sizes = st.tuples(st.integers(4, 70), st.integers(4, 70))
words = st.sampled_from(["\nAnd this?", "?", "Which\n\ndigit?\n", " It is "])


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["llava_next", "onevision", "gemma"]),
    shown=st.lists(sizes, max_size=3),
    said=st.tuples(words, words),
    mark=st.booleans(),
)
def test_lengths_are_those_of_the_rows(
    processors: dict[str, Any], name: str, shown: list[tuple[int, int]], said: tuple[str, str], mark: bool
) -> None:
    images = tuple(Image.new("RGB", size, "red") for size in shown)
    before = (Turn(Role.USER, said[0] + "<image>" * (mark and bool(images))), Turn(Role.ASSISTANT, "It is three."))
    question = said[1].join(["<image>"] * (len(images) - (mark and bool(images)))) + said[1]
    examples = [Example("a", images, question, "Purple.", before), Example("b", (), "Which?", "None.")]
    rows = encode(processors[name], examples)
    assert lengths_and_kinds(examples, processors[name]) == ([len(row["input_ids"]) for row in rows], [bool(images), False])


def test_files_are_measured_once_and_without_decoding(processors: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = {"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "This."}
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    records = [{"image": "a.png", "conversations": [asked, told]}, {"conversations": [told | {"from": "human"}, told]}]
    (tmp_path / "r.json").write_text(json.dumps(records))
    examples = Kept(file_task("t", train=tmp_path / "r.json").examples(Split.TRAIN), [1, 0])
    expected = [len(row["input_ids"]) for row in encode(processors["llava_next"], list(examples))]
    seen: list[int] = []
    outlined = lengths.outline
    monkeypatch.setattr(lengths, "outline", lambda held, place: seen.append(place) or outlined(held, place))
    for module in (file_examples, headers):
        monkeypatch.setattr(module, "open_picture", lambda *_: pytest.fail("decoded"))
    spec = TrainSpec(parts=("projector",), learning_rate=1.0, grouping="modality_length", max_length=max(expected))
    assert measure(examples, processors["llava_next"], spec) == Alike(expected, [False, True])
    assert seen == [0, 1]
    short = TrainSpec(parts=("projector",), learning_rate=1.0, max_length=max(expected) - 1)
    with pytest.raises(InputError) as error:
        measure(examples, processors["llava_next"], short)
    assert str(error.value) == (
        f"1 of 2 examples are too long: example 't/train/r.json/0' is {max(expected)} tokens long, but max_length is {max(expected) - 1}; "
        f"raise max_length to {max(expected)}, or take record 0 (from 0) of {tmp_path / 'r.json'} out"
    )
