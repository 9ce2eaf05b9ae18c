"""What a batch holds: the loss lies on the answer alone, and a kept row is the row that would be made."""

import re
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from foundation.errors import InputError
from models.load import load_processor
from models.prompts import Conversation, question_text
from tasks.registry import get_task
from tasks.task import Example, Split
from trainers.data.collate import IGNORED, AnswerCollator, concatenate, side_by_side
from trainers.data.encoding import encode, labels_of
from trainers.data.lengths import Alike, measure
from trainers.spec import Grouping, TrainSpec

EXAMPLES = [example for name in ("parity", "describe", "cell") for example in get_task(name).examples(Split.TRAIN, 3)]


@pytest.fixture(scope="module")
def processor(base: Path) -> Any:
    return load_processor(base)


def test_the_loss_is_on_the_answer_and_its_end(processor: Any) -> None:
    batch = AnswerCollator(EXAMPLES, processor)(range(len(EXAMPLES)))
    for row, example in enumerate(EXAMPLES):
        learned = batch["labels"][row][batch["labels"][row] != IGNORED]
        assert processor.tokenizer.decode(learned).strip() == f"{example.answer}{processor.tokenizer.eos_token}"


def test_the_prompt_is_as_long_as_the_processor_makes_it(processor: Any) -> None:
    """The collator counts the prompt's tokens in the text alone; here it is measured with the image in place."""
    batch = AnswerCollator(EXAMPLES, processor)(range(len(EXAMPLES)))
    for row, example in enumerate(EXAMPLES):
        prompt = question_text(processor, 1, example.question)
        asked = processor(text=[prompt], images=list(example.images), return_tensors="pt")["input_ids"][0]
        assert torch.equal(batch["input_ids"][row, : len(asked)], asked)
        assert (batch["labels"][row, : len(asked)] == IGNORED).all()
        assert batch["labels"][row, len(asked)] == batch["input_ids"][row, len(asked)]


def test_padding_is_on_the_right_and_without_loss(processor: Any) -> None:
    batch = AnswerCollator(EXAMPLES, processor)([0, 3])  # "parity" is shorter than "describe"
    mask = batch["attention_mask"]
    assert mask[0].tolist() == sorted(mask[0].tolist(), reverse=True)
    assert 0 in mask[0]
    assert (batch["labels"][mask == 0] == IGNORED).all()
    assert (batch["input_ids"][mask == 0] == processor.tokenizer.pad_token_id).all()


def test_a_batch_does_not_depend_on_what_was_kept(processor: Any) -> None:
    warm, full = AnswerCollator(EXAMPLES, processor), AnswerCollator(EXAMPLES, processor, room=0)
    warm([0, 1, 2, 3, 4, 5, 6])
    assert warm.rows
    assert not full.rows
    for indices in ([0, 3, 8], [8, 7], [5, 5, 0]):
        fresh = AnswerCollator(EXAMPLES, processor)(indices)
        for other in (warm(indices), full(indices)):
            assert fresh.keys() == other.keys()
            assert all(torch.equal(fresh[name], other[name]) for name in fresh)


def test_memory_is_bounded(processor: Any) -> None:
    one = AnswerCollator(EXAMPLES, processor)
    one([0])
    size = sum(tensor.nbytes for tensor in one.rows[0].values())
    collate = AnswerCollator(EXAMPLES, processor, room=2 * size)
    collate([0, 1, 2])
    assert len(collate.rows) == 2


def test_examples_with_several_images_are_not_mixed_up(processor: Any) -> None:
    """Two images on average would fool a cache that takes row i of pixel_values for example i."""
    pictures = [example.images[0] for example in EXAMPLES[:4]]
    some = [Example("two", tuple(pictures[:2]), "Which digit is shown?", "one"), Example("none", (), "Which digit is shown?", "two")]
    collate = AnswerCollator(some, processor)
    batch = collate([0, 1])
    assert len(batch["pixel_values"]) == 2
    assert len(collate.rows[0]["pixel_values"]) == 2
    assert "pixel_values" not in collate.rows[1]
    assert (batch["labels"] != IGNORED).any(dim=1).all()


def test_a_row_is_the_same_whatever_it_is_encoded_with(processor: Any) -> None:
    together = encode(processor, EXAMPLES)
    for example, row in zip(EXAMPLES, together, strict=True):
        alone = encode(processor, [example])[0]
        assert alone.keys() == row.keys()
        assert all(torch.equal(alone[name], row[name]) for name in alone)


