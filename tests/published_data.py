"""Small data sets in the published annotation formats, with real images, for the tests of the converters."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image


def encoded(number: int, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A small image that differs by number."""
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    image.putpixel((number % size[0], number // size[0] % size[1]), (255, 255, 255))
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, content: bytes | str | Any) -> Path:
    """Write bytes, text, or a value as JSON, with the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


COCO = (("train", 9), ("train", 25), ("restval", 30), ("val", 42), ("test", 73))
"""Split and number of each image; all but those of train lie in val2014."""


def coco_name(split: str, number: int) -> str:
    folder = "train2014" if split == "train" else "val2014"
    return f"COCO_{folder}_{number:012d}.jpg"


def coco(root: Path, entries: Sequence[tuple[str, int]] = COCO) -> Path:
    """A Karpathy split file of COCO; three captions each, the first of which stands twice."""
    images = []
    for split, number in entries:
        name = coco_name(split, number)
        folder = name.split("_")[1]
        put(root / folder / name, encoded(number))
        captions = [f"Zebra {number} on grass.", f"an animal, {number}", f"Zebra {number} on grass.", f" bare {number} "]
        sentences = [{"tokens": [], "raw": raw, "imgid": 0, "sentid": 0} for raw in captions]
        images.append({"filepath": folder, "filename": name, "split": split, "cocoid": number, "imgid": 0, "sentences": sentences})
    put(root / "karpathy/dataset_coco.json", {"images": images, "dataset": "coco"})
    return root


def flickr30k(root: Path) -> Path:
    """A Karpathy split file of Flickr30k: two images of train, one each of val and test."""
    images = []
    for number, split in enumerate(("train", "val", "test", "train")):
        put(root / f"flickr30k-images/{1000 + number}.jpg", encoded(number))
        sentences = [{"raw": f"Person {number}, number {place}."} for place in range(5)]
        images.append({"filename": f"{1000 + number}.jpg", "split": split, "sentences": sentences, "sentids": [], "imgid": number})
    put(root / "karpathy/dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    return root


def vqa_question(image: int, place: int, answers: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A question about an image, and its annotation."""
    number = image * 1000 + place
    question = {"image_id": image, "question": f"What is in {image}, {place}?", "question_id": number}
    annotation = {
        "question_type": "what is",
        "multiple_choice_answer": max(answers, key=answers.count) if answers else "",
        "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": at} for at, answer in enumerate(answers, start=1)],
        "image_id": image,
        "answer_type": "other",
        "question_id": number,
    }
    return question, annotation


