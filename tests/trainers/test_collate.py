"""What a batch holds: the loss lies on the answer alone, and a kept row is the row that would be made."""

from pathlib import Path
from typing import Any

import pytest
import torch

from foundation.errors import InputError
from models.load import load_processor
from models.prompts import question_text
from tasks.registry import get_task
from tasks.task import Example, Split
from trainers.collate import IGNORED, AnswerCollator, stack_padded

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
    assert not collate.rows
    assert (batch["labels"] != IGNORED).any(dim=1).all()


def test_a_prompt_that_melts_into_the_answer_is_refused(processor: Any) -> None:
    class Melting:
        """A tokenizer of whole texts."""

        def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
            return {"input_ids": [[len(text)] for text in texts]}

    class Melted:
        """The digits processor with that tokenizer for counting."""

        chat_template = processor.chat_template
        apply_chat_template = processor.apply_chat_template

    melted: Any = Melted()
    melted.tokenizer = Melting()
    collate = AnswerCollator(EXAMPLES, melted)
    with pytest.raises(InputError, match=r"example 'parity/train/0/0'.*cannot be learned alone"):
        collate._answer_lengths(EXAMPLES[:1], ["whole text"])


def test_tensors_of_different_size_are_filled_at_the_end() -> None:
    stacked = stack_padded([torch.ones(2, 3), torch.ones(1, 4)], fill=7)
    assert stacked.tolist() == [[[1, 1, 1, 7], [1, 1, 1, 7]], [[1, 1, 1, 1], [7, 7, 7, 7]]]
