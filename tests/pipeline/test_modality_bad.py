"""Whatever is wrong with a modality experiment or its data is refused before anything runs: one message that names what and where."""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from commands import ended, everything_in
from PIL import Image
from test_modality_recipe import SMALL, STAGE, written

from foundation.errors import InputError
from pipeline.config.experiment import build, read_config
from pipeline.config.modality_merge_settings import spread_out
from pipeline.config.model_settings import DIGITS_SIZES, SIZES, ModelSizes
from pipeline.reports import unfinished
from pipeline.results import Row, read_rows, write_rows
from pipeline.steps import LearnPairs
from pipeline.steps.start_experts import read_tokenizer
from pipeline.store import Store

QUESTIONS = {**STAGE, "sets": ["digits_questions"], "objectives": {"vqa": 1}}
NO_TUNING = {"fine_tune": None, "fine_tuned": None}
CHECKPOINT = {"model_type": "modality_experts", "sharing": "all", "heads": ["itc"], "image_size": 32, "patch_size": 8, "token_types": 2}


def merge(**keys: Any) -> dict[str, Any]:
    """An experiment with one merge."""
    return {"merges": [keys], **NO_TUNING}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # stages
        ({"pretrain__batch_size": 1}, "pretrain: itc compares the pairs of a micro batch, and there is one"),
        ({"pretrain__micro_batch_size": 1}, "pretrain: itc compares the pairs of a micro batch, and there is one"),
        ({"pretrain__micro_batch_size": 3}, "pretrain: micro_batch_size 3 does not divide the 8 samples per worker"),
        ({"fine_tune__workers": 3}, "fine_tune: batch_size 8 cannot be shared by 3 workers"),
        ({"pretrain__sets": ["digits_captions"] * 2}, "pretrain.sets: names the set 'digits_captions' twice"),
        ({"pretrain__texts": ["digits_questions"]}, "pretrain: texts are for the objective text_mlm, which is not there"),
        ({"pretrain__images": ["digits_labels"]}, "pretrain: images are for the objective mim, which is not there"),
        (
            {"pretrain__texts": ["digits_labels"], "pretrain__objectives": {"itc": 1, "text_mlm": 1}},
            "pretrain.texts: 'digits_labels' holds labels, which have no text",
        ),
        ({"pretrain__parts": ["language_model"]}, "pretrain: 'language_model' names no part of a modality-expert model"),
        ({"pretrain__parts": ["regex:("]}, "'regex:(' is no regular expression"),
        ({"pretrain__learning_rates": {"heads": 0.1}}, "'heads' names no part of a modality-expert model"),
        ({"pretrain__title": "a\nb"}, "title is 'a\\nb'; give one line"),
        ({"pretrain__image_size": 30}, "pretrain: image_size 30 cannot be cut into patches of 8 pixels; give a multiple, e.g. 32"),
        (
            {"pretrain__max_steps": None, "pretrain__milestones": [5]},
            "milestones name step 5, but 1 epochs of 32 examples are 4",
        ),
        (
            {"pretrain__objectives": {"itc": 1, "mim": 1}, "pretrain__image_size": 8},
            "pretrain: mim hides some patches of an image, and an image of 8 pixels is a single one",
        ),
        # what is asked
        ({"evaluate__sets": ["digits_captions"] * 2}, "evaluate: sets and held_out name 'digits_captions' twice"),
        ({"evaluate__held_out": ["digits_captions"]}, "evaluate: sets and held_out name 'digits_captions' twice"),
        ({"evaluate__rerank": 3}, "after fine_tune 'unmerged' could not be asked: evaluate asks with the head 'itm'"),
        ({"evaluate__sets": ["digits_questions"]}, "after fine_tune 'unmerged' could not be asked: evaluate asks with the head 'vqa'"),
        ({"evaluate__sets": ["digits_questions"], **NO_TUNING}, "'unmerged' would not be asked at all: evaluate asks with the head 'vqa'"),
        (
            {"evaluate__sets": ["digits_questions"], "fine_tune": QUESTIONS},
            "'seed only' would not be asked at all: evaluate asks with the head 'vqa', and the model has mlm, itc, itc_vl",
        ),
        # the model
        ({"model__config__hiden_size": 24}, "unknown key 'model.config.hiden_size'; did you mean 'hidden_size'?"),
        ({"model__config__hidden_size": "24"}, "model.config.hidden_size is the text '24'; give a whole number, without quotes: 24"),
        ({"model__config__hidden_size": 25}, "model: hidden_size 25 cannot be shared by 2 heads"),
        ({"model__config__fusion_layer": 9}, "model: fusion_layer is 9, but there are 3 layers"),
        ({"model__config__image_size": 30}, "model: image_size 30 cannot be cut into patches of 8 pixels"),
        ({"model__config__max_text_length": 500}, "model.config.max_text_length is 500; give at most 196"),
        ({"model__config__heads": ["mlm"]}, "unknown key 'model.config.heads'"),
        ({"model__config__auto_map": {"AutoModel": "x.Y"}}, "unknown key 'model.config.auto_map'"),
        ({"model__config__vocab_size": 5}, "model: the vocabulary of digits is made with it; leave vocab_size out"),
        ({"model__config__sharing": "all"}, "seed_pretrain learns a shared model, and it would start from one of sharing 'all'"),
        ({"model__allow_pickle": True}, "model: allow_pickle is for a .ckpt file, and digits has none"),
        ({"model__copy_to_experts": False}, "model: copy_to_experts is for beit, and this starts from digits"),
        # merges
        (merge(ratio=0.5), "merges[0]: has no method"),
        (merge(method="interpolation", ratio=[]), "merges[0]: interpolation: ratio is an empty list"),
        (merge(method="interpolation", ratio=[[0.5]]), "merges[0]: interpolation: ratio is [0.5]; give one value, or a list of them"),
        (merge(method="interpolation", ratio={"*": 1}), "merges[0]: interpolation: ratio is {'*': 1}; give one value"),
        (merge(method="weighted_average", weights=0.5), "weights is 0.5; give a list with a number for each expert"),
        (merge(method="weighted_average", weights=[0.5, 0.3, 0.2]), "merges[0]: 3 weights for 2 checkpoints (v, l)"),
        (merge(method="ties", density=0.2, title="unmerged"), "merges: 'unmerged' is there twice"),
        (merge(method="ties", density=0.2, title="Seed/only"), "merges: 'Seed/only' and 'seed only' would be one directory"),
        (merge(method="ties", density=0.2, title="a, step 1"), "title is 'a, step 1'; give one line"),
        (merge(method="ties", density=0.2, title="x" * 300), "give one line of up to 80 characters"),
        (merge(method="ties", density=0.2, title="a\nb"), "title is 'a\\nb'; give one line"),
        ({"references": ["unmerged", "unmerged"]}, "references: 'unmerged' is there twice"),
        ({"fine_tuned": ["unmerged", "unmerged"]}, "fine_tuned: 'unmerged' is there twice"),
        ({"fine_tune": None}, "fine_tuned names 'unmerged', but no stage says how"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("command", ["validate", "plan"])
def test_an_experiment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, changes: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, **changes)
    before = everything_in(tmp_path)
    told = ended(capsys, command, path, f"workspace={tmp_path}")
    assert told.code == 2, told.said
    assert told.err.startswith("error: ")
    assert said in told.err
    assert everything_in(tmp_path) == before


