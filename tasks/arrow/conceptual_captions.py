"""Conceptual Captions (three million): images of web pages with cleaned alt texts. Sharma et al., ACL 2018.

Expected below the root: `train_annot.json` and `val_annot.json`, [[image, caption], ...]; or as published
`Train_GCC-training.tsv` and `Validation_GCC-1.1.0-Validation.tsv`, caption and address with a tab between. Images in `images_train/` and
`images_val/`, as `listed.py` says.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from foundation.errors import InputError
from tasks.arrow.drafts import Options, Source, Target
from tasks.arrow.layout import CAPTIONS
from tasks.arrow.listed import number_name, pairs_of_list, rows_of
from tasks.arrow.names import DATA_SETS, GCC
from tasks.arrow.places import first_of
from tasks.arrow.streaming import text_lines

PUBLISHED = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}


def open_source(root: Path, options: Options) -> Source:
    """The rows of the shards of train and val, in the order of the lists. Raises InputError for a missing or misshapen list."""
    wanted = [file for file in DATA_SETS["conceptual_captions"].files if not options.only or file in options.only]
    targets = []
    for file in wanted:
        split = file.removeprefix(GCC).removesuffix("_")
        path = first_of(root, (f"{split}_annot.json", PUBLISHED[split]))
        pairs = partial(table_pairs if path.suffix == ".tsv" else pairs_of_list, path)
        targets.append(Target(file, CAPTIONS, rows_of(root, f"images_{split}", split, pairs)))
    return Source(tuple(targets), {"data_set": "conceptual_captions", "version": 1})


def table_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Image and caption of every line of a published table."""
    for number, line in text_lines(path):
        caption, tab, _ = line.partition("\t")
        if not tab:
            raise InputError(f"{path}, line {number}: has no tab between caption and address; fetch the file again")
        yield number_name(number - 1), caption
