"""lmms-eval in its own environment on the tiny LLaVA, with a task of one's own that shows images. Skipped where it is not installed."""

import json
from pathlib import Path

import pytest
from harness_models import python_of

from evaluators.harness.known import code_digest
from evaluators.harness.run import ask_harness
from evaluators.harness.spec import Harness, HarnessTask
from evaluators.scores import task_score
from foundation.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("harness")]

SHADES = """
task: shades
dataset_path: json
dataset_kwargs: {data_files: {test: shades.jsonl}}
test_split: test
output_type: generate_until
doc_to_visual: !function shades.visual
doc_to_text: !function shades.text
doc_to_target: answer
generation_kwargs: {max_new_tokens: 4}
process_results: !function shades.process
metric_list: [{metric: vowels, aggregation: mean, higher_is_better: true}]
metadata: [{version: 0.0}]
"""
CODE = """
from PIL import Image


def visual(doc):
    return [Image.new("RGB", (32, 32), (doc["shade"], 255 - doc["shade"], 128))]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def process(doc, results):
    said = results[0].lower()
    return {"vowels": sum(letter in "aeiou" for letter in said) / max(len(said), 1)}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python_of(Harness.LMMS_EVAL)
    import torch

    from models.digits_llava import digits_llava, digits_processor
    from models.load import save_checkpoint
    from tasks.digits import all_texts

    root = tmp_path_factory.mktemp("lmms")
    model = digits_llava(seed=3)
    with torch.no_grad():  # large weights, so that it does not answer every image alike
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    save_checkpoint(model, digits_processor(all_texts()), root / "vlm")
    (root / "tasks").mkdir()
    (root / "tasks" / "shades.yaml").write_text(SHADES)
    (root / "tasks" / "shades.py").write_text(CODE)
    rows = [{"question": "How many?", "shade": 25 * index, "answer": str(index % 3)} for index in range(10)]
    (root / "tasks" / "shades.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def shades(place: Path, task: str = "shades") -> HarnessTask:
    directory = place / "tasks"
    python = python_of(Harness.LMMS_EVAL)
    return HarnessTask("seen", Harness.LMMS_EVAL, task, directory=str(directory), code=code_digest(directory), python=python)


def test_images_are_asked_and_read(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    found = ask_harness(place / "vlm", [shades(place)], 6, tmp_path / "work")
    assert list(found.scores) == ["seen"]
    assert [sample.key for sample in found.samples] == list("012345")
    own = task_score([sample.score for sample in found.samples])
    assert found.scores["seen"].samples == 6
    assert found.scores["seen"].accuracy == pytest.approx(own.accuracy, abs=1e-12)  # both are means in float64
    for sample in found.samples:
        said = sample.response.strip().lower()
        assert sample.score == pytest.approx(sum(letter in "aeiou" for letter in said) / max(len(said), 1), abs=1e-12)
    assert len({sample.response for sample in found.samples}) > 1, "all images are answered alike; the test would not see a swap"
    assert found.versions["lmms_eval"]["lmms_eval"] == "0.7.3"


def test_a_task_it_lacks_is_refused_with_one_like_it(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lmms_eval has no task 'shadess' among its \d+, .*did you mean 'shades'"):
        ask_harness(place / "vlm", [shades(place, "shadess")], 6, tmp_path / "work")
