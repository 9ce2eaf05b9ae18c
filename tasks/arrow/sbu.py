"""SBU captions: a million photos with their owners' captions. Ordonez et al., NIPS 2011.

Expected below the root: `annot.json`, [[image, caption], ...]; or as published `SBU_captioned_photo_dataset_urls.txt` and
`SBU_captioned_photo_dataset_captions.txt`, line for line (also in a folder `dataset/`). Images in `images_train/`, as `listed.py` says.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from foundation.errors import InputError
from tasks.arrow.drafts import Options, Source, Target
from tasks.arrow.layout import CAPTIONS
from tasks.arrow.listed import number_name, pairs_of_list, rows_of
from tasks.arrow.places import first_of, optional
from tasks.arrow.streaming import text_lines

STEM = "SBU_captioned_photo_dataset_"


def open_source(root: Path, options: Options) -> Source:
    """The rows of SBU's shards, in the order of the list. Raises InputError for a list that is missing or not as published."""
    listed = optional(root, ("annot.json",))
    if listed is None and optional(root, _published("captions")) is None:
        raise InputError(f"{root} has neither annot.json nor {STEM}captions.txt with {STEM}urls.txt; put one there, or check --root")
    rows = rows_of(root, "images_train", "train", lambda: pairs_of_list(listed) if listed else published_pairs(root))
    return Source((Target("sbu_", CAPTIONS, rows),), {"data_set": "sbu", "version": 1})


def published_pairs(root: Path) -> Iterator[tuple[str, str]]:
    """Image and caption of every line of the published lists."""
    captions, urls = (first_of(root, _published(what)) for what in ("captions", "urls"))
    for caption, url in zip_longest(text_lines(captions), text_lines(urls)):
        if caption is None or url is None:
            shorter = captions if caption is None else urls
            raise InputError(f"{shorter}: ends before the other list does; captions and addresses belong together line for line")
        yield number_name(caption[0] - 1), caption[1]


def _published(what: str) -> tuple[str, ...]:
    return f"{STEM}{what}.txt", f"dataset/{STEM}{what}.txt"
