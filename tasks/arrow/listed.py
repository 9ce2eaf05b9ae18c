"""Lists of web images with one caption each, as `sbu.py` and `conceptual_captions.py` read them.

Both are published as addresses and captions; fetching the images is the user's work, and many addresses are dead. Local images are named
by the number of their line from 0, seven digits, in folders of the first four: `images_train/0001/0001234`, with or without an ending
(.jpg, .jpeg, .png, .webp). Or a list `annot.json`, [[path, caption], ...], names every image: a path from the root or from the folder of
images, or the number alone. Lines whose image is not there are missing, and told.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from tasks.arrow.drafts import Draft, Lack, Lacking
from tasks.arrow.places import image_at
from tasks.arrow.streaming import elements

ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp")

Rows = Callable[[], Iterator[Draft | Lack]]


def pairs_of_list(path: Path) -> Iterator[tuple[str, Any]]:
    """Image and caption of every entry of an annot.json. Raises InputError where it is none."""
    for number, entry in enumerate(elements(path)):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise InputError(f"{path}: entry {number} is {str(entry)[:80]}; write a list of [image, caption]")
        yield entry[0], entry[1]


def rows_of(root: Path, folder: str, split: str, pairs: Callable[[], Iterable[tuple[str, Any]]]) -> Rows:
    """The rows of a list whose images lie in `folder`; the id of an image is its place in it, which no other split has."""

    def rows() -> Iterator[Draft | Lack]:
        for named, caption in pairs():
            image = image_at(root, places(folder, named))
            if isinstance(caption, str) and caption.strip():
                yield Draft((image,), {"caption": [caption.strip()], "image_id": image, "split": split}, 1)
            else:
                yield Lack(Lacking.CAPTION, repr(named))

    return rows


def places(folder: str, named: str) -> list[str]:
    """Where the image called `named` may lie below the root."""
    stem = f"{folder}/{named[:4]}/{named}" if "/" not in named else f"{folder}/{named}"
    found = [stem + ending for ending in ENDINGS]
    return [named, *found] if named.startswith(f"{folder}/") else [*found, named]


def number_name(number: int) -> str:
    """The name of the image of line `number`, counted from 0."""
    return f"{number:07d}"
