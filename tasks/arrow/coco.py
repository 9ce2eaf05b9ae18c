"""COCO captions in Karpathy's split: train, restval, val, test. Which of train and restval is learned from is the reader's choice.

Expected below the root, as published: `karpathy/dataset_coco.json` (or without the folder), `train2014/`, `val2014/`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.arrow.drafts import Options, Source
from tasks.arrow.karpathy import open_split_file
from tasks.arrow.names import COCO


def open_source(root: Path, options: Options) -> Source:
    """The rows of COCO's files. Raises InputError where the split file is missing or is not one."""
    return open_split_file("coco", root, COCO, options, image_of)


def image_of(entry: Mapping[str, Any]) -> str:
    """Where the image lies: its folder is named in `filepath`, or by its file name."""
    folder = entry.get("filepath") or ("train2014" if "train2014" in entry["filename"] else "val2014")
    return f"{folder}/{entry['filename']}"
