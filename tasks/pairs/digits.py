"""Four sets of images with text on the digits canvases: captions, questions, comparisons of two canvases, and labels.

What a canvas shows is a scene of `tasks/digits_scene.py`, drawn by `tasks/digits_canvas.py` with scans of the record's split only, so no
scan is in two splits. Record i depends only on (set, split, data_seed, i), never on how many are asked for, and is drawn when its image is
asked for. Light to import. How records are composed is in `digits_records.py`, what is said of two canvases in `digits_sentences.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import permutations, product
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.digits import SCENES, all_texts, glyphs_in, one, some_cells
from tasks.digits_scene import CELLS, COLOR_NAMES, WORDS, Glyph
from tasks.pairs.digits_records import Composed, address_of, drawn, picture, wanted
from tasks.pairs.digits_sentences import all_sentences, comparison
from tasks.pairs.records import Captioned, Compared, Kind, Labelled, Questioned
from tasks.task import Split

if TYPE_CHECKING:
    from numpy.random import Generator

MOST_DIGITS = 3
"""A captioned or compared canvas shows one to three digits."""

ASKED = ("name", "where", "color", "cell", "parity", "count", "larger")
"""The digits tasks whose questions the set of questions asks unless told otherwise."""

TOLD: dict[str, tuple[str, ...]] = {"color": COLOR_NAMES, "digit": WORDS, "cell": CELLS}
"""What a label can tell of a digit, in the order of its words."""

MANY_ANSWERS = ("describe", "read")
"""The digits tasks whose answers are too many to choose among."""


@dataclass(frozen=True)
class DigitsCaptions:
    """Canvases of one to three digits, each with a caption as "red three top left and blue seven bottom right".

    The first caption names the digits in reading order, further ones in other orders; of these a canvas has as many as its digits allow, at
    most `captions` in all. Two canvases may well have the same caption. `data_seed` draws other canvases from the same scans.
    """

    captions: int = 1
    data_seed: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.captions < 1:
            raise ConfigError(f"digits captions: {self.captions} captions per image; give 1 or more")

    @property
    def name(self) -> str:
        """The name in tables and reports."""
        return "digits_captions"

    @property
    def kind(self) -> Kind:
        """Captions."""
        return Kind.CAPTIONS

    def records(self, split: Split, count: int | None = None) -> Sequence[Captioned]:
        """The first `count` records (None: 2,000 for training, 400 for validation and test). Any count can be composed."""
        return Composed(partial(self.record, split), wanted(self.name, split, count))

    def record(self, split: Split, index: int) -> Captioned:
        """Record `index` of a split."""
        address = address_of(self.name, split, self.data_seed, index)
        rng = drawn(address, "scene")
        glyphs = some_glyphs(rng)
        return Captioned(address, picture(address, split, glyphs), captions_of(glyphs, self.captions, rng))

    def choices(self) -> tuple[str, ...]:
        """None: nothing is chosen."""
        return ()


@dataclass(frozen=True)
class DigitsQuestions:
    """The questions of digits tasks, `asked` equally often, each with its one right answer."""

    asked: tuple[str, ...] = ASKED
    data_seed: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        fitting = [name for name in SCENES if name not in MANY_ANSWERS]
        strange = [name for name in self.asked if name not in fitting]
        if strange:
            raise ConfigError(f"digits questions: {unknown('task to ask', strange[0], fitting)}")
        if not self.asked:
            raise ConfigError(f"digits questions: asked is empty; name at least one of {', '.join(fitting)}")

    @property
    def name(self) -> str:
        """The name in tables and reports."""
        return "digits_questions"

    @property
    def kind(self) -> Kind:
        """Questions."""
        return Kind.QUESTIONS

    def records(self, split: Split, count: int | None = None) -> Sequence[Questioned]:
        """The first `count` records (None: 2,000 for training, 400 for validation and test). Any count can be composed."""
        return Composed(partial(self.record, split), wanted(self.name, split, count))

    def record(self, split: Split, index: int) -> Questioned:
        """Record `index` of a split."""
        address = address_of(self.name, split, self.data_seed, index)
        rng = drawn(address, "scene")
        scene = SCENES[self.asked[int(rng.integers(len(self.asked)))]](rng)
        return Questioned(address, picture(address, split, scene.glyphs), scene.question, {scene.answer: 1.0}, index)

    def choices(self) -> tuple[str, ...]:
        """Every answer of the usual training records, sorted."""
        return answers_of(self)


@dataclass(frozen=True)
class DigitsComparisons:
    """A sentence on two canvases of one to three digits each, true of one of two neighbouring records.

    The sentence is drawn before its truth, so it tells nothing of it, nor does its form; the canvases are drawn until they fit.
    """

    data_seed: int = 0
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """The name in tables and reports."""
        return "digits_comparisons"

    @property
    def kind(self) -> Kind:
        """Comparisons."""
        return Kind.COMPARISONS

    def records(self, split: Split, count: int | None = None) -> Sequence[Compared]:
        """The first `count` records (None: 2,000 for training, 400 for validation and test). Any count can be composed."""
        return Composed(partial(self.record, split), wanted(self.name, split, count))

    def record(self, split: Split, index: int) -> Compared:
        """Record `index` of a split."""
        address = address_of(self.name, split, self.data_seed, index)
        rng = drawn(address, "scene")
        label = bool(drawn(address_of(self.name, split, self.data_seed, index // 2), "truth").integers(2)) != bool(index % 2)
        sentence = comparison(rng)
        while True:
            left, right = some_glyphs(rng), some_glyphs(rng)
            if sentence.holds(left, right) == label:
                break
        images = picture(address, split, left, "left"), picture(address, split, right, "right")
        return Compared(address, images, sentence.text, label)

    def choices(self) -> tuple[str, ...]:
        """None: a sentence is true or false."""
        return ()


@dataclass(frozen=True)
class DigitsLabels:
    """Canvases of a single digit, in any cell and color. `told` is what the class tells of it: "three", or all of "red three top left".

    The canvases are the same whatever is told of them.
    """

    told: tuple[str, ...] = ("digit",)
    data_seed: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        strange = [name for name in self.told if name not in TOLD]
        if strange:
            raise ConfigError(f"digits labels: {unknown('word to tell', strange[0], TOLD)}")
        if not self.told or sorted(self.told, key=list(TOLD).index) != list(dict.fromkeys(self.told)):
            raise ConfigError(f"digits labels: told is {list(self.told)}; name one or more of {', '.join(TOLD)}, in this order")

    @property
    def name(self) -> str:
        """The name in tables and reports."""
        return "digits_labels" if self.told == ("digit",) else f"digits_labels_{'_'.join(self.told)}"

    @property
    def kind(self) -> Kind:
        """Labels."""
        return Kind.LABELS

    def records(self, split: Split, count: int | None = None) -> Sequence[Labelled]:
        """The first `count` records (None: 2,000 for training, 400 for validation and test). Any count can be composed."""
        return Composed(partial(self.record, split), wanted(self.name, split, count))

    def record(self, split: Split, index: int) -> Labelled:
        """Record `index` of a split."""
        address = address_of("digits_labels", split, self.data_seed, index)
        glyph = one(drawn(address, "scene"))
        words = {"color": COLOR_NAMES[glyph.color], "digit": WORDS[glyph.digit], "cell": CELLS[glyph.cell]}
        return Labelled(address, picture(address, split, (glyph,)), " ".join(words[name] for name in self.told))

    def choices(self) -> tuple[str, ...]:
        """Every class there can be, sorted; each is as likely as any other, in every split."""
        return tuple(sorted(" ".join(words) for words in product(*(TOLD[name] for name in self.told))))


def some_glyphs(rng: "Generator") -> tuple[Glyph, ...]:
    """One to three digits in any cells, every number of them equally likely."""
    return glyphs_in(some_cells(int(rng.integers(1, MOST_DIGITS + 1)), rng), rng)


def phrase(glyph: Glyph) -> str:
    """One digit of a caption: "red three top left"."""
    return f"{glyph.words} {CELLS[glyph.cell]}"


def captions_of(glyphs: Sequence[Glyph], most: int, rng: "Generator") -> tuple[str, ...]:
    """The caption in reading order, then those in other orders, drawn; at most `most` and at most as many as there are orders."""
    first, *others = permutations(phrase(glyph) for glyph in glyphs)
    chosen = [others[place] for place in rng.permutation(len(others))[: most - 1]]
    return tuple(" and ".join(phrases) for phrases in (first, *chosen))


@lru_cache(maxsize=8)
def answers_of(asked: DigitsQuestions) -> tuple[str, ...]:
    """All answers of the usual training records, sorted."""
    return tuple(sorted({answer for record in asked.records(Split.TRAIN) for answer in record.answers}))


def corpus() -> list[str]:
    """All texts that these sets can give, sorted, captions by their phrases. For a tokenizer."""
    phrases = [f"{color} {word} {cell}" for color in COLOR_NAMES for word in WORDS for cell in CELLS]
    return sorted({*all_texts(), *all_sentences(), *phrases, *(f"{phrase} and {phrase}" for phrase in phrases)})
