"""The keys of sets of images with text that lie in a user's Arrow files.

data:
  coco: {set: coco, root: data/arrow, variant: restval}                          # what `data convert coco` wrote; several roots: a list
  shop: {kind: captions, train: shop/train.arrow, validation: shop/val.arrow, test: shop/test.arrow}
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundation.hints import unknown
from pipeline.config.kinds import Settings
from tasks.arrow.names import DATA_SETS
from tasks.arrow.sets import ArrowSet, arrow_set, files_set
from tasks.pairs.records import Kind

PlaceText = Annotated[str, Field(min_length=1)]
Places = PlaceText | list[PlaceText]
OWN_FILES = ("kind", "train", "validation", "test", "vocabulary")


class ArrowData(Settings):
    """A published set by its name and roots, or files of one's own with the kind of their records."""

    set: PlaceText | None = None
    root: Places | None = None
    variant: str | None = None
    kind: Literal["captions", "questions", "comparisons", "labels"] | None = None
    train: Places = []  # noqa: RUF012
    validation: Places = []  # noqa: RUF012
    test: Places = []  # noqa: RUF012
    vocabulary: PlaceText | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "ArrowData":
        if (self.set is None) == (self.kind is None):
            raise ValueError("a set is a published one (set: coco, root: …) or your own files (kind: captions, train: …); give one of them")
        if self.set is not None:
            if self.set not in DATA_SETS:
                raise ValueError(unknown("data set", self.set, DATA_SETS))
            mixed = next((key for key in OWN_FILES if getattr(self, key)), None)
            if self.root is None or mixed:
                told = f"has no use for {mixed}" if mixed else "needs root, the directory that its Arrow files were written to"
                raise ValueError(f"set {self.set} {told}")
        elif self.root is not None or self.variant is not None:
            raise ValueError("root and variant belong to a published set (set: …); files of your own are named by split")
        return self

    @property
    def what(self) -> Kind:
        """The kind of its records."""
        return DATA_SETS[self.set].kind if self.set is not None else Kind(str(self.kind))

    def make(self, name: str, cache: Path | None = None) -> ArrowSet:
        """The set called `name`; reads the headers of its files. ConfigError and InputError as the makers of `tasks/arrow/sets.py`."""
        return _made(self.model_dump_json(), name, cache)


@lru_cache(maxsize=64)
def _made(settings: str, name: str, cache: Path | None) -> ArrowSet:
    data = ArrowData.model_validate_json(settings)
    if data.set is not None:
        return arrow_set(data.set, data.root or (), variant=data.variant, name=name, cache=cache)
    return files_set(name, data.what, train=data.train, validation=data.validation, test=data.test, vocabulary=data.vocabulary, cache=cache)
