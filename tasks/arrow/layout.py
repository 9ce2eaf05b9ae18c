"""The columns of an Arrow file: their names, their order and their types, and which of them hold encoded images. Light to import."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEAD = b"mergeline"
"""The key of the schema's metadata under which a file says what it holds."""


@dataclass(frozen=True)
class Layout:
    """The columns of a file, in order, each with a word of `TYPES`; those of type `image` hold encoded image files.

    `texts` names the column whose entries are counted as captions (questions, sentences).
    """

    columns: tuple[tuple[str, str], ...]
    texts: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, _ in self.columns)

    @property
    def images(self) -> tuple[str, ...]:
        """The columns that hold images."""
        return tuple(name for name, word in self.columns if word == "image")


CAPTIONS = Layout((("image", "image"), ("caption", "texts"), ("image_id", "text"), ("split", "text")), "caption")
REGIONS = Layout(
    (
        ("image", "image"),
        ("caption", "texts"),
        ("width", "numbers"),
        ("height", "numbers"),
        ("x", "numbers"),
        ("y", "numbers"),
        ("image_id", "text"),
    ),
    "caption",
)
QUESTIONS = Layout(
    (
        ("image", "image"),
        ("questions", "texts"),
        ("answers", "lists of texts"),
        ("answer_labels", "lists of numbers"),
        ("answer_scores", "lists of scores"),
        ("image_id", "number"),
        ("question_id", "numbers"),
        ("split", "text"),
    ),
    "questions",
)
COMPARISONS = Layout(
    (("image_0", "image"), ("image_1", "image"), ("questions", "texts"), ("answers", "texts"), ("identifier", "text")), "questions"
)
LABELS = Layout((("image", "image"), ("label", "text"), ("image_id", "text"), ("split", "text")), "label")


def schema_of(layout: Layout, head: Mapping[str, Any]) -> Any:
    """The pyarrow schema of a layout; `head` is told in its metadata, as JSON with sorted keys."""
    import pyarrow as pa

    types = {
        "image": pa.binary(),
        "text": pa.string(),
        "number": pa.int64(),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.int64()),
        "lists of texts": pa.list_(pa.list_(pa.string())),
        "lists of numbers": pa.list_(pa.list_(pa.int64())),
        "lists of scores": pa.list_(pa.list_(pa.float64())),
    }
    fields = [pa.field(name, types[word]) for name, word in layout.columns]
    return pa.schema(fields, metadata={HEAD: json.dumps(head, sort_keys=True).encode()})
