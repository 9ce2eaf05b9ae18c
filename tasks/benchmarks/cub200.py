"""CUB-200-2011: which of 26 named kinds of birds is shown? Answered with a letter from A to Z.

Read from the directory CUB_200_2011 as published: images.txt, image_class_labels.txt, train_test_split.txt and classes.txt (lines of a
number, a space and a value) and the folder images/. The official split is kept. The 25 kinds beside the right one, the order of all 26 and
the wording of the question are drawn for each image by its number, so they do not depend on what else is asked. So is the image's place
among the questions: the list goes bird by bird, and the first questions should be about them all. Score: the chosen letter
is the right one (`scoring/letters.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from string import ascii_uppercase
from typing import ClassVar

from foundation.errors import ConfigError, InputError
from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.questions import Asked
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.scoring.letters import chosen_letter
from tasks.task import Example, Split

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
IN_TRAIN = {Split.TRAIN: "1", Split.TEST: "0"}

WORDINGS = (
    "Which kind of bird is shown in this image?",
    "What species is the bird in this picture?",
    "Identify the bird in this photo.",
    "Which of these birds does the image show?",
    "What is the name of this bird?",
    "To which species does the bird in the photo belong?",
    "Which bird can be seen here?",
    "Name the species of the bird in the image.",
    "Which of the following species is pictured?",
    "What type of bird is this?",
)
INSTRUCTION = "Answer with the letter of the right option only."


@dataclass(frozen=True)
class Cub200:
    """Fine-grained birds, 26 options. `seed`: draws the options, their order and the wording; another seed is another task."""

    seed: int = 0
    name: ClassVar[str] = "cub200"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "https://www.vision.caltech.edu/datasets/cub_200_2011 (CUB_200_2011.tgz)"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ConfigError(f"benchmark cub200: seed is {self.seed!r}; give a whole number, 0 or more")

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return dict.fromkeys((Split.TRAIN, Split.TEST), (*LISTS, "images/**/*"))

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        birds = {number: _bird(name) for number, name in raw.pairs("classes.txt")}
        if len(birds) < len(ascii_uppercase):
            raise InputError(f"{raw.directory}: classes.txt names {len(birds)} birds, fewer than 26; get the raw files from {raw.source}")
        images = raw.pairs("images.txt")
        labels, splits = dict(raw.pairs("image_class_labels.txt")), dict(raw.pairs("train_test_split.txt"))
        for number, name in images:
            if labels.get(number) not in birds:
                raise InputError(
                    f"{raw.directory}: image {number} ({name}) has no class in image_class_labels.txt that classes.txt names; "
                    f"get the raw files from {raw.source}"
                )
            if splits.get(number) not in IN_TRAIN.values():
                raise InputError(
                    f"{raw.directory}: image {number} ({name}) is in no split of train_test_split.txt; get the raw files from {raw.source}"
                )
        taken = [(number, name) for number, name in images if splits[number] == IN_TRAIN[split]]
        taken.sort(key=lambda image: self._draw(image[0], "place"))
        return Asked(taken, lambda place, image: self._question(*image, labels[image[0]], birds))

    def score(self, response: str, example: Example) -> float:
        return float(chosen_letter(response, example.choices) == example.answer)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}

    def _question(self, number: str, image: str, label: str, birds: Mapping[str, str]) -> Question:
        others = sorted((each for each in birds if each != label), key=lambda each: self._draw(number, "other", each))
        options = sorted([label, *others[: len(ascii_uppercase) - 1]], key=lambda each: self._draw(number, "order", each))
        wording = WORDINGS[int.from_bytes(self._draw(number, "wording"), "big") % len(WORDINGS)]
        lines = [f"{letter}. {birds[each]}" for letter, each in zip(ascii_uppercase, options, strict=True)]
        answer = ascii_uppercase[options.index(label)]
        text = "\n".join([wording, *lines, INSTRUCTION])
        return Question(number, text, answer, (f"images/{image}",), image, group="", choices=tuple(ascii_uppercase))

    def _draw(self, *address: str) -> bytes:
        """Random bytes that belong to an address, the image's number first."""
        return blake2b("/".join(("cub200", str(self.seed), *address)).encode(), digest_size=16).digest()


def _bird(name: str) -> str:
    """ "001.Black_footed_Albatross" as "Black footed Albatross"."""
    return name.partition(".")[2].replace("_", " ").strip() or name