def vqav2(root: Path, val_images: int = 6) -> Path:
    """VQA v2: 3 images of train and `val_images` of val with two questions each, 2 of test, 1 of which is in test-dev."""
    numbers = {"train2014": range(1, 4), "val2014": range(101, 101 + val_images), "test2015": range(201, 203)}
    for year, images in numbers.items():
        asked = []
        for image in images:
            put(root / year / f"COCO_{year}_{image:012d}.jpg", encoded(image))
            asked.append(vqa_question(image, 0, ["Yes."] * 7 + ["no"] * 2 + ["the  dog"]))
            asked.append(vqa_question(image, 1, ["two"] * 4 + ["2"] * 3 + ["3"] * 3))
        info = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {"name": "CC"}}
        put(root / f"v2_OpenEnded_mscoco_{year}_questions.json", {**info, "questions": [question for question, _ in asked]})
        if year != "test2015":
            put(root / f"v2_mscoco_{year}_annotations.json", {**info, "annotations": [annotation for _, annotation in asked]})
    questions = json.loads((root / "v2_OpenEnded_mscoco_test2015_questions.json").read_text())["questions"][:1]
    put(root / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": questions})
    return root


def nlvr2(root: Path) -> Path:
    """NLVR2: two pairs of train, one of them with two sentences, and one pair each of dev and test1."""
    pairs = {"train": ("train-10-0", "train-11-3"), "dev": ("dev-5-0",), "test1": ("test1-7-1",)}
    lines: dict[str, list[str]] = {part: [] for part in pairs}
    for part, names in pairs.items():
        for place, pair in enumerate(names):
            folder = f"images/train/{place}" if part == "train" else part
            for image in (0, 1):
                put(root / folder / f"{pair}-img{image}.png", encoded(100 * list(pairs).index(part) + place * 2 + image, "PNG"))
            for sentence in range(1 + (place == 0)):
                entry = {
                    "validation": {},
                    "sentence": f"Left of {pair} has {sentence} dogs.",
                    "label": str(sentence == 0),
                    "identifier": f"{pair}-{sentence}",
                } | ({"directory": place} if part == "train" else {})
                lines[part].append(json.dumps(entry))
    for part, entries in lines.items():
        put(root / f"nlvr2/data/{part}.json", "\n".join(entries) + "\n")
        for kind in ("balanced", "unbalanced") if part != "train" else ():
            put(root / f"nlvr2/data/{kind}/{kind}_{part}.json", entries[0] + "\n")
    return root


def visual_genome(root: Path) -> Path:
    """Visual Genome: three images in two folders with their regions; the second is COCO's number 42."""
    regions, data = [], []
    for image, folder in ((1, "VG_100K_2"), (2, "VG_100K"), (10, "VG_100K")):
        put(root / f"images/{folder}/{image}.jpg", encoded(image))
        boxes = [{"width": 10 + place, "height": 5, "x": place, "y": -1, "phrase": f"part {place} of {image}"} for place in range(2)]
        boxes.append({**boxes[0], "x": 7})
        regions.append({"id": image, "regions": [{**box, "region_id": 0, "image_id": image} for box in boxes]})
        url = f"https://example.org/rak248/{folder}/{image}.jpg"
        data.append({"image_id": image, "url": url, "width": 40, "height": 30, "coco_id": 42 if image == 2 else None, "flickr_id": None})
    put(root / "annotations/region_descriptions.json", regions)
    put(root / "annotations/image_data.json", data)
    return root


def sbu(root: Path, count: int = 5) -> Path:
    """SBU as a list of paths and captions."""
    for number in range(count):
        put(root / f"images_train/0000/{number:07d}", encoded(number))
    put(root / "annot.json", [[f"images_train/0000/{number:07d}", f"My photo {number}"] for number in range(count)])
    return root


def conceptual_captions(root: Path) -> Path:
    """Conceptual Captions as published tables; the images of train have an ending."""
    for split, table, ending in (("train", "Train_GCC-training.tsv", ".jpg"), ("val", "Validation_GCC-1.1.0-Validation.tsv", "")):
        for number in range(3):
            put(root / f"images_{split}/0000/{number:07d}{ending}", encoded(number + 10 * (split == "val")))
        put(root / table, "".join(f"caption {number} of {split}\thttp://example.org/{number}.jpg\n" for number in range(3)))
    return root


IMAGENET = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish, Carassius auratus", "n02012849": "crane", "n03126707": "crane"}
"""Classes of ImageNet; two of them share a name."""


def imagenet(root: Path, each: int = 3) -> Path:
    """ImageNet: `each` images of every class to learn from, and one of each published for validation, as on Kaggle."""
    for place, kind in enumerate(IMAGENET):
        for number in range(each):
            put(root / "train" / kind / f"{kind}_{number}.JPEG", encoded(1000 * place + number))
        put(root / "val" / f"ILSVRC2012_val_{place + 1:08d}.JPEG", encoded(9000 + place))
    told = "".join(f"ILSVRC2012_val_{place + 1:08d},{kind} 1 2 30 20 \n" for place, kind in reversed(list(enumerate(IMAGENET))))
    put(root / "LOC_val_solution.csv", f"ImageId,PredictionString\n{told}")
    put(root / "LOC_synset_mapping.txt", "".join(f"{kind} {name}\n" for kind, name in IMAGENET.items()))
    return root


MAKERS = {
    "coco": coco,
    "flickr30k": flickr30k,
    "vqav2": vqav2,
    "nlvr2": nlvr2,
    "visual_genome": visual_genome,
    "sbu": sbu,
    "conceptual_captions": conceptual_captions,
    "imagenet": imagenet,
}