def test_the_keys_of_a_model_are_those_of_its_config() -> None:
    from models.modality_experts.config import ModalityExpertsConfig
    from models.modality_experts.tiny import digits_config

    decided = {"self", "heads", "answers", "classes", "more"}
    assert set(ModelSizes.model_fields) == set(inspect.signature(ModalityExpertsConfig.__init__).parameters) - decided
    for sizes, made in ((SIZES, ModalityExpertsConfig()), (DIGITS_SIZES, digits_config())):
        assert sizes == {name: getattr(made, name) for name in sizes}


def test_what_is_written_of_a_model_keeps_its_order(tmp_path: Path) -> None:
    order = ["patch_size", "hidden_size", "num_attention_heads", "fusion_layer"]
    config = dict(zip(order, (4, 24, 2, 1), strict=True))
    _, told = read_config(written(tmp_path, model={"digits": True, "config": config}))
    assert list(told.model.sizes) == order


def test_lists_are_spread_and_weights_are_not() -> None:
    def names(**keys: Any) -> list[str]:
        return [chosen.name for chosen in spread_out(keys, ("v", "l"))]

    assert names(method="weighted_average", weights=[0.3, 0.7]) == ["weighted average weights 0.3 0.7"]
    assert len(names(method="weighted_average", weights=[[0.3, 0.7], [0.5, 0.5]])) == 2
    assert names(method="slerp", weight=[0.3, 0.5]) == ["slerp 0.3", "slerp 0.5"]
    assert names(method="interpolation", ratio=[0, 1]) == ["interpolation 0", "interpolation 1"]


