"""Small held-out benchmarks in their published formats, written by code."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from benchmark_fixtures import cell, hub_table, image_file
from pyarrow.parquet import write_table

PAGES = 40
"""Pages of the documents to learn from: enough for a tenth of them to be held back."""


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One Parquet file in several row groups, as a hub's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist([dict(row) for row in rows]), path, row_group_size=max(2, len(rows) // 3))


def written(path: Path, held: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(held))


def ai2d(directory: Path) -> Path:
    """lmms-lab/ai2d: the answer is a number, as text."""
    options = [["a dog", "the cat", "dog house", "none of these"], ["leaf", "root", "stem", "seed"], ["1", "2", "3", "4"]]
    rows = [{"question": f"What is {n}?", "options": options[n], "answer": str(n + 1), "image": cell(n)} for n in range(3)]
    hub_table(directory, "test", rows)
    return directory


def chartqa(directory: Path) -> Path:
    """lmms-lab/ChartQA: the test split alone."""
    rows = [("human_test", "How many bars?", "12"), ("augmented_test", "What share?", "62"), ("human_test", "Is it rising?", "Yes")]
    hub_table(directory, "test", [{"type": t, "question": q, "answer": a, "image": cell(n)} for n, (t, q, a) in enumerate(rows)])
    return directory


def chartqa_with_training(directory: Path) -> Path:
    """HuggingFaceM4/ChartQA: all splits, a label in a list."""
    for place, part in enumerate(("train", "val", "test")):
        rows = [
            {"image": cell(10 * place + n), "query": f"How many in {n}?", "label": [str(n)], "human_or_machine": n % 2} for n in range(3)
        ]
        hub_table(directory, part, rows)
    return directory


def chartqa_original(directory: Path) -> Path:
    """The authors' archive: "ChartQA Dataset" with a folder for each split."""
    for place, part in enumerate(("train", "val", "test")):
        folder = directory / "ChartQA Dataset" / part
        for kind, numbers in (("human", (0, 1)), ("augmented", (1, 2))):
            records = [{"imgname": f"{place}{n}.png", "query": f"How many in {n}?", "label": f"{n}.5"} for n in numbers]
            written(folder / f"{part}_{kind}.json", records)
        for n in range(3):
            image_file(folder / "png" / f"{place}{n}.png", 10 * place + n, "PNG")
    return directory


