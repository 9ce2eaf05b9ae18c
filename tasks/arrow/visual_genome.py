"""Visual Genome: regions of an image, each with its phrase; a row for an image, with lists of its regions. arXiv 1602.07332.

Expected below the root, as published: `annotations/region_descriptions.json`, [{`id`, `regions`: [{`phrase`, `width`, `height`, `x`,
`y`}]}], `annotations/image_data.json`, [{`image_id`, `url`, `coco_id`}] (either also without the folder), and the images in
`images/VG_100K/` and `images/VG_100K_2/` (also without `images/`). Without image_data.json images are looked for in both folders.

Half of the images are COCO's. `without_coco` names a dataset_coco.json: images of its val and test are left out, so that a model that
is asked about them has not seen them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError, InputError
from tasks.arrow.drafts import Draft, Lack, Lacking, Options, Source, Target
from tasks.arrow.layout import REGIONS
from tasks.arrow.places import first_of, image_at, optional
from tasks.arrow.streaming import elements

FOLDERS = ("VG_100K", "VG_100K_2")
BOX = ("width", "height", "x", "y")


def open_source(root: Path, options: Options) -> Source:
    """The rows of Visual Genome's one file. Raises InputError for a file that is missing or not as published."""
    regions = first_of(root, ("annotations/region_descriptions.json", "region_descriptions.json"))
    images = optional(root, ("annotations/image_data.json", "image_data.json"))
    if options.without_coco is not None and images is None:
        raise ConfigError(f"--without-coco needs image_data.json, which says which images are COCO's, and {root} has none; put it there")
    folder_of, coco_of = _image_data(images)
    held_out = _asked_of_coco(options.without_coco) if options.without_coco is not None else frozenset()
    source = Source((), {"data_set": "visual_genome", "version": 1})
    source.targets = (Target("vg", REGIONS, _rows_of(root, regions, folder_of, coco_of, held_out, source.notes)),)
    return source


def _rows_of(
    root: Path, regions: Path, folder_of: Mapping[int, str], coco_of: Mapping[int, int], held_out: frozenset[int], notes: list[str]
) -> Callable[[], Iterator[Draft | Lack]]:
    def rows() -> Iterator[Draft | Lack]:
        left_out = 0
        for number, entry in enumerate(elements(regions)):
            image = entry.get("id", entry.get("image_id")) if isinstance(entry, Mapping) else None
            if not isinstance(image, int) or not isinstance(entry.get("regions"), list):
                raise InputError(
                    f"{regions}: entry {number} has no number 'id' with a list 'regions'; it is no file of region descriptions"
                )
            if coco_of.get(image) in held_out:
                left_out += 1
            else:
                yield from _row(root, image, entry["regions"], folder_of.get(image), regions)
        if left_out:
            notes.append(f"vg: left out {left_out:,} images that COCO's Karpathy split asks about in val or test")

    return rows


def _row(root: Path, image: int, regions: list[Any], folder: str | None, path: Path) -> Iterator[Draft | Lack]:
    """The row of one image: its regions in their order, all of them, since the same phrase may stand at several places."""
    kept: list[Mapping[str, Any]] = []
    for place, region in enumerate(regions):
        if not isinstance(region, Mapping) or not all(isinstance(region.get(key), int) for key in BOX):
            raise InputError(f"{path}: region {place} of image {image} has no whole numbers {', '.join(BOX)}; fetch the file again")
        if isinstance(region.get("phrase"), str) and region["phrase"].strip():
            kept.append(region)
        else:
            yield Lack(Lacking.CAPTION, f"region {place} of image {image}")
    if kept:
        folders = [folder] if folder else list(FOLDERS)
        places = [f"{above}{each}/{image}.jpg" for above in ("images/", "") for each in folders]
        values: dict[str, Any] = {"caption": [region["phrase"].strip() for region in kept], "image_id": str(image)}
        values |= {key: [region[key] for region in kept] for key in BOX}
        yield Draft((image_at(root, places),), values, len(kept))
    elif not regions:
        yield Lack(Lacking.CAPTIONS, f"image {image}")


def _image_data(path: Path | None) -> tuple[dict[int, str], dict[int, int]]:
    """Image -> the folder that its address names, and -> its number in COCO."""
    folders, numbers = {}, {}
    for number, entry in enumerate(elements(path)) if path else ():
        image = entry.get("image_id", entry.get("id")) if isinstance(entry, Mapping) else None
        if not isinstance(image, int):
            raise InputError(f"{path}: entry {number} has no number 'image_id'; it is no file of image data")
        folder = str(entry.get("url", "")).split("/")[-2:-1]
        if folder and folder[0] in FOLDERS:
            folders[image] = folder[0]
        if isinstance(entry.get("coco_id"), int):
            numbers[image] = entry["coco_id"]
    return folders, numbers


def _asked_of_coco(path: Path) -> frozenset[int]:
    """COCO's numbers of the images in val and test of Karpathy's split."""
    found = frozenset(entry["cocoid"] for entry in elements(path, "images") if entry.get("split") in {"val", "test"} and "cocoid" in entry)
    if not found:
        raise InputError(f"{path}: names no COCO image of val or test by 'cocoid'; give Karpathy's dataset_coco.json")
    return found
