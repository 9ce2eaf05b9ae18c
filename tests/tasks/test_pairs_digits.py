"""The digits sets of images with text: no scan in two splits, records by their address alone, texts that are true of the image."""

import re
import subprocess
import sys
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import ConfigError
from tasks import digits_canvas
from tasks.digits import SCENES
from tasks.digits_canvas import CELL, JITTER, TINTS, scans_of
from tasks.digits_scene import CELLS, COLOR_NAMES, WORDS, Glyph
from tasks.pairs.digits import ASKED, DigitsCaptions, DigitsComparisons, DigitsLabels, DigitsQuestions
from tasks.pairs.digits_sentences import GROUPS
from tasks.pairs.records import Captioned, Compared, Kind, Labelled, PairSet, Picture, Questioned, Record
from tasks.pairs.registry import PAIR_SETS, corpus, get_pair_set
from tasks.task import Split

names = st.sampled_from(sorted(PAIR_SETS))
splits = st.sampled_from(list(Split))
PHRASE = re.compile(f"({'|'.join(COLOR_NAMES)}) ({'|'.join(WORDS)}) ({'|'.join(CELLS)})")


def pictures(record: Record) -> tuple[Picture, ...]:
    return record.images if isinstance(record, Compared) else (record.image,)


def content(record: Record) -> tuple[object, ...]:
    """The record with its images as bytes."""
    return record, *(picture().tobytes() for picture in pictures(record))


