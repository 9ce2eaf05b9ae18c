"""The Karpathy split files (dataset_coco.json, dataset_flickr30k.json), one object with a list `images`, each with `filename`, `split`,
`sentences` [{`raw`}] and, for COCO, `filepath`: what `coco.py` and `flickr30k.py` share. arXiv 1412.2306, section 4.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from tasks.arrow.drafts import Draft, Lack, Lacking, Options, Source, Target
from tasks.arrow.layout import CAPTIONS
from tasks.arrow.names import DATA_SETS
from tasks.arrow.places import first_of
from tasks.arrow.streaming import elements

Place = Callable[[Mapping[str, Any]], str]
"""The name of an entry's image below the root."""


def open_split_file(data: str, root: Path, prefix: str, options: Options, image_of: Place) -> Source:
    """The source of a data set in this format; a file per split, called `prefix` and the split's name."""
    json_name = f"dataset_{data}.json"
    annotations = first_of(root, (f"karpathy/{json_name}", json_name))
    wanted = [file for file in DATA_SETS[data].files if not options.only or file in options.only]
    parts = [file.removeprefix(prefix) for file in DATA_SETS[data].files]
    targets = tuple(Target(file, CAPTIONS, _rows_of(annotations, file.removeprefix(prefix), parts, image_of)) for file in wanted)
    return Source(targets, {"data_set": data, "version": 1})


def _rows_of(annotations: Path, split: str, parts: Sequence[str], image_of: Place) -> Callable[[], Iterator[Draft | Lack]]:
    def rows() -> Iterator[Draft | Lack]:
        for number, entry in enumerate(elements(annotations, "images")):
            part = _word(entry, "split", annotations, number)
            if part not in parts:
                raise InputError(f"{annotations}: entry {number} of images is of split {part!r}; Karpathy's are {', '.join(parts)}")
            if part == split:
                yield from _row(entry, split, annotations, number, image_of)

    return rows


def _row(entry: Mapping[str, Any], split: str, annotations: Path, number: int, image_of: Place) -> Iterator[Draft | Lack]:
    """The row of one image, and what its captions lack. Captions keep their order; the same one twice is kept once."""
    filename = _word(entry, "filename", annotations, number)
    sentences = entry.get("sentences")
    if not isinstance(sentences, list):
        raise InputError(f"{annotations}: entry {number} of images ({filename}) has no list 'sentences'; it is no Karpathy split file")
    captions = []
    for place, sentence in enumerate(sentences):
        raw = sentence.get("raw") if isinstance(sentence, Mapping) else None
        if isinstance(raw, str) and raw.strip():
            captions.append(raw.strip())
        else:
            yield Lack(Lacking.CAPTION, f"{filename!r}, caption {place}")
    if captions:
        captions = list(dict.fromkeys(captions))
        yield Draft((image_of(entry),), {"caption": captions, "image_id": filename, "split": split}, len(captions))
    elif not sentences:
        yield Lack(Lacking.CAPTIONS, repr(filename))


def _word(entry: Any, key: str, annotations: Path, number: int) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get(key), str):
        raise InputError(f"{annotations}: entry {number} of images has no {key!r}; it is no Karpathy split file")
    return entry[key]