def test_fine_tuning_has_its_texts_and_images(tmp_path: Path) -> None:
    more = {"fine_tune__objectives": {"retrieval": 1, "text_mlm": 1, "mim": 1}}
    path = written(tmp_path, **more, fine_tune__texts=["digits_questions"], fine_tune__images=["digits_labels"])
    tuned = [step for step in build(path, [f"workspace={tmp_path}"]).steps if isinstance(step, LearnPairs) and step.name == "fine-tune"]
    assert {(step.texts[0].name, step.images[0].name) for step in tuned} == {("digits_questions", "digits_labels")}


def test_an_override_takes_the_place_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(capsys, "plan", written(tmp_path, model="nowhere"), f"workspace={tmp_path}", "model=digits")
    assert told.code == 0, told.said


def pixels(shade: int) -> bytes:
    """A small image, encoded."""
    file = BytesIO()
    Image.new("RGB", (8, 8), (shade, 7, 7)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def arrow(tmp_path: Path) -> Callable[..., str]:
    """Writes an Arrow file of four captioned images, with other columns where they are given."""

    def make(name: str, **columns: list[Any]) -> str:
        usual = {
            "image": [pixels(each) for each in range(4)],
            "caption": [["a", "b"]] * 4,
            "image_id": [f"{name}{each}" for each in range(4)],
        }
        table = pa.table({**usual, **columns})
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.RecordBatchFileWriter(sink, table.schema) as writer:
            writer.write_table(table)
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("columns", "changes", "code", "said"),
    [
        ({"caption": [1, 2, 3, 4]}, {}, 3, "column 'caption' is of type int64, and captions need string values in it"),
        ({"image": ["x"] * 4}, {}, 3, "column 'image' is of type string, and captions need binary values in it"),
        ({}, {"evaluate__sets": ["mine"]}, 3, "set 'mine' has no files for the test split (it has train)"),
        ({}, {"pretrain__batch_size": 16}, 2, "pretrain: the sets give 8 examples, which do not fill one batch of 16; lower batch_size"),
        ({}, {"pretrain__max_steps": None, "pretrain__epochs": 3.0, "pretrain__milestones": [4]}, 2, "3 epochs of 8 examples are 3 steps"),
        ({}, {}, 0, "set mine: captions, 4 of train"),
    ],
)
def test_records_that_will_not_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arrow: Callable[..., str], columns: Any, changes: Any, code: int, said: str
) -> None:
    data = {"mine": {"kind": "captions", "train": arrow("mine.arrow", **columns)}}
    usual = {"data": data, "pretrain__sets": ["mine"], "pretrain__samples": None, "pretrain__milestones": []}
    path = written(tmp_path, **{**usual, **changes})
    told = ended(capsys, "validate", path, f"workspace={tmp_path}")
    assert told.code == code, told.said
    assert said in told.said


def test_a_split_without_files_to_learn_from(tmp_path: Path, capsys: pytest.CaptureFixture[str], arrow: Callable[..., str]) -> None:
    data = {"mine": {"kind": "captions", "test": arrow("mine.arrow")}}
    told = ended(capsys, "plan", written(tmp_path, data=data, pretrain__sets=["mine"]), f"workspace={tmp_path}")
    assert (told.code, "set 'mine' has no files for the train split (it has test)" in told.err) == (3, True)