def test_an_example_that_is_too_long_is_refused(processor: Any) -> None:
    lengths = [len(row["input_ids"]) for row in encode(processor, EXAMPLES)]
    longest = max(lengths)
    AnswerCollator(EXAMPLES, processor, max_length=longest)(range(len(EXAMPLES)))
    key = re.escape(EXAMPLES[lengths.index(longest)].key)
    with pytest.raises(InputError, match=rf"example '{key}' is {longest} tokens long, but max_length is {longest - 1}"):
        AnswerCollator(EXAMPLES, processor, max_length=longest - 1)(range(len(EXAMPLES)))


def test_what_is_wrong_with_an_example_is_said_with_its_key(processor: Any) -> None:
    with pytest.raises(InputError, match=r"example 'marked': 1 image\(s\) are given but <image> stands 2 time"):
        encode(processor, [Example("marked", EXAMPLES[0].images, "<image><image>?", "one")])
    blind = copy(processor)
    blind.chat_template = processor.chat_template.replace("<image>", "")
    with pytest.raises(
        InputError, match=r"example 'parity/train/0/0': LlavaProcessor refuses text or images: .* 0 <image> tokens and 1 images"
    ):
        encode(blind, EXAMPLES[:1])


SAID = Conversation("ask one ask two", prompt=11, learned=((3, 7), (11, 15)))
BORDERS = [(0, 3), (3, 7), (7, 11), (11, 15)]


@pytest.mark.parametrize(
    ("offsets", "asked", "answer"),
    [
        (BORDERS, [7, 7, 7], None),
        ([(0, 2), (2, 7), (7, 11), (11, 15)], [7, 7, 7], "' one'"),  # all of the first answer is in a token of its prompt
        ([(0, 2), (2, 5), (5, 7), (7, 11), (11, 15)], [7, 7, 7], "' one'"),  # or its beginning
        ([(0, 3), (3, 7), (7, 10), (10, 15)], [7, 7, 7], "' two'"),
        (BORDERS, [7, 7, 8], "' two'"),  # the prompt has other tokens when nothing follows it
    ],
)
def test_an_answer_that_cannot_be_learned_alone_is_refused(offsets: list[tuple[int, int]], asked: list[int], answer: str | None) -> None:
    ids, prompt = torch.full((len(offsets),), 7), (asked, [(0, 3), (3, 7), (7, 11)])
    example = Example("melting", (), "ask", "two")
    if answer is None:
        assert labels_of(ids, offsets, SAID, [], prompt, example).tolist() == [IGNORED, 7, IGNORED, 7]
        return
    with pytest.raises(InputError, match=rf"example 'melting'.*{answer}, so the answer cannot be learned alone"):
        labels_of(ids, offsets, SAID, [], prompt, example)


def test_tensors_of_different_size_are_filled_at_the_end() -> None:
    patches = concatenate([torch.ones(1, 2, 3), torch.ones(2, 1, 4)])
    assert patches.tolist() == [[[1, 1, 1, 0]] * 2, [[1] * 4, [0] * 4], [[1] * 4, [0] * 4]]
    assert side_by_side([torch.ones(2), torch.ones(3)], fill=7).tolist() == [[1, 1, 7], [1, 1, 1]]


@pytest.mark.parametrize("grouping", [Grouping.LENGTH, Grouping.MODALITY_LENGTH])
def test_lengths_are_those_of_the_rows(processor: Any, grouping: Grouping) -> None:
    """Also for images of other sizes, several of them, and none."""
    pictures = [example.images[0] for example in EXAMPLES[:3]]
    more = [Example("many", (*pictures, Image.new("L", (50, 9))), "Which?", "one"), Example("none", (), "Which?", "two")]
    examples = [*EXAMPLES, *more]
    expected = [len(row["input_ids"]) for row in encode(processor, examples)]
    spec = TrainSpec(parts=("projector",), learning_rate=1.0, grouping=grouping, max_length=max(expected))
    kinds = [True] * (len(examples) - 1) + [False]
    assert measure(examples, processor, spec) == Alike(expected, kinds if grouping is Grouping.MODALITY_LENGTH else None)
    with pytest.raises(InputError, match=r"1 of 11 examples are too long: example 'many' is \d+ tokens long, but max_length is"):
        measure(examples, processor, replace(spec, grouping=Grouping.NONE, max_length=max(expected) - 1))
    assert measure(examples, processor, replace(spec, grouping=Grouping.NONE)) == Alike()
