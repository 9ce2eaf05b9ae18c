"""VQA v2: questions about COCO images, ten answers each; a row for an image, with lists of its questions.

Expected below the root, as published: `v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json`,
`v2_mscoco_{train2014,val2014}_annotations.json`, the images in `train2014/`, `val2014/`, `test2015/`.

Of val, `rest_images` images drawn by `seed` make rest_val, which validation reads; the others make trainable_val, which is learned from
with train. An image is in one of them with all of its questions. The answer vocabulary is counted over what is learned from, so it knows
nothing of rest_val (arXiv 1505.00468; the usual 3,129 answers come from train and all of val: `answers_from` ALL). A question none of
whose answers is in the vocabulary teaches nothing: train and trainable_val leave it out and say so; val and rest_val keep it, since
whoever answers it is wrong. `answers` and `answer_scores` hold all answers that annotators gave, those of the vocabulary first;
`answer_labels` numbers these.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError, InputError
from tasks.arrow.answers import normalised, targets, vocabulary
from tasks.arrow.drafts import AnswersFrom, Draft, Lack, Lacking, Options, Source, Target
from tasks.arrow.layout import QUESTIONS
from tasks.arrow.names import DATA_SETS, VQA
from tasks.arrow.places import first_of
from tasks.arrow.streaming import elements

YEARS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
LEARNED = ("train", "trainable_val")
Given = tuple[list[str], list[int], list[float]]
"""What annotators gave: answers, the numbers of those in the vocabulary, scores."""
SECRET: Given = ([], [], [])
FROM_VAL = ("val", "trainable_val", "rest_val")


@dataclass(frozen=True)
class Question:
    """A question and what its annotators said; None where there is no annotation."""

    number: int
    text: str
    given: Given | None = None


Index = dict[int, list[Question]]
"""The questions of a published part by image, in the order of the file; texts only, no images."""


def open_source(root: Path, options: Options) -> Source:
    """The rows of VQA v2's files. Raises InputError for a file that is missing or not as published."""
    wanted = [file.removeprefix(VQA) for file in DATA_SETS["vqav2"].files if not options.only or file in options.only]
    parts = {_part(file) for file in wanted}
    questions = {part: first_of(root, (f"v2_OpenEnded_mscoco_{YEARS[part]}_questions.json",)) for part in YEARS if part in parts}
    annotations = {part: first_of(root, (f"v2_mscoco_{YEARS[part]}_annotations.json",)) for part in ("train", "val")}
    rest = rest_images(annotations["val"], options)
    answers = vocabulary(majority_answers(annotations, rest, options), options.least_answers)
    if not answers:
        raise InputError(f"{annotations['train']}: no answer is the majority's {options.least_answers} times; lower --least-answers")
    content = json.dumps({"answers": answers}, indent=1, ensure_ascii=False).encode() + b"\n"
    numbers = {answer: number for number, answer in enumerate(answers)}
    read = _Parts(questions, annotations, numbers)
    head = {"data_set": "vqav2", "version": 1, "vocabulary": sha256(content).hexdigest(), "answers": len(answers)}
    source = Source((), head, {DATA_SETS["vqav2"].vocabulary: content})
    source.targets = tuple(Target(VQA + file, QUESTIONS, _rows_of(file, read, rest, source.notes)) for file in wanted)
    return source


def rest_images(annotations: Path, options: Options) -> frozenset[int]:
    """The images of val that are kept for validation: those whose digest with the seed comes first, so adding images moves few."""
    images = {_field(each, "image_id", annotations) for each in elements(annotations, "annotations")}
    if options.rest_images >= len(images):
        raise ConfigError(f"--rest-images is {options.rest_images}, but val has {len(images):,} images; leave some to learn from")
    drawn = sorted(images, key=lambda image: sha256(f"vqav2/rest/{options.seed}/{image}".encode()).digest())
    return frozenset(drawn[: options.rest_images])