def seen(picture: Picture) -> dict[int, int]:
    """The color of each cell of the drawn canvas that is lit."""
    pixels = np.asarray(picture(), dtype=np.float32) / 255
    assert pixels.shape == (2 * CELL, 2 * CELL, 3)
    found = {}
    for cell in range(len(CELLS)):
        row, column = CELL * (cell // 2), CELL * (cell % 2)
        inner = pixels[row : row + CELL, column : column + CELL][JITTER + 1 : -JITTER - 1, JITTER + 1 : -JITTER - 1].reshape(-1, 3)
        lit = inner[inner.max(axis=1) > 0.3]
        if len(lit) > 10:
            found[cell] = int((TINTS / np.linalg.norm(TINTS, axis=1, keepdims=True) @ lit.mean(axis=0)).argmax())
    return found


def test_drawing_takes_scans_of_its_split_only(monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[Split, set[int]] = {split: set() for split in Split}
    choose = digits_canvas.choose_scan

    def recording(glyph: Glyph, split: Split, rng: np.random.Generator) -> int:
        row = choose(glyph, split, rng)
        used[split].add(row)
        return row

    monkeypatch.setattr(digits_canvas, "choose_scan", recording)
    for pairs, split in product(PAIR_SETS.values(), Split):
        for record in pairs.records(split, 60):
            for picture in pictures(record):
                picture()
    allowed = {split: {int(row) for digit in range(10) for row in scans_of()[split, digit]} for split in Split}
    assert all(used[split] and used[split] <= allowed[split] for split in Split)
    assert sum(map(len, allowed.values())) == len(set().union(*allowed.values()))


@settings(max_examples=20, deadline=None)
@given(name=names, split=splits, few=st.integers(0, 6), more=st.integers(6, 12))
def test_records_are_prefix_stable(name: str, split: Split, few: int, more: int) -> None:
    pairs = get_pair_set(name)
    assert list(map(content, pairs.records(split, few))) == list(map(content, pairs.records(split, more)))[:few]


@settings(max_examples=20, deadline=None)
@given(name=names, split=splits, index=st.integers(-12, 11))
def test_a_record_is_the_same_by_index_slice_and_walk(name: str, split: Split, index: int) -> None:
    records = get_pair_set(name).records(split, 12)
    assert content(records[index]) == content(list(records)[index]) == content(records[index:][0])


def test_records_are_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from tasks.pairs.registry import PAIR_SETS; from tasks.task import Split; h = hashlib.sha256()\n"
        "for pairs in PAIR_SETS.values():\n"
        "    for r in pairs.records(Split.TEST, 5):\n"
        "        for image in getattr(r, 'images', None) or (r.image,): h.update(image().tobytes())\n"
        "        values = {k: v for k, v in vars(r).items() if k not in ('image', 'images')}; h.update(repr(values).encode())\n"
        "print(h.hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


def test_sets_splits_and_seeds_give_other_canvases_under_unique_keys() -> None:
    sets: list[PairSet] = [
        kind(data_seed=seed) for kind in (DigitsCaptions, DigitsQuestions, DigitsComparisons, DigitsLabels) for seed in (0, 1)
    ]
    records = [record for pairs in sets for split in Split for record in pairs.records(split, 20)]
    canvases = [picture().tobytes() for record in records for picture in pictures(record)]
    assert len({record.key for record in records}) == len(records)
    assert len(set(canvases)) == len(canvases)


def test_usual_counts_and_any_other() -> None:
    for pairs in PAIR_SETS.values():
        assert [len(pairs.records(split)) for split in Split] == [2000, 400, 400]
        assert len(pairs.records(Split.TEST, 5000)) == 5000
        with pytest.raises(ConfigError, match="-1 records"):
            pairs.records(Split.TRAIN, -1)
    with pytest.raises(IndexError):
        get_pair_set("digits_labels").records(Split.TRAIN, 3)[3]


def test_nothing_is_drawn_before_an_image_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(digits_canvas, "draw", refused)
    for pairs in PAIR_SETS.values():
        list(pairs.records(Split.TEST, 20))
        with pytest.raises(AssertionError, match="drawn"):
            pictures(pairs.records(Split.TEST, 1)[0])[0]()


@settings(max_examples=40, deadline=None)
@given(split=splits, index=st.integers(0, 5000), most=st.integers(1, 4))
def test_captions_name_what_is_seen_in_every_order_once(split: Split, index: int, most: int) -> None:
    record = DigitsCaptions(captions=most).record(split, index)
    shown = [tuple(PHRASE.fullmatch(phrase).groups() for phrase in caption.split(" and ")) for caption in record.captions]
    assert {CELLS.index(cell): COLOR_NAMES.index(color) for color, _, cell in shown[0]} == seen(record.image)
    cells = [CELLS.index(cell) for _, _, cell in shown[0]]
    assert 1 <= len(cells) <= 3
    assert cells == sorted(set(cells))
    assert all(sorted(phrases) == sorted(shown[0]) for phrases in shown)
    assert len(set(shown)) == len(shown) == min(most, [1, 2, 6][len(cells) - 1])
    assert record.captions[0] == DigitsCaptions().record(split, index).captions[0]


def test_captions_show_each_number_of_digits_equally_often_and_some_twice() -> None:
    captions = [record.captions[0] for record in DigitsCaptions().records(Split.TEST)]
    sizes = Counter(caption.count(" and ") + 1 for caption in captions)
    assert set(sizes) == {1, 2, 3}
    assert max(abs(count - 400 / 3) for count in sizes.values()) < 4 * (400 * 2 / 9) ** 0.5  # four standard deviations
    assert len(set(captions)) < len(captions)  # 200 captions of one digit for some 133 records of one


@settings(max_examples=40, deadline=None)
@given(split=splits, index=st.integers(0, 5000))
def test_questions_have_one_answer_that_fits(split: Split, index: int) -> None:
    record = DigitsQuestions().record(split, index)
    ((answer, score),) = record.answers.items()
    lit = seen(record.image)
    assert score == 1.0
    assert record.number == index
    match record.question:
        case "How many digits are there?":
            assert answer == str(len(lit))
        case "Where is the digit?":
            assert [answer] == [CELLS[cell] for cell in lit]
        case "What color is the digit?":
            assert [answer] == [COLOR_NAMES[color] for color in lit.values()]
        case _:
            assert answer in {*WORDS, "even", "odd"}


def test_questions_are_of_the_digits_tasks_asked_equally_often() -> None:
    questions = Counter(record.question.split(" the top ")[0].split(" the bottom ")[0] for record in DigitsQuestions().records(Split.TRAIN))
    assert len(questions) == len(ASKED)
    share = 1 / len(ASKED)
    assert max(abs(count - 2000 * share) for count in questions.values()) < 4 * (2000 * share * (1 - share)) ** 0.5
    only = DigitsQuestions(asked=("parity",))
    assert {record.question for record in only.records(Split.TEST, 20)} == {"Is the digit even or odd?"}
    assert only.choices() == ("even", "odd")


def test_answers_to_choose_among_are_those_of_the_training_split() -> None:
    choices = DigitsQuestions().choices()
    assert choices == tuple(sorted({*WORDS, *CELLS, *COLOR_NAMES, "even", "odd", "1", "2", "3", "4"}))
    assert DigitsLabels().choices() == tuple(sorted(WORDS))
    for told in (("digit",), ("color", "cell"), ("color", "digit", "cell")):
        labels = DigitsLabels(told)
        assert labels.choices() == tuple(sorted({record.label for record in labels.records(Split.TRAIN, 4000)}))
    assert DigitsCaptions().choices() == DigitsComparisons().choices() == ()


@settings(max_examples=40, deadline=None)
@given(split=splits, index=st.integers(0, 5000))
def test_labels_tell_what_is_seen(split: Split, index: int) -> None:
    record = DigitsLabels(("color", "digit", "cell")).record(split, index)
    color, digit, cell = PHRASE.fullmatch(record.label).groups()
    assert seen(record.image) == {CELLS.index(cell): COLOR_NAMES.index(color)}
    short = DigitsLabels().record(split, index)
    assert short.label == digit
    assert short.image().tobytes() == record.image().tobytes()


def truth(sentence: str, left: tuple[Glyph, ...], right: tuple[Glyph, ...]) -> bool:
    """Whether a sentence holds, worked out from its words."""
    sides = {"left": left, "right": right}
    if "more digits" in sentence:
        first, second = re.findall("left|right", sentence)
        return len(sides[first]) > len(sides[second])
    if "same number" in sentence:
        return len(left) == len(right)
    *start, noun = sentence.rsplit(" ", 1)
    word = start[0].rsplit(" ", 1)[1] if noun == "digit" else noun
    showing = {side: any(word in (WORDS[glyph.digit], COLOR_NAMES[glyph.color]) for glyph in glyphs) for side, glyphs in sides.items()}
    match sentence.split()[0]:
        case "both":
            return all(showing.values())
        case "no":
            return not any(showing.values())
        case "exactly":
            return sum(showing.values()) == 1
    return showing[sentence.split()[1]]


def glyphs_of(picture: Picture) -> tuple[Glyph, ...]:
    return next(part for part in picture.args if isinstance(part, tuple))


def test_comparisons_are_true_where_they_say_so_and_balanced() -> None:
    records = DigitsComparisons().records(Split.TRAIN)
    for record in records:
        left, right = map(glyphs_of, record.images)
        assert truth(record.sentence, left, right) == record.label, record
    assert sum(record.label for record in records) == 1000
    assert all(first.label != second.label for first, second in zip(records[::2], records[1::2], strict=True))
    assert 0.4 < np.mean([record.label for record in records[::2]]) < 0.6  # 1,000 coins: 6 standard deviations


def test_a_sentence_does_not_tell_whether_it_is_true() -> None:
    """Within each form of sentence half are true: 4.5 standard deviations for the nine forms, of at least 400 sentences each."""
    forms: dict[str, list[bool]] = {}
    for record in DigitsComparisons(data_seed=1).records(Split.TRAIN, 6000):
        form = " ".join(word for word in record.sentence.split() if word not in (*WORDS[:1], *WORDS[2:], *COLOR_NAMES))
        forms.setdefault(form.replace("the digit one", "the digit"), []).append(record.label)
    assert len(forms) == sum(len(group[0]) for group in GROUPS)
    for labels in forms.values():
        assert len(labels) > 400
        assert abs(np.mean(labels) - 0.5) < 4.5 * 0.5 / len(labels) ** 0.5


@settings(max_examples=20, deadline=None)
@given(split=splits, index=st.integers(0, 5000))
def test_comparisons_draw_the_canvases_that_the_sentence_is_on(split: Split, index: int) -> None:
    for picture in DigitsComparisons().record(split, index).images:
        assert seen(picture) == {glyph.cell: glyph.color for glyph in glyphs_of(picture)}


def test_registry() -> None:
    names = ["digits_captions", "digits_questions", "digits_comparisons", "digits_labels", "digits_labels_color_digit_cell"]
    assert list(PAIR_SETS) == names
    held = {Kind.CAPTIONS: Captioned, Kind.QUESTIONS: Questioned, Kind.COMPARISONS: Compared, Kind.LABELS: Labelled}
    for name, pairs in PAIR_SETS.items():
        assert isinstance(pairs, PairSet)
        assert pairs.name == name
        assert isinstance(pairs.records(Split.TEST, 1)[0], held[pairs.kind])
    with pytest.raises(ConfigError, match="did you mean 'digits_captions'"):
        get_pair_set("digit_caption")


def test_sets_are_values_and_refuse_what_they_cannot_give() -> None:
    assert DigitsCaptions() == DigitsCaptions(1, 0) != DigitsCaptions(captions=2)
    assert len({DigitsQuestions(), DigitsQuestions(ASKED)}) == 1
    with pytest.raises(ConfigError, match="0 captions per image"):
        DigitsCaptions(captions=0)
    with pytest.raises(ConfigError, match="did you mean 'color'"):
        DigitsQuestions(asked=("colour",))
    with pytest.raises(ConfigError, match="unknown task to ask 'describe'"):
        DigitsQuestions(asked=("describe",))
    with pytest.raises(ConfigError, match="asked is empty"):
        DigitsQuestions(asked=())
    with pytest.raises(ConfigError, match="did you mean 'cell'"):
        DigitsLabels(told=("digit", "cel"))
    for told in ((), ("digit", "color"), ("digit", "digit")):
        with pytest.raises(ConfigError, match="in this order"):
            DigitsLabels(told)


def test_the_corpus_holds_every_word_of_every_text() -> None:
    words = {word for text in corpus() for word in re.findall(r"\w+", text)}
    everything = DigitsQuestions(asked=tuple(name for name in SCENES if name not in ("describe", "read")))
    for pairs in (DigitsCaptions(captions=3), everything, DigitsComparisons(), DigitsLabels()):
        for record in pairs.records(Split.TRAIN, 300):
            values = [value for name, value in vars(record).items() if name in ("captions", "question", "answers", "sentence", "label")]
            texts = " ".join(str(value) for value in values if not isinstance(value, bool))
            assert set(re.findall("[A-Za-z]+", texts)) <= words
    assert corpus() == sorted(set(corpus()))


def test_naming_sets_loads_nothing_heavy() -> None:
    code = "import sys, tasks.pairs.registry as r; r.corpus()\nprint([m for m in ('numpy', 'PIL', 'sklearn', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
