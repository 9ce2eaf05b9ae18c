"""Small benchmarks in their published formats, written by code: what the tests read instead of the gigabytes."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow.parquet import write_table

from tasks.benchmarks.task import BenchmarkTask, benchmark_task


def encoded(number: int, form: str = "PNG", size: tuple[int, int] = (6, 5)) -> bytes:
    """An image of noise that belongs to `number`."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, form)
    return sink.getvalue()


def cell(number: int) -> dict[str, Any]:
    """An image as a hub table holds it."""
    return {"bytes": encoded(number), "path": f"{number}.png"}


def hub_table(directory: Path, split: str, rows: Sequence[Mapping[str, Any]], shards: int = 1, group: int = 3) -> None:
    """A split of a hub data set as Parquet shards."""
    (directory / "data").mkdir(parents=True, exist_ok=True)
    each = -(-len(rows) // shards)
    for shard in range(shards):
        path = directory / "data" / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
        held = [dict(row) for row in rows[shard * each : (shard + 1) * each]]
        write_table(pa.Table.from_pylist(held), path, row_group_size=group)


def image_file(path: Path, number: int, form: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(number, form))


def pair_lines(path: Path, pairs: Iterable[tuple[Any, Any]]) -> None:
    path.write_text("".join(f"{key} {value}\n" for key, value in pairs))


def cub200(directory: Path, birds: int = 30, each: int = 4) -> Path:
    """CUB_200_2011 with so many kinds of birds and images of each, every other one of the test split."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"{bird:03d}.Kind_{bird}_Warbler" for bird in range(1, birds + 1)]
    images = [(number + 1, number // each) for number in range(birds * each)]
    pair_lines(directory / "classes.txt", enumerate(names, start=1))
    pair_lines(directory / "images.txt", ((number, f"{names[bird]}/{number:04d}.jpg") for number, bird in images))
    pair_lines(directory / "image_class_labels.txt", ((number, bird + 1) for number, bird in images))
    pair_lines(directory / "train_test_split.txt", ((number, number % 2) for number, _ in images))
    for number, bird in images:
        image_file(directory / "images" / names[bird] / f"{number:04d}.jpg", number)
    return directory


def pixmocount(directory: Path) -> Path:
    """allenai/pixmo-count: tables of addresses, with the images in a folder."""
    place = 0
    for split, count in (("train", 6), ("validation", 2), ("test", 3)):
        rows = []
        for _ in range(count):
            digest = f"{place:064x}"
            points = {"x": [1.0], "y": [2.0]}
            address = f"https://example.org/{place}.jpg"
            rows.append({"image_url": address, "image_sha256": digest, "count": place % 4, "label": "dogs", "points": points})
            image_file(directory / "images" / f"{digest}.jpg", place)
            place += 1
        hub_table(directory, split, rows)
    return directory


def countbench(directory: Path) -> Path:
    """vikhyatk/CountBenchQA."""
    rows = [
        {"image": cell(place), "text": "many", "question": f"How many birds are in image {place}?", "number": place + 2}
        for place in range(4)
    ]
    hub_table(directory, "test", rows)
    return directory


def timeclock(directory: Path) -> Path:
    """AvaXiao/clockreading-time as tables."""
    hub_table(directory, "train", [{"image": cell(place), "time": f"{place % 12}:{place:02d}"} for place in range(24)])
    hub_table(directory, "test", [{"image": cell(100 + place), "hour": 3 + place, "minute": 5 * place} for place in range(3)])
    return directory


def timeclock_csv(directory: Path) -> Path:
    """Clocks as train.csv and test.csv with images in files."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, start in (("train", 0), ("test", 50)):
        with open(directory / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "time"])
            for place in range(start, start + 5):
                image_file(directory / "images" / split / f"{place}.png", place, "PNG")
                writer.writerow([f"images/{split}/{place}.png", f"{place % 12}:07"])
    return directory


def pathvqa(directory: Path) -> Path:
    """flaviagiammarino/path-vqa, two questions on each image."""
    asked = (("is there a gland?", "yes"), ("what is present?", "granulomatous inflammation"))
    place = 0
    for split, count in (("train", 5), ("validation", 2), ("test", 3)):
        rows = []
        for _ in range(count):
            rows += [{"image": cell(place), "question": question, "answer": answer} for question, answer in asked]
            place += 1
        hub_table(directory, split, rows, shards=2)
    return directory


def textvqa_records(split: str, images: int, start: int) -> list[dict[str, Any]]:
    """TextVQA's records without their images, two questions on each image."""
    answers = ["nokia", "nokia", "Nokia", "nokia", "the nokia", "samsung", "nokia", "nokia", "toshiba", "nokia"]
    return [
        {
            "image_id": f"{start + place:016x}",
            "question_id": 2 * (start + place) + part,
            "question": "what is the brand of this camera?" if part else "who made this?",
            "answers": answers,
            "image_width": 6,
            "set_name": split,
        }
        for place in range(images)
        for part in range(2)
    ]


def textvqa(directory: Path) -> Path:
    """lmms-lab/textvqa."""
    for split, name, images, start in (("train", "train", 20, 0), ("validation", "val", 3, 100)):
        records = textvqa_records(name, images, start)
        hub_table(directory, split, [{**record, "image": cell(int(record["image_id"], 16))} for record in records])
    return directory


def textvqa_site(directory: Path) -> Path:
    """TextVQA_0.5.1 as the site gives it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, images, start in (("train", 20, 0), ("val", 3, 100)):
        records = textvqa_records(name, images, start)
        held = {"dataset_type": name, "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": records}
        (directory / f"TextVQA_0.5.1_{name}.json").write_text(json.dumps(held))
        for record in records:
            image_file(directory / "train_images" / f"{record['image_id']}.jpg", int(record["image_id"], 16))
    return directory


MADE = {
    "cub200": cub200,
    "pixmocount": pixmocount,
    "countbench": countbench,
    "timeclock": timeclock,
    "pathvqa": pathvqa,
    "textvqa": textvqa,
}
"""Benchmark -> what writes a small one."""


def made(name: str, directory: Path, **options: Any) -> BenchmarkTask:
    """The task of a small benchmark written to `directory`."""
    return benchmark_task(name, name, MADE[name](directory), options)
