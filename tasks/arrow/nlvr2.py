"""NLVR2: sentences that are true or false of two images; a row for a pair of images, with lists of its sentences. arXiv 1811.00491.

Expected below the root, as published: `nlvr2/data/{train,dev,test1}.json` (one JSON object per line), `nlvr2/data/balanced/` and
`unbalanced/` with `{balanced,unbalanced}_{dev,test1}.json`; images in `images/train/<directory>/`, `dev/`, `test1/`
(or `images/dev/`, `images/test1/`). dev is for validation, test1 for the test.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from tasks.arrow.drafts import Draft, Lack, Lacking, Options, Source, Target
from tasks.arrow.layout import COMPARISONS
from tasks.arrow.names import DATA_SETS, NLVR2
from tasks.arrow.places import first_of, image_at
from tasks.arrow.streaming import lines

LABELS = {"True": "True", "False": "False", "true": "True", "false": "False"}


def open_source(root: Path, options: Options) -> Source:
    """The rows of NLVR2's files. Raises InputError for a file that is missing or not as published."""
    wanted = [file for file in DATA_SETS["nlvr2"].files if not options.only or file in options.only]
    targets = tuple(Target(file, COMPARISONS, _rows_of(root, _annotations(root, file.removeprefix(NLVR2)))) for file in wanted)
    return Source(targets, {"data_set": "nlvr2", "version": 1})


def _annotations(root: Path, part: str) -> Path:
    kind = part.partition("_")[0] if "_" in part else ""
    name = f"{kind}/{part}.json" if kind else f"{part}.json"
    return first_of(root, (f"nlvr2/data/{name}", f"data/{name}", name))


def _rows_of(root: Path, path: Path) -> Callable[[], Iterator[Draft | Lack]]:
    def rows() -> Iterator[Draft | Lack]:
        pairs: dict[str, dict[str, Any]] = {}
        for number, entry in lines(path):
            identifier, sentence, label = (_field(entry, key, path, number) for key in ("identifier", "sentence", "label"))
            if str(label) not in LABELS:
                raise InputError(f"{path}, line {number}: the label is {label!r}; it is True or False in NLVR2")
            if not isinstance(sentence, str) or not sentence.strip():
                yield Lack(Lacking.CAPTION, f"sentence {identifier!r}")
                continue
            pair = identifier.rpartition("-")[0]
            held = pairs.setdefault(pair, {"directory": entry.get("directory"), "questions": [], "answers": []})
            held["questions"].append(sentence.strip())
            held["answers"].append(LABELS[str(label)])
        for pair, held in pairs.items():
            images = tuple(image_at(root, _places(pair, held["directory"], number)) for number in (0, 1))
            values = {"questions": held["questions"], "answers": held["answers"], "identifier": pair}
            yield Draft(images, values, len(held["questions"]))

    return rows


def _places(pair: str, directory: object, number: int) -> tuple[str, ...]:
    """Where an image of a pair may lie."""
    part, file = pair.partition("-")[0], f"{pair}-img{number}.png"
    if part == "train":
        return f"images/train/{directory}/{file}", f"train/{directory}/{file}", f"images/train/{file}"
    return f"{part}/{file}", f"images/{part}/{file}"


def _field(entry: Any, key: str, path: Path, number: int) -> Any:
    if not isinstance(entry, Mapping) or key not in entry or (key == "identifier" and not isinstance(entry[key], str)):
        raise InputError(f"{path}, line {number}: has no {key!r} as NLVR2 has it; fetch the published file")
    return entry[key]