def majority_answers(annotations: Mapping[str, Path], rest: frozenset[int], options: Options) -> Counter[str]:
    """How often each answer, in its one spelling, is what most annotators gave."""
    counts = Counter[str]()
    held_back = rest if options.answers_from is AnswersFrom.TRAINABLE else frozenset()
    for path in annotations.values():
        for each in elements(path, "annotations"):
            if _field(each, "image_id", path) not in held_back:
                counts[normalised(_field(each, "multiple_choice_answer", path))] += 1
    return counts


@dataclass
class _Parts:
    """Reads a published part when it is first needed, and holds the one read last."""

    questions: Mapping[str, Path]
    annotations: Mapping[str, Path]
    numbers: Mapping[str, int]
    held: tuple[str, Index] | None = None

    def index(self, part: str) -> Index:
        """The questions of a part, with their answers."""
        if self.held is None or self.held[0] != part:
            self.held = None
            self.held = (part, self._read(part))
        return self.held[1]

    def _read(self, part: str) -> Index:
        path = self.annotations.get(part)
        given = {}
        for each in elements(path, "annotations") if path else ():
            said = [_field(answer, "answer", path) for answer in _field(each, "answers", path)]
            given[_field(each, "question_id", path)] = targets(said, self.numbers)
        index: Index = {}
        for each in elements(self.questions[part], "questions"):
            number, image, text = (_field(each, key, self.questions[part]) for key in ("question_id", "image_id", "question"))
            known = given.pop(number, None) if path else SECRET
            answered = known is SECRET or (known is not None and known[0])  # ten blanks are no annotation
            index.setdefault(image, []).append(Question(number, text.strip(), known if answered else None))
        if given:
            some = f"{len(given):,} questions that {self.questions[part].name} does not ask, e.g. {next(iter(given))}"
            raise InputError(f"{path}: has annotations of {some}; fetch both files of one release")
        return index


def _rows_of(file: str, read: _Parts, rest: frozenset[int], notes: list[str]) -> Callable[[], Iterator[Draft | Lack]]:
    part = _part(file)

    def rows() -> Iterator[Draft | Lack]:
        left_out = 0
        for image, asked in read.index(part).items():
            if (file == "rest_val" and image not in rest) or (file == "trainable_val" and image in rest):
                continue
            kept = []
            for question in asked:
                if question.given is None or not question.text:
                    lacking = Lacking.QUESTION if not question.text else Lacking.ANNOTATION
                    yield Lack(lacking, f"question {question.number} about image {image}")
                elif file in LEARNED and not question.given[1]:
                    left_out += 1
                else:
                    kept.append(question)
            if kept:
                yield _draft(image, kept, file, part)
        if left_out:
            notes.append(f"{VQA}{file}: left out {left_out:,} questions, none of whose answers is in the vocabulary")

    return rows


def _draft(image: int, asked: list[Question], file: str, part: str) -> Draft:
    folder = YEARS[part].replace("test-dev", "test")
    given = [question.given or SECRET for question in asked]
    values: dict[str, Any] = {
        "questions": [question.text for question in asked],
        "answers": [each[0] for each in given],
        "answer_labels": [each[1] for each in given],
        "answer_scores": [each[2] for each in given],
        "image_id": image,
        "question_id": [question.number for question in asked],
        "split": file,
    }
    return Draft((f"{folder}/COCO_{folder}_{image:012d}.jpg",), values, len(asked))


def _part(file: str) -> str:
    """The published part that a file's questions are of."""
    return "val" if file in FROM_VAL else file


FIELDS: dict[str, type] = {
    "image_id": int,
    "question_id": int,
    "question": str,
    "answers": list,
    "answer": str,
    "multiple_choice_answer": str,
}


def _field(entry: Any, key: str, path: Path | None) -> Any:
    if not isinstance(entry, Mapping) or not isinstance(entry.get(key), FIELDS[key]):
        raise InputError(f"{path}: an entry has no {key!r} as VQA v2 has it: {str(entry)[:80]}; fetch the published file")
    return entry[key]
