"""Which words and patches are hidden from the model, and what stands in their place.

Words as in BERT (arXiv 1810.04805, 3.1): of those chosen, 80 % become [MASK], 10 % another token, 10 % stay. Patches as in BEiT (arXiv
2106.08254, 2.3 and algorithm 1). All randomness comes from the generator given, which belongs to one showing of one example.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from foundation.errors import ConfigError
from trainers.data.encoding import IGNORED

MASKED, OTHER = 0.8, 0.1
"""Of the words chosen, the shares that are masked and that are replaced by another token; the rest stays."""

SMALLEST_BLOCK = 16 / 196
"""The smallest rectangle of patches, as a share of the image: BEiT's 16 of its 14 x 14."""

FLATTEST = 0.3
"""The aspect ratio of a rectangle is between this and 1 / this, log-uniform."""


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer, by token id.

    `special` [V] bool; `continues` [V] bool, whether the token goes on with the word of the token before it; `mask`, the id of [MASK];
    `others`, the ids that may replace a token: all but the special ones.
    """

    special: np.ndarray
    continues: np.ndarray
    mask: int
    others: np.ndarray


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a WordPiece tokenizer, whose tokens that continue a word begin with ##.

    A vocabulary without such tokens has a word in each token. ConfigError where the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise ConfigError("masked words need a tokenizer with a mask token, and this one has none; use one that was trained with it")
    ids = tokenizer.get_vocab()
    size = max(ids.values()) + 1
    special, continues = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    special[sorted(tokenizer.all_special_ids)] = True
    continues[sorted(place for token, place in ids.items() if token.startswith("##"))] = True
    held = np.zeros(size, dtype=bool)
    held[sorted(ids.values())] = True
    return Vocabulary(special, continues, int(tokenizer.mask_token_id), np.flatnonzero(held & ~special))


def mask_words(
    ids: np.ndarray, vocabulary: Vocabulary, probability: float, whole_words: bool, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A text with words hidden, and its labels: the tokens that were chosen, IGNORED elsewhere. Both [T] int64, as `ids`.

    Each word is chosen with `probability`, or one word where chance chose none, so that every text asks something; special tokens are never
    chosen, and a text of those alone stays as it is. With `whole_words`, all tokens of a word are chosen, and masked, replaced or kept
    together; without, each token is a word of its own.
    """
    words = words_of(ids, vocabulary, whole_words)
    count = int(words.max(initial=-1)) + 1
    masked, labels = ids.copy(), np.full_like(ids, IGNORED)
    if not count:
        return masked, labels
    chosen = rng.random(count) < probability
    spare = rng.integers(count)
    if not chosen.any():
        chosen[spare] = True
    fate = rng.random(count)
    replacements = rng.choice(vocabulary.others, size=len(ids))
    inside = words >= 0
    hidden = inside & chosen[words]
    labels[hidden] = ids[hidden]
    masked[hidden & (fate[words] < MASKED)] = vocabulary.mask
    replaced = hidden & (fate[words] >= MASKED) & (fate[words] < MASKED + OTHER)
    masked[replaced] = replacements[replaced]
    return masked, labels


def words_of(ids: np.ndarray, vocabulary: Vocabulary, whole_words: bool) -> np.ndarray:
    """The number of the word that each token belongs to, from 0, or -1 for special tokens: [T] int64."""
    inside = ~vocabulary.special[ids]
    follows = np.concatenate(([False], inside[:-1])) & vocabulary.continues[ids]
    begins = inside & ~follows if whole_words else inside
    return np.where(inside, np.cumsum(begins) - 1, -1)


def mask_patches(side: int, share: float, blocks: bool, rng: Generator) -> np.ndarray:
    """Which of side x side patches are hidden: [side * side] bool, in reading order, `masked_count(side, share)` of them.

    With `blocks`, rectangles are laid one over another until there are enough (BEiT, algorithm 1; of the last one only the first or
    the last patches in reading order, so that all images hide as many); without, every choice of patches is equally likely.
    """
    total = side * side
    count = masked_count(side, share)
    hidden = np.zeros(total, dtype=bool)
    if not blocks:
        hidden[rng.permutation(total)[:count]] = True
        return hidden
    while (missing := count - int(hidden.sum())) > 0:
        fresh = np.flatnonzero(block(side, missing, rng) & ~hidden)
        hidden[(fresh if rng.random() < 0.5 else fresh[::-1])[:missing]] = True
    return hidden


def masked_count(side: int, share: float) -> int:
    """How many of side x side patches are hidden: the share, rounded, at least one and not all."""
    return min(max(1, round(share * side * side)), side * side - 1)


def block(side: int, missing: int, rng: Generator) -> np.ndarray:
    """A rectangle of about `missing` patches at most, but not below the smallest: [side * side] bool."""
    smallest = max(1.0, SMALLEST_BLOCK * side * side)
    size = rng.uniform(smallest, max(smallest, missing))
    ratio = math.exp(rng.uniform(math.log(FLATTEST), -math.log(FLATTEST)))
    height, width = (min(side, max(1, round(length))) for length in (math.sqrt(size * ratio), math.sqrt(size / ratio)))
    top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
    inside = np.zeros((side, side), dtype=bool)
    inside[top : top + height, left : left + width] = True
    return inside.reshape(-1)