@pytest.mark.parametrize(
    ("config", "files", "code", "said"),
    [
        ({"hidden_size": "abc"}, ["tokenizer.json"], 3, "its config.json has hidden_size: 'abc'; copy the checkpoint again"),
        ({"image_size": None}, ["tokenizer.json"], 3, "its config.json cannot be read ('image_size')"),
        ({}, [], 3, "has none of tokenizer.json, vocab.txt, so its words are not known; copy the checkpoint again"),
        ({}, ["tokenizer.json"], 2, "arithmetic measures the experts from a seed that is shared, and the model has sharing 'all'"),
    ],
)
def test_a_checkpoint_that_will_not_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any], files: list[str], code: int, said: str
) -> None:
    place = tmp_path / "earlier"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({**CHECKPOINT, **config}))
    for name in files:
        (place / name).touch()
    changes = {"model": str(place), "seed_pretrain": None, "references": ["unmerged"]}
    told = ended(capsys, "validate", written(tmp_path, **changes), f"workspace={tmp_path}")
    assert (told.code, said in told.err) == (code, True), told.said


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"vlmo": "{}", "allow_pickle": True}, "is a directory; give the .ckpt file in it"),
        ({"beit": "{}"}, "has no config.json, so it is no checkpoint; name the directory of a BEiT model"),
        ({"new": {}}, "has none of tokenizer.json, vocab.txt; name the directory of a tokenizer"),
    ],
)
def test_an_origin_that_will_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: dict[str, Any], said: str) -> None:
    named = {key: str(tmp_path) if value == "{}" else value for key, value in model.items()}
    told = ended(capsys, "validate", written(tmp_path, model={**named, "tokenizer": str(tmp_path)}), f"workspace={tmp_path}")
    assert (told.code, said in told.err) == (3, True), told.said


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(InputError, match="its tokenizer cannot be read: "):
        read_tokenizer(tmp_path)


def test_a_model_that_learns_nothing_is_no_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        yaml.safe_dump({"recipe": "modality_fine_tune", "name": "e", "model": "digits", "evaluate": {"sets": ["digits_captions"]}})
    )
    told = ended(capsys, "validate", path, f"workspace={tmp_path}")
    assert (told.code, "digits is a model that has learned nothing; add fine_tune" in told.err) == (2, True), told.said


def test_a_conversion_into_a_place_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import published_data

    published_data.coco(tmp_path / "coco")
    told = ended(capsys, "data", "convert", "coco", "--root", tmp_path / "coco", "--out", "/proc/here")
    assert (told.code, "--out /proc/here cannot be written" in told.err) == (4, True), told.said


@pytest.fixture
def started(tmp_path: Path) -> list[Row]:
    """A run of merges, of which no model was asked yet."""
    row = Row("ties", 0, 0, "base", None, "", "", ("digits_captions",), (), "ask-1", "merge_experts-1", family="ties")
    found = [row, replace(row, arm="unmerged", evaluation="ask-2")]
    (tmp_path / "runs/small").mkdir(parents=True)
    write_rows(tmp_path / "runs/small", found, "")
    return found


def test_answers_of_merges_are_not_to_be_browsed(tmp_path: Path, capsys: pytest.CaptureFixture[str], started: list[Row]) -> None:
    told = ended(capsys, "analyze", "answers", "small", "--workspace", tmp_path)
    assert (told.code, "run small asked sets of images with text, whose answers are no words" in told.err) == (3, True), told.said


def test_what_is_not_finished_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], started: list[Row]) -> None:
    assert unfinished(started, Store(tmp_path / "store")).startswith("Unfinished: 2 of 2 evaluations are not there")
    assert unfinished([], Store(tmp_path / "store")) == ""
    assert ended(capsys, "report", "small", "--workspace", tmp_path).code == 3


@pytest.mark.cluster
@pytest.mark.slow
def test_a_model_that_can_be_asked_only_after_fine_tuning(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vqa.yaml"
    keys = {"recipe": "modality_agnostic", "name": "vqa", "model": SMALL["model"], "pretrain": STAGE, "fine_tune": QUESTIONS}
    path.write_text(json.dumps({**keys, "evaluate": {"sets": ["digits_questions"], "samples": 8}}))
    told = ended(capsys, "run", path, f"workspace={tmp_path}")
    assert told.code == 0, told.said
    assert [row.role for row in read_rows(tmp_path / "runs/vqa")] == ["after"]
