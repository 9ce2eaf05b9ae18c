"""The table of sets of images with text, by name. A new set is one more row."""

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.pairs import digits
from tasks.pairs.digits import DigitsCaptions, DigitsComparisons, DigitsLabels, DigitsQuestions
from tasks.pairs.records import PairSet

PAIR_SETS: dict[str, PairSet] = {
    pairs.name: pairs
    for pairs in (DigitsCaptions(), DigitsQuestions(), DigitsComparisons(), DigitsLabels(), DigitsLabels(("color", "digit", "cell")))
}


def get_pair_set(name: str) -> PairSet:
    """The set called `name`; ConfigError with the nearest name where there is none."""
    if name not in PAIR_SETS:
        raise ConfigError(unknown("set of images with text", name, PAIR_SETS))
    return PAIR_SETS[name]


def corpus() -> list[str]:
    """All texts that these sets can give, sorted: what a tokenizer for them is learned from. Captions come by their parts."""
    return digits.corpus()