def docvqa(directory: Path) -> Path:
    """lmms-lab/DocVQA, the DocVQA folder: train and validation."""
    for place, (part, pages) in enumerate((("train", PAGES), ("validation", 3))):
        rows = [
            {
                "questionId": str(1000 * place + number),
                "question": f"What is the date of {number}?",
                "question_types": ["handwritten"],
                "image": cell(100 * place + number // 2),
                "docId": number,
                "ucsf_document_id": f"doc{number // 2}",
                "ucsf_document_page_no": "1",
                "answers": [f"May {number}, 1970", f"May {number} 1970"],
                "data_split": part,
            }
            for number in range(2 * pages)
        ]
        table(directory / "DocVQA" / f"{part}-00000-of-00001.parquet", rows)
    return directory


def documents(directory: Path, names: Mapping[str, str], folder: str, record: Callable[[str], Mapping[str, Any]]) -> Path:
    """The challenge's own files: an object whose `data` is the list of questions, and a folder of images."""
    for place, (part, name) in enumerate(names.items()):
        records = []
        for number in range(2 * PAGES if part == "train" else 4):
            image = f"{part}_{number // 2}.png"
            image_file(directory / folder / image, 100 * place + number // 2, "PNG")
            key, answers = 1000 * place + number, [f"answer {number}"]
            records.append({"questionId": key, "question": f"What is {number}?", "answers": answers, "data_split": part, **record(image)})
        written(directory / name, {"dataset_name": "docvqa", "dataset_split": part, "dataset_version": "1.0", "data": records})
    return directory


def docvqa_original(directory: Path) -> Path:
    """As the challenge's archives unpack: the records name an image in a folder that is called otherwise."""
    names = {"train": "spdocvqa_qas/train_v1.0_withQT.json", "val": "spdocvqa_qas/val_v1.0_withQT.json"}
    return documents(directory, names, "spdocvqa_images", lambda image: {"image": f"documents/{image}", "docId": 1})


def infovqa_original(directory: Path) -> Path:
    names = {"train": "infographicsVQA_train_v1.0.json", "val": "infographicsVQA_val_v1.0_withQT.json"}
    return documents(
        directory, names, "infographicsvqa_images", lambda image: {"image_local_name": image, "image_url": "https://example.org"}
    )


def infovqa(directory: Path) -> Path:
    """lmms-lab/DocVQA, the InfographicVQA folder."""
    rows = [
        {
            "questionId": str(n),
            "question": f"Which share is {n}?",
            "answers": [f"{n} %", f"{n} percent"],
            "answer_type": ["single span"],
            "image": cell(n),
            "image_url": "https://example.org/1.png",
            "operation/reasoning": [],
            "ocr": "{}",
            "data_split": "val",
        }
        for n in range(3)
    ]
    table(directory / "InfographicVQA" / "validation-00000-of-00001.parquet", rows)
    return directory


LETTER = "Please answer directly with only the letter of the correct option and nothing else."
WORD = "Please answer directly with a single word or number."


def realworldqa(directory: Path) -> Path:
    """lmms-lab/RealWorldQA: options and instruction are part of the question."""
    rows = [
        (f"Which way does the wheel point?\n\nA. Left\nB. Right\nC. Straight\n{LETTER}", "B"),
        (f"How many cars are there? {WORD}", "3"),
        (f"Is the light red? {WORD}", "Yes"),
    ]
    hub_table(directory, "test", [{"image": cell(n), "question": q, "answer": a} for n, (q, a) in enumerate(rows)])
    return directory


def ocrbench(directory: Path) -> Path:
    """echo840/OCRBench: the answers are a list."""
    rows = [
        ("IIIT5K", "what is written in the image?", "Regular Text Recognition", ["CENTRE"]),
        ("docVQA", "What is the date?", "Doc-oriented VQA", ["May 5, 1970", "5 May 1970"]),
        ("HME100k", "Write the formula in LaTeX.", "Handwritten Mathematical Expression Recognition", ["x ^ { 2 } + Y"]),
    ]
    keys = ("dataset", "question", "question_type", "answer")
    hub_table(directory, "test", [{**dict(zip(keys, row, strict=True)), "image": cell(n)} for n, row in enumerate(rows)])
    return directory


def seedbench(directory: Path) -> Path:
    """lmms-lab/SEED-Bench: of a video several frames."""
    rows = [
        {
            "answer": "BDA"[n],
            **{f"choice_{letter}": f"{letter} of {n}" for letter in "abcd"},
            "data_id": [str(n)],
            "data_type": "video" if n == 2 else "image",
            "question": f"What happens in {n}?",
            "question_id": str(101669 + n),
            "question_type_id": 1,
            "image": [cell(n), cell(n + 10), cell(n + 20)] if n == 2 else [cell(n)],
            "segment": ["0", "1"],
        }
        for n in range(3)
    ]
    hub_table(directory, "test", rows)
    return directory


def scienceqa(directory: Path) -> Path:
    """lmms-lab/ScienceQA, the folder ScienceQA-IMG: all splits."""
    for place, part in enumerate(("train", "validation", "test")):
        rows = [
            {
                "image": cell(10 * place + n),
                "question": f"Which is {n}?",
                "choices": ["yes", "no", "perhaps"][: n + 2],
                "answer": n,
                "hint": "Two magnets." if n else "",
                "task": "closed choice",
                "grade": "grade2",
                "subject": ("natural science", "social science")[n],
                "topic": "physics",
                "category": "Magnets",
                "skill": "Compare",
                "lecture": "SECRET lecture",
                "solution": "SECRET solution",
            }
            for n in range(2)
        ]
        table(directory / "ScienceQA-IMG" / f"{part}-00000-of-00001.parquet", rows)
    return directory


CATEGORIES = ("coarse perception", "fine-grained perception", "instance reasoning", "logical reasoning", "math", "science & technology")


def mmstar(directory: Path) -> Path:
    """Lin-Chen/MMStar: one file, its options inside the question, in several spellings."""
    shown = "Options: A: The suitcase is on the book., B: The suitcase is beneath the cat., C: On the bed., D: Beneath the book."
    listed = "Choices:\n(A) 12\n(B) 24"
    rows = [
        {
            "index": n,
            "question": f"What is shown in {n}?\n{listed if n == 4 else shown}" if n != 3 else "Which is it, the first or the second?",
            "image": cell(n),
            "answer": "DABCBA"[n],
            "category": CATEGORIES[n],
            "l2_category": "object counting",
            "meta_info": {"source": "MMBench", "split": "val", "image_path": f"images/{n}.jpg"},
        }
        for n in range(6)
    ]
    table(directory / "mmstar.parquet", rows)
    return directory


FIXTURES: dict[str, Callable[[Path], Path]] = {
    "ai2d": ai2d,
    "chartqa": chartqa,
    "docvqa": docvqa,
    "infovqa": infovqa,
    "realworldqa": realworldqa,
    "ocrbench": ocrbench,
    "seedbench": seedbench,
    "scienceqa": scienceqa,
    "mmstar": mmstar,
}
"""Benchmark -> what writes a small one as its hub publishes it."""
