"""Flickr30k captions in Karpathy's split: train, val, test. Validation reads val, never test.

Expected below the root, as published: `karpathy/dataset_flickr30k.json` (or without the folder), `flickr30k-images/`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.arrow.drafts import Options, Source
from tasks.arrow.karpathy import open_split_file
from tasks.arrow.names import F30K


def open_source(root: Path, options: Options) -> Source:
    """The rows of Flickr30k's files. Raises InputError where the split file is missing or is not one."""
    return open_split_file("flickr30k", root, F30K, options, image_of)


def image_of(entry: Mapping[str, Any]) -> str:
    """Where the image lies."""
    return f"flickr30k-images/{entry['filename']}"
