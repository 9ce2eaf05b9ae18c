"""Batches of images with text: what each objective finds in one, and that a row follows from its showing alone."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from torch import Tensor
from torch.utils.data import DataLoader

from foundation.errors import ConfigError, InputError
from models.modality_experts.processor import PairProcessor, pair_processor
from models.modality_experts.tiny import digits_config, word_tokenizer
from tasks.pairs.digits import DigitsCaptions, DigitsLabels
from tasks.pairs.records import PairSet
from tasks.pairs.registry import corpus, get_pair_set
from tasks.task import Split
from trainers.data.encoding import IGNORED
from trainers.modality.data.addresses import Showing, ShowingOrder, beside
from trainers.modality.data.collate import KEYS, PairCollator
from trainers.modality.data.examples import pair_examples, pictures_of, text_of
from trainers.modality.data.masking import masked_count
from trainers.modality.spec import Augmentation, Masking, ModalitySpec, Objective
from trainers.spec import TrainSpec, plan_batches

TRAIN = TrainSpec(parts=("glob:*",), learning_rate=1e-3, batch_size=8, epochs=2.5)
PRETRAINING = ("mlm", "text_mlm", "itc", "itm", "mim")
STAGES = {
    "digits_captions": PRETRAINING,
    "digits_questions": ("vqa",),
    "digits_comparisons": ("nlvr2",),
    "digits_labels": ("classification",),
}
PATCHES = 16


@pytest.fixture(scope="module")
def processor() -> PairProcessor:
    tokenizer = word_tokenizer(corpus())
    return pair_processor(tokenizer, digits_config(vocab_size=len(tokenizer)))


def spec_of(objectives: Sequence[str], **changes: Any) -> ModalitySpec:
    return ModalitySpec(TRAIN, tuple((Objective(name), 1.0) for name in objectives), **changes)


def collator(processor: PairProcessor, name: str = "digits_captions", objectives: Sequence[str] | None = None, **more: Any) -> PairCollator:
    """Of the first 20 examples of a set; fields of the spec among `more` go there."""
    fields = {key: more.pop(key) for key in ("masking", "augmentation", "flip") if key in more}
    examples = pair_examples([get_pair_set(name)], count=20)
    return PairCollator(
        examples, processor, spec_of(objectives or STAGES[name], **fields), seed=more.pop("seed", 0), **{"patch_size": 8, **more}
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def rows(batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for place in range(len(batch["showings"])):
        yield {key: value[place : place + 1] for key, value in batch.items()}


@pytest.mark.parametrize("objective", list(Objective))
def test_a_batch_holds_what_the_objective_needs_and_no_more(processor: PairProcessor, objective: Objective) -> None:
    name = next((name for name, objectives in STAGES.items() if objective in objectives), "digits_captions")
    asked = ("itc", "itm") if objective is Objective.ITM else (objective.value,)
    batch = collator(processor, name, asked)([3, 25, 3])
    assert set(batch) == {"showings", *KEYS[objective]}
    assert batch["showings"].tolist() == [3, 25, 3]
    expected = {
        "showings": (torch.int64, ()),
        "targets": (torch.float32, (25,)),
        "labels": (torch.int64, ()),
        "masked_patches": (torch.bool, (PATCHES,)),
        **dict.fromkeys(("pixel_values", "other_pixels", "image_pixels"), (torch.float32, (3, 32, 32))),
    }
    for key, value in batch.items():
        assert (value.dtype, tuple(value.shape)) == (lambda dtype, shape: (dtype, (3, *shape)))(*expected.get(key, (torch.int64, (24,))))


@pytest.mark.parametrize("augmentation", list(Augmentation))
@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_row_follows_from_its_showing_alone(processor: PairProcessor, name: str, augmentation: Augmentation) -> None:
    """Not from the rows beside it, what came before, or what is kept: the same bytes."""
    numbers = [0, 41, 7, 7, 19, 20, 27]
    used, fresh = collator(processor, name, augmentation=augmentation), collator(processor, name, augmentation=augmentation, room=0)
    whole = used(numbers)
    assert same(whole, used(numbers))
    for number, row in zip(numbers, rows(whole), strict=True):
        assert same(row, used([number]))
        assert same(row, fresh([number]))
    backwards = list(rows(used(numbers[::-1])))[::-1]
    assert all(same(first, second) for first, second in zip(rows(whole), backwards, strict=True))


def test_another_epoch_or_seed_draws_anew_and_the_example_stays(processor: PairProcessor) -> None:
    first, other = collator(processor), collator(processor, seed=1)
    once, again, seeded = first(range(20)), first(range(20, 40)), other(range(20))
    for batch in (again, seeded):
        assert torch.equal(once["input_ids"], batch["input_ids"])
        assert torch.equal(once["pixel_values"], batch["pixel_values"])
        for key in ("masked_labels", "text_labels", "masked_patches"):
            assert not torch.equal(once[key], batch[key])
    assert not torch.equal(once["masked_labels"], once["text_labels"])
    random_views = collator(processor, augmentation=Augmentation.RANDOM)
    assert not torch.equal(random_views([3])["pixel_values"], random_views([23])["pixel_values"])


def test_a_stage_that_is_resumed_sees_the_same_batches(processor: PairProcessor) -> None:
    """As the Trainer resumes: the order from its start, with the batches that are done left out; an epoch is two and a half batches."""

    def loader() -> DataLoader:
        collate = collator(processor, augmentation=Augmentation.RANDOM)
        order = ShowingOrder(20, 8, plan_batches(TRAIN, 1, 20), seed=5)
        return DataLoader(range(order.examples), batch_size=4, sampler=order, collate_fn=collate)

    undisturbed, resumed = list(loader()), list(skip_first_batches(loader(), 3))
    assert len(undisturbed) == 10
    assert all(same(first, second) for first, second in zip(undisturbed[3:], resumed, strict=True))
    assert {Showing.of(int(number), 20).epoch for batch in undisturbed for number in batch["showings"]} == {0, 1, 2}


def test_global_random_numbers_are_left_alone(processor: PairProcessor) -> None:
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    collator(processor, augmentation=Augmentation.RANDOM)(range(8))
    assert before == (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())


def test_hidden_words_are_those_of_the_text(processor: PairProcessor) -> None:
    batch = collator(processor)(range(20))
    ids, special = batch["input_ids"], torch.tensor(sorted(processor.tokenizer.all_special_ids))
    for masked, labels, mask in (("masked_ids", "masked_labels", "attention_mask"), ("text_ids", "text_labels", "text_mask")):
        asked = batch[labels] != IGNORED
        assert asked.any(dim=1).all()
        assert torch.equal(batch[labels][asked], ids[asked])
        assert torch.equal(batch[masked][~asked], ids[~asked])
        assert not torch.isin(ids[asked], special).any()
        assert batch[mask][asked].all()
    assert (batch["masked_patches"].sum(dim=1) == masked_count(4, 0.4)).all()
    assert batch["image_pixels"] is batch["pixel_values"]


def test_words_beside_an_image_are_hidden_as_often_as_asked(processor: PairProcessor) -> None:
    """Five standard deviations of the words of 2,000 showings; in a short text chance may choose none, and then one is."""
    collate = collator(processor, masking=Masking(text=0.3, with_image=0.6))
    batch = collate(range(2000))
    words = batch["attention_mask"].sum(dim=1) - 2
    for labels, share in (("masked_labels", 0.6), ("text_labels", 0.3)):
        asked = (batch[labels] != IGNORED).sum()
        expected = (words * share + (1 - share) ** words).sum()
        assert abs(asked - expected) < 5 * (words.sum() * share * (1 - share)) ** 0.5


def test_texts_and_images_of_their_own_come_beside_the_pairs(processor: PairProcessor) -> None:
    texts, labels = pair_examples([get_pair_set("digits_comparisons")], count=7), DigitsLabels(data_seed=3)
    images = pair_examples([labels, DigitsCaptions(data_seed=3)], count=6, each_caption=False)
    batch = collator(processor, texts=texts, images=images)(range(14))
    plain = collator(processor)(range(14))
    shown = [text_of(texts[beside(number, 7, 0).index]) for number in range(14)]
    assert sorted(shown) == sorted(2 * [text_of(text) for text in texts])
    ids = torch.where(batch["text_labels"] == IGNORED, batch["text_ids"], batch["text_labels"])
    assert torch.equal(ids, processor.texts(shown)["input_ids"])
    assert torch.equal(batch["text_mask"], processor.texts(shown)["attention_mask"])
    pictures = [pictures_of(images[beside(number, 12, 0).index])[0]() for number in range(14)]
    assert torch.equal(batch["image_pixels"], processor.images(pictures))
    for key in ("input_ids", "pixel_values", "masked_ids", "masked_labels"):
        assert torch.equal(batch[key], plain[key])


def test_questions_have_the_scores_of_their_answers(processor: PairProcessor) -> None:
    questions = get_pair_set("digits_questions")
    batch, records = collator(processor, "digits_questions")(range(20)), questions.records(Split.TRAIN, 20)
    assert [questions.choices()[place] for place in batch["targets"].argmax(dim=1)] == [next(iter(record.answers)) for record in records]
    assert (batch["targets"].sum(dim=1) == 1).all()
    assert processor.tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True) == records[0].question.lower()
    few = ("red", "even")
    some = collator(processor, "digits_questions", choices=few)(range(20))["targets"]
    assert [row.tolist() for row in some] == [[float(choice in record.answers) for choice in few] for record in records]


class Several:
    """Questions with several right answers, each with a score."""

    name, version, kind = "several", 1, get_pair_set("digits_questions").kind

    def records(self, split: Split, count: int | None = None) -> list[Any]:
        answers = ({"red": 1.0, "green": 0.3, "rare": 0.6}, {})
        return [replace(get_pair_set("digits_questions").records(split)[0], answers=each) for each in answers]

    def choices(self) -> tuple[str, ...]:
        return "blue", "green", "red"


def test_soft_answers_and_answers_that_are_no_choice(processor: PairProcessor) -> None:
    several: PairSet = Several()
    collate = PairCollator(pair_examples([several]), processor, spec_of(["vqa"]), 0)
    assert torch.equal(collate([0, 1])["targets"], torch.tensor([[0, 0.3, 1.0], [0, 0, 0]]))


def test_comparisons_hold_both_images_in_their_order(processor: PairProcessor) -> None:
    records = get_pair_set("digits_comparisons").records(Split.TRAIN, 20)
    batch = collator(processor, "digits_comparisons")(range(20))
    for place, key in enumerate(("pixel_values", "other_pixels")):
        assert torch.equal(batch[key], processor.images([pictures_of(record)[place]() for record in records]))
    assert batch["labels"].tolist() == [int(record.label) for record in records]


def test_labels_are_numbered_as_the_choices(processor: PairProcessor) -> None:
    records = DigitsLabels().records(Split.TRAIN, 20)
    choices = tuple(reversed(DigitsLabels().choices()))
    labels = collator(processor, "digits_labels", choices=choices)(range(20))["labels"]
    assert [choices[place] for place in labels] == [record.label for record in records]
    with pytest.raises(InputError, match="none of the 2 to choose among"):
        collator(processor, "digits_labels", choices=("one", "two"))(range(20))


def test_what_cannot_be_collated_is_refused(processor: PairProcessor) -> None:
    with pytest.raises(ConfigError, match="objectives vqa learn from questions, but set 'digits_captions' holds captions"):
        collator(processor, "digits_captions", ["vqa"])
    with pytest.raises(ConfigError, match="patch_size"):
        collator(processor, patch_size=None)
    with pytest.raises(ConfigError, match="nothing to choose among"):
        collator(processor, "digits_questions", choices=())
    with pytest.raises(ConfigError, match="labels, which are no texts"):
        collator(processor, texts=pair_examples([DigitsLabels()]))
    with pytest.raises(ConfigError, match="flip is part of a random augmentation"):
        spec_of(["itc"], flip=True)


def test_images_are_mirrored_only_where_the_stage_says_so(processor: PairProcessor) -> None:
    """All else is drawn alike, so half of the views stay as they were: five standard deviations of 200."""
    plain = collator(processor, augmentation=Augmentation.RANDOM)(range(200))["pixel_values"]
    flipped = collator(processor, augmentation=Augmentation.RANDOM, flip=True)(range(200))["pixel_values"]
    alike = sum(torch.equal(first, second) for first, second in zip(plain, flipped, strict=True))
    assert abs(alike - 100) < 5 * 50**0.5
