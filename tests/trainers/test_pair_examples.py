"""Training examples of one and several sets, and the order of their showings."""

from dataclasses import dataclass, field
from itertools import islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import ConfigError, InputError
from tasks.pairs.digits import DigitsCaptions, DigitsLabels, DigitsQuestions
from tasks.pairs.records import Captioned, Kind
from tasks.pairs.registry import get_pair_set
from tasks.task import Split
from trainers.data.order import StageOrder
from trainers.modality.data.addresses import Showing, ShowingOrder, beside
from trainers.modality.data.examples import pair_examples, pictures_of, text_of
from trainers.spec import TrainSpec, plan_batches


@dataclass(frozen=True)
class Given:
    """A set of captions that are given, to have what the digits never have."""

    captions: tuple[tuple[str, ...], ...] = ()
    name: str = "given"
    version: int = 1
    kind: Kind = field(default=Kind.CAPTIONS)

    def records(self, split: Split, count: int | None = None) -> list[Captioned]:
        del split
        return [Captioned(str(place), lambda: None, captions) for place, captions in enumerate(self.captions)][:count]

    def choices(self) -> tuple[str, ...]:
        return ()


def test_every_caption_of_every_image_is_one_example_in_the_order_of_the_sets() -> None:
    first, second = Given((("a", "b"), ("c",), ("d", "e", "f"))), Given((("g",),), "other")
    examples = pair_examples([first, second])
    assert [text_of(example) for example in examples] == list("abcdefg")
    assert [example.key for example in examples] == [
        *("given/0#0", "given/0#1", "given/1#0", "given/2#0", "given/2#1", "given/2#2"),
        "other/0#0",
    ]
    assert all(isinstance(example, Captioned) and len(example.captions) == 1 for example in examples)
    assert text_of(examples[-1]) == "g"
    assert [text_of(example) for example in examples[2:4]] == ["c", "d"]
    with pytest.raises(IndexError):
        examples[7]


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=4), count=st.none() | st.integers(1, 8))
def test_with_a_count_each_set_gives_its_first(sizes: list[list[int]], count: int | None) -> None:
    sets = [
        Given(tuple(tuple(f"{s}/{r}/{c}" for c in range(captions)) for r, captions in enumerate(records)), f"set{s}")
        for s, records in enumerate(sizes)
    ]
    expected = [[caption for captions in each.captions for caption in captions][:count] for each in sets]
    examples = pair_examples(sets, count=count)
    assert [text_of(example) for example in examples] == [caption for captions in expected for caption in captions]
    assert len(examples) == sum(map(len, expected))


def test_an_example_is_its_record() -> None:
    questions = get_pair_set("digits_questions")
    examples = pair_examples([questions], Split.VALIDATION)
    assert len(examples) == 400
    assert examples.kind is Kind.QUESTIONS
    assert examples.choices() == questions.choices()
    record = questions.records(Split.VALIDATION)[17]
    assert pictures_of(examples[17])[0]().tobytes() == pictures_of(record)[0]().tobytes()
    assert text_of(examples[17]) == text_of(record)
    assert len({example.key for example in examples}) == 400
    assert len(pictures_of(pair_examples([get_pair_set("digits_comparisons")])[0])) == 2
    assert text_of(pair_examples([DigitsLabels()])[0]) == ""


def test_images_alone_come_once_and_of_any_kind() -> None:
    captions = DigitsCaptions(captions=3)
    assert len(pair_examples([captions], count=None)) > 2000
    assert len(pair_examples([captions, DigitsLabels()], each_caption=False)) == 4000


def test_choices_of_several_sets_are_joined() -> None:
    parity, color = DigitsQuestions(asked=("parity",)), DigitsQuestions(asked=("color",))
    assert pair_examples([color, parity]).choices() == ("blue", "even", "green", "odd", "purple", "red", "yellow")


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="no set to learn from"):
        pair_examples([])
    with pytest.raises(ConfigError, match=r"hold captions and labels"):
        pair_examples([DigitsCaptions(), DigitsLabels()])
    with pytest.raises(ConfigError, match="stands twice"):
        pair_examples([DigitsCaptions(), DigitsCaptions()])
    with pytest.raises(InputError, match="'1' has no caption"):
        pair_examples([Given((("a",), ()))])
    with pytest.raises(InputError, match="no train examples"):
        pair_examples([DigitsCaptions(), Given()])


@settings(max_examples=50, deadline=None)
@given(examples=st.integers(4, 60), batch=st.integers(1, 4), epochs=st.floats(0.2, 4), seed=st.integers(0, 99))
def test_the_order_of_showings_is_that_of_any_stage_with_the_epoch(examples: int, batch: int, epochs: float, seed: int) -> None:
    spec = TrainSpec(parts=("glob:*",), learning_rate=1.0, batch_size=batch, epochs=epochs)
    batches = plan_batches(spec, 1, examples)
    order = ShowingOrder(examples, batch, batches, seed)
    numbers = list(order)
    assert len(numbers) == len(order)
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(range(order.examples))
    assert [Showing.of(number, examples).index for number in numbers] == list(StageOrder(examples, batch, batches, seed))
    length = batches.steps_per_epoch * batch
    assert [Showing.of(number, examples).epoch for number in numbers] == [place // length for place in range(len(numbers))]
    assert list(islice(order, 3)) == numbers[:3]


@settings(max_examples=50, deadline=None)
@given(examples=st.integers(1, 50), seed=st.integers(0, 99))
def test_a_stream_beside_comes_whole_each_time_in_another_order(examples: int, seed: int) -> None:
    shown = [beside(number, examples, seed) for number in range(3 * examples)]
    turns = [[showing.index for showing in shown[turn * examples : (turn + 1) * examples]] for turn in range(3)]
    assert all(sorted(turn) == list(range(examples)) for turn in turns)
    assert [showing.epoch for showing in shown] == [turn for turn in range(3) for _ in range(examples)]
    assert len(set(shown)) == len(shown)
    if examples > 20:
        assert len(set(map(tuple, turns))) > 1


def test_draws_belong_to_seed_use_epoch_and_example() -> None:
    places = product((0, 1), (0, 1), (0, 1), ("a", "b"))
    drawn = [float(Showing(epoch, index).draws(seed, use).random()) for epoch, index, seed, use in places]
    assert len(set(drawn)) == 16
    assert Showing(1, 2).draws(3, "mlm").random() == Showing(1, 2).draws(3, "mlm").random()
    assert [Showing.of(number, 5) for number in range(10)] == [Showing(epoch, index) for epoch in (0, 1) for index in range(5)]
