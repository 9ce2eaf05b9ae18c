"""What cannot be asked is refused before it costs anything, and the message says what to do."""

from dataclasses import replace

import pytest
import torch
from pair_models import Given, blank, save_tiny, secret

from evaluators.pairs.ask import evaluate_pairs
from evaluators.pairs.suite import Asked, PairSuite
from foundation.errors import InputError
from models.modality_experts import load, load_processor, save
from tasks.pairs.records import Captioned, Kind, Labelled
from tasks.pairs.registry import get_pair_set

CAPTIONS, QUESTIONS, COMPARISONS, LABELS = (get_pair_set(f"digits_{name}") for name in ("captions", "questions", "comparisons", "labels"))


@pytest.mark.parametrize(
    ("asked", "changes", "message"),
    [
        (
            Asked(CAPTIONS),
            {"heads": ["itm"]},
            "'digits_captions' is asked with the head 'itc', and .* has itm; .* objective itc or retrieval",
        ),
        (Asked(CAPTIONS, rerank=4), {"heads": ["itc"]}, "'digits_captions' is re-ranked with the head 'itm'.* leave the set's rerank out"),
        (Asked(QUESTIONS), {"heads": []}, "the head 'vqa', and .* has no heads; train a stage with the objective vqa"),
        (Asked(COMPARISONS), {"token_types": 2}, "shows two images, and .* has token types for 1"),
        (
            Asked(LABELS),
            {"classes": ["one", "eleven"]},
            r"\(2\) are not those of set 'digits_labels' \(10\): 1 only in the model, e.g. 'eleven'; 9 only",
        ),
        (Asked(QUESTIONS), {"answers": list(QUESTIONS.choices())[::-1]}, "the same names in another order"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused(tmp_path, asked, changes, message) -> None:
    checkpoint = save_tiny(tmp_path / "model", **changes)
    (checkpoint / "model.safetensors").unlink()  # refused before the weights are read
    with pytest.raises(InputError, match=message):
        evaluate_pairs(checkpoint, PairSuite((asked,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_refusals(tmp_path) -> None:
    checkpoint = save_tiny(tmp_path / "model")
    captioned = Captioned("x", blank, ("one",))
    asks = [
        (Given("none", Kind.CAPTIONS, ()), "no records in its test split"),
        (Given("bare", Kind.CAPTIONS, (captioned, replace(captioned, key="y", captions=()))), "1 of 2 records have no caption, e.g. 'y'"),
        (secret("numberless", {}, numbers=(None,)), "'q0' has no answers and no number"),
        (Given("labels", Kind.LABELS, (Labelled("z", blank, "cat"),), LABELS.choices()), "of class 'cat', which is none of the 10"),
    ]
    for pairs, message in asks:
        with pytest.raises(InputError, match=message):
            evaluate_pairs(checkpoint, PairSuite((Asked(pairs),)), tmp_path / "out")
    with pytest.raises(InputError, match="batch size 0"):
        evaluate_pairs(checkpoint, PairSuite((Asked(CAPTIONS),)), tmp_path / "out", batch_size=0)
    assert not (tmp_path / "out").exists()


def test_a_model_gone_astray_is_refused(tmp_path) -> None:
    checkpoint = save_tiny(tmp_path / "model")
    model = load(checkpoint)
    with torch.no_grad():
        model.norm.weight[3] = float("nan")
    save(model, load_processor(checkpoint), checkpoint)
    for pairs in (CAPTIONS, QUESTIONS, COMPARISONS, LABELS):
        with pytest.raises(InputError, match=f"not finite on set '{pairs.name}'"):
            evaluate_pairs(checkpoint, PairSuite((Asked(pairs),), samples=2), tmp_path / "out")
