"""Masked words and patches: their shares, whole words, and nothing but the generator deciding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from foundation.errors import ConfigError
from trainers.data.encoding import IGNORED
from trainers.modality.data.addresses import generator
from trainers.modality.data.masking import (
    MASKED,
    OTHER,
    SMALLEST_BLOCK,
    Vocabulary,
    block,
    mask_patches,
    mask_words,
    masked_count,
    vocabulary_of,
    words_of,
)

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "merge",
    "##line",
    "##s",
    "a",
    "seven",
    "top",
    "left",
    *(f"w{n}" for n in range(200)),
]
SPECIAL = {0, 1, 2, 3, 4}


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={piece: place for place, piece in enumerate(PIECES)})


@pytest.fixture(scope="module")
def vocabulary(tokenizer: BertTokenizerFast) -> Vocabulary:
    return vocabulary_of(tokenizer)


def a_text(words: int, padding: int = 3) -> np.ndarray:
    """`words` words, every fourth of three pieces, between [CLS] and [SEP], then padding."""
    pieces = [piece for word in range(words) for piece in ((5, 6, 7) if word % 4 == 0 else (12 + word % 200,))]
    return np.array([2, *pieces, 3, *[0] * padding])


def test_words_are_told_by_their_pieces(tokenizer: BertTokenizerFast, vocabulary: Vocabulary) -> None:
    encoded = tokenizer("mergelines a merge top zzz lefts", padding="max_length", max_length=16)
    words = [-1 if word is None else word for word in encoded.word_ids()]
    found = words_of(np.array(encoded["input_ids"]), vocabulary, whole_words=True)
    unknown = encoded["input_ids"].index(1)
    assert words[unknown] == 4
    assert found[unknown] == -1  # [UNK] is no word that could be asked for
    assert [w if w < 4 else w + 1 for w in found.tolist() if w >= 0] == [w for place, w in enumerate(words) if w >= 0 and place != unknown]
    assert words_of(np.array([2, 5, 6, 3]), vocabulary, whole_words=False).tolist() == [-1, 0, 1, -1]
    assert words_of(np.array([6, 5, 3, 6, 0, 6]), vocabulary, whole_words=True).tolist() == [0, 1, -1, 2, -1, 3]


@settings(max_examples=100, deadline=None)
@given(words=st.integers(1, 30), probability=st.floats(0.01, 0.99), whole=st.booleans(), seed=st.integers(0, 2**32))
def test_what_is_asked_is_hidden_whole_and_the_rest_is_as_it_was(
    vocabulary: Vocabulary, words: int, probability: float, whole: bool, seed: int
) -> None:
    ids = a_text(words)
    masked, labels = mask_words(ids, vocabulary, probability, whole, generator(str(seed)))
    asked = labels != IGNORED
    assert asked.any()
    assert (labels[asked] == ids[asked]).all()
    assert (masked[~asked] == ids[~asked]).all()
    assert not SPECIAL & set(ids[asked].tolist())
    assert not (SPECIAL - {4}) & set(masked[asked].tolist())
    for word in range(words if whole else 0):
        pieces = np.flatnonzero(words_of(ids, vocabulary, True) == word)
        assert asked[pieces].all() or not asked[pieces].any()
        assert (masked[pieces] == 4).all() or not (masked[pieces] == 4).any()
    assert masked.dtype == labels.dtype == ids.dtype


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("probability", [0.15, 0.25, 0.5])
def test_shares(vocabulary: Vocabulary, whole: bool, probability: float) -> None:
    """Of the words `probability` is chosen; of these 80 % are masked, 10 % replaced, 10 % kept. Five standard deviations, 20,000 words."""
    ids = a_text(200)
    words = words_of(ids, vocabulary, whole)
    firsts = np.array([np.flatnonzero(words == word)[0] for word in range(words.max() + 1)])
    drawn = [mask_words(ids, vocabulary, probability, whole, generator(f"{probability}/{place}")) for place in range(100)]
    masked = np.concatenate([masked[firsts] for masked, _ in drawn])
    asked = np.concatenate([labels[firsts] for _, labels in drawn]) != IGNORED
    truth = np.tile(ids[firsts], 100)

    def near(found: float, share: float, of: int) -> bool:
        return abs(found - share) < 5 * (share * (1 - share) / of) ** 0.5

    assert near(asked.mean(), probability, len(asked))
    assert near((masked == 4)[asked].mean(), MASKED, asked.sum())
    chance = 1 / (len(PIECES) - len(SPECIAL))  # a replacement may be the word itself
    assert near(((masked != 4) & (masked != truth))[asked].mean(), OTHER * (1 - chance), asked.sum())


def test_replacements_are_any_word(vocabulary: Vocabulary) -> None:
    found: set[int] = set()
    ids = a_text(200)
    for place in range(300):
        masked, labels = mask_words(ids, vocabulary, 0.5, True, generator(f"any/{place}"))
        found |= set(masked[(labels != IGNORED) & (masked != ids) & (masked != 4)].tolist())
    assert found == set(range(5, len(PIECES)))  # about 3,900 replacements of 207 words: each is missed with probability 1e-8


def test_a_short_text_is_asked_one_word_at_least(vocabulary: Vocabulary) -> None:
    """Of n words, p + (1 - p)^n / n: chance chooses none with (1 - p)^n, and then one is."""
    ids = np.array([2, 20, 21, 22, 3])
    asked = np.array([(mask_words(ids, vocabulary, 0.15, True, generator(f"short/{place}"))[1] != IGNORED)[1:4] for place in range(4000)])
    assert asked.any(axis=1).all()
    share = 0.15 + 0.85**3 / 3
    assert abs(asked.mean(axis=0) - share).max() < 5 * (share * (1 - share) / 4000) ** 0.5


def test_a_text_without_words_stays(vocabulary: Vocabulary) -> None:
    ids = np.array([2, 1, 3, 0, 0])
    masked, labels = mask_words(ids, vocabulary, 0.9, True, generator("none"))
    assert (masked == ids).all()
    assert (labels == IGNORED).all()


def test_a_tokenizer_without_a_mask_is_refused(tokenizer: BertTokenizerFast) -> None:
    class Plain:
        mask_token_id = None

    with pytest.raises(ConfigError, match="mask token"):
        vocabulary_of(Plain())
    found = vocabulary_of(tokenizer)
    assert found.mask == 4
    assert found.others.tolist() == list(range(5, len(PIECES)))
    assert np.flatnonzero(found.continues).tolist() == [6, 7]


@settings(max_examples=60, deadline=None)
@given(side=st.integers(2, 20), share=st.floats(0.02, 0.98), blocks=st.booleans(), seed=st.integers(0, 2**32))
def test_as_many_patches_are_hidden_in_every_image(side: int, share: float, blocks: bool, seed: int) -> None:
    hidden = mask_patches(side, share, blocks, generator(str(seed)))
    assert hidden.shape == (side * side,)
    assert hidden.sum() == masked_count(side, share)
    assert 1 <= hidden.sum() < side * side
    assert abs(hidden.sum() - share * side * side) <= 1
    assert (hidden == mask_patches(side, share, blocks, generator(str(seed)))).all()


def test_beit_hides_75_of_196_patches_at_its_share() -> None:
    assert masked_count(14, 75 / 196) == 75


def test_uniform_patches_are_uniform() -> None:
    """Each of 16 patches is hidden in 6 of 16 images, in five standard deviations of 3,000."""
    found = np.mean([mask_patches(4, 0.4, False, generator(f"uniform/{place}")) for place in range(3000)], axis=0)
    assert abs(found - 6 / 16).max() < 5 * (6 / 16 * 10 / 16 / 3000) ** 0.5


def test_blocks_hang_together() -> None:
    """Hidden patches have far more hidden neighbours than patches hidden each by itself, and reach everywhere."""

    def neighbours(blocks: bool) -> float:
        masks = [mask_patches(14, 0.4, blocks, generator(f"{blocks}/{place}")).reshape(14, 14) for place in range(200)]
        return float(np.mean([(mask[:, 1:] & mask[:, :-1]).sum() + (mask[1:] & mask[:-1]).sum() for mask in masks]))

    assert neighbours(True) > 1.6 * neighbours(False)


def test_blocks_reach_every_patch_and_favor_no_side() -> None:
    """A corner is hidden seldom, as few rectangles reach it, but each as often: five standard deviations of 2,000 images."""
    reach = np.mean([mask_patches(14, 0.4, True, generator(f"reach/{place}")) for place in range(2000)], axis=0).reshape(14, 14)
    assert reach.min() > 0.02
    for other in (reach[::-1], reach[:, ::-1], reach.T):
        assert abs(reach - other).max() < 5 * (2 * 0.25 / 2000) ** 0.5
        assert abs(reach[0, 0] - other[0, 0]) < 5 * (2 * 0.06 / 2000) ** 0.5


@settings(max_examples=100, deadline=None)
@given(side=st.integers(2, 20), missing=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_a_block_is_a_rectangle_of_the_size_asked(side: int, missing: int, seed: int) -> None:
    inside = block(side, missing, generator(str(seed))).reshape(side, side)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    assert inside.sum() == height * width
    most = max(1.0, SMALLEST_BLOCK * side * side, missing)
    assert height * width <= most + 0.5 * (height + width) + 0.25  # each side is rounded by at most a half
