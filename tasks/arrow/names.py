"""What each published data set is: its kind, its columns, the files its converter writes, and which of them each split reads.

One table for writers and readers, so that they cannot disagree. A name ending in `_` stands for shards: `sbu_` is sbu_0, sbu_1, ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foundation.errors import ConfigError
from foundation.hints import unknown
from tasks.arrow.layout import CAPTIONS, COMPARISONS, LABELS, QUESTIONS, REGIONS, Layout
from tasks.pairs.records import Kind
from tasks.task import Split

SHARD_ROWS = 100_000
"""Rows of a shard."""

ENDING = ".arrow"


@dataclass(frozen=True)
class DataSet:
    """A data set as its files know it. `splits`: variant -> split -> files; the first variant is the usual one.

    `vocabulary` is the file of answers that the answer labels count in.
    """

    title: str
    kind: Kind
    layout: Layout
    files: tuple[str, ...]
    splits: Mapping[str, Mapping[Split, tuple[str, ...]]] = field(default_factory=dict)
    vocabulary: str = ""


def _splits(train: Sequence[str], validation: Sequence[str] = (), test: Sequence[str] = ()) -> dict[Split, tuple[str, ...]]:
    return {Split.TRAIN: tuple(train), Split.VALIDATION: tuple(validation), Split.TEST: tuple(test)}


COCO, F30K, VQA, NLVR2 = "coco_caption_karpathy_", "f30k_caption_karpathy_", "vqav2_", "nlvr2_"
GCC, IMAGENET = "conceptual_caption_", "imagenet_"

DATA_SETS: dict[str, DataSet] = {
    "coco": DataSet(
        "COCO captions, Karpathy split",
        Kind.CAPTIONS,
        CAPTIONS,
        tuple(COCO + part for part in ("train", "restval", "val", "test")),
        {
            "restval": _splits([COCO + "train", COCO + "restval"], [COCO + "val"], [COCO + "test"]),
            "train_only": _splits([COCO + "train"], [COCO + "val"], [COCO + "test"]),
        },
    ),
    "flickr30k": DataSet(
        "Flickr30k captions, Karpathy split",
        Kind.CAPTIONS,
        CAPTIONS,
        tuple(F30K + part for part in ("train", "val", "test")),
        {"usual": _splits([F30K + "train"], [F30K + "val"], [F30K + "test"])},
    ),
    "vqav2": DataSet(
        "VQA v2",
        Kind.QUESTIONS,
        QUESTIONS,
        tuple(VQA + part for part in ("train", "val", "trainable_val", "rest_val", "test", "test-dev")),
        {
            "test": _splits([VQA + "train", VQA + "trainable_val"], [VQA + "rest_val"], [VQA + "test"]),
            "test-dev": _splits([VQA + "train", VQA + "trainable_val"], [VQA + "rest_val"], [VQA + "test-dev"]),
            "train_val": _splits([VQA + "train"], [VQA + "val"], [VQA + "test"]),
        },
        "vqav2_answers.json",
    ),
    "nlvr2": DataSet(
        "NLVR2",
        Kind.COMPARISONS,
        COMPARISONS,
        tuple(NLVR2 + part for part in ("train", "dev", "test1", "balanced_dev", "balanced_test1", "unbalanced_dev", "unbalanced_test1")),
        {
            "all": _splits([NLVR2 + "train"], [NLVR2 + "dev"], [NLVR2 + "test1"]),
            "balanced": _splits([NLVR2 + "train"], [NLVR2 + "balanced_dev"], [NLVR2 + "balanced_test1"]),
            "unbalanced": _splits([NLVR2 + "train"], [NLVR2 + "unbalanced_dev"], [NLVR2 + "unbalanced_test1"]),
        },
    ),
    "visual_genome": DataSet("Visual Genome regions", Kind.CAPTIONS, REGIONS, ("vg",), {"usual": _splits(["vg"])}),
    "sbu": DataSet("SBU captions", Kind.CAPTIONS, CAPTIONS, ("sbu_",), {"usual": _splits(["sbu_"])}),
    "conceptual_captions": DataSet(
        "Conceptual Captions",
        Kind.CAPTIONS,
        CAPTIONS,
        (GCC + "train_", GCC + "val_"),
        {"usual": _splits([GCC + "train_"], [GCC + "val_"])},
    ),
    "imagenet": DataSet(
        "ImageNet-1k, the published validation images for the test",
        Kind.LABELS,
        LABELS,
        tuple(IMAGENET + part for part in ("train_", "held_back", "val")),
        {"usual": _splits([IMAGENET + "train_"], [IMAGENET + "held_back"], [IMAGENET + "val"])},
    ),
}


def data_set(name: str) -> DataSet:
    """The data set called `name`; ConfigError with the nearest name where there is none."""
    if name not in DATA_SETS:
        raise ConfigError(unknown("data set", name, DATA_SETS))
    return DATA_SETS[name]


def is_sharded(name: str) -> bool:
    """Whether a name stands for shards."""
    return name.endswith("_")
