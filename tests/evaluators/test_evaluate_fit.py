"""What a checkpoint lacks is said before its model is loaded: here there are no weights to load at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from asked_tasks import Graded
from transformers import LlamaConfig

from evaluators.evaluate import evaluate
from evaluators.fit import check_askable, check_task
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError, MergelineError
from models.digits_llava import digits_llava, digits_processor
from tasks.digits import all_texts
from tasks.registry import get_task
from tasks.task import Answering, Example

SUITE = Suite((get_task("parity"), get_task("cell")), samples=3)


class Talk(Graded):
    """The same questions without their images."""

    def examples(self, split, count=None):
        return [replace(example, images=(), choices=()) for example in super().examples(split, count)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """All of a checkpoint but its weights."""
    directory = tmp_path / "checkpoint"
    model = digits_llava(0)
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
    digits_processor(all_texts()).save_pretrained(directory)
    return directory


def refused(checkpoint: Path, suite: Suite = SUITE, kind: type[MergelineError] = InputError) -> str:
    with pytest.raises(kind) as told:
        evaluate(checkpoint, suite, checkpoint / "out")
    assert not (checkpoint / "out").exists()
    return str(told.value)


def drop(path: Path, *keys: str) -> None:
    held = json.loads(path.read_text())
    for key in keys:
        held.pop(key, None)
    path.write_text(json.dumps(held))


def test_what_fits_gives_its_processor_and_only_then_the_model_is_loaded(checkpoint) -> None:
    assert type(check_askable(checkpoint, SUITE)).__name__ == "LlavaProcessor"
    assert "weights cannot be read" in refused(checkpoint)


def test_no_processor(checkpoint) -> None:
    for path in checkpoint.iterdir():
        if path.name not in ("config.json", "generation_config.json"):
            path.unlink()
    assert f"{checkpoint}: has no processor and no tokenizer" in refused(checkpoint)


def test_no_chat_template(checkpoint) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    said = refused(checkpoint)
    assert f"{checkpoint}: the checkpoint's LlavaProcessor has no chat template; put a chat_template.jinja" in said


def test_no_end_of_text_token(checkpoint) -> None:
    (checkpoint / "generation_config.json").unlink()
    drop(checkpoint / "tokenizer_config.json", "eos_token")
    config = json.loads((checkpoint / "config.json").read_text())
    config["eos_token_id"] = config["text_config"]["eos_token_id"] = None
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert "names an end-of-text token; set eos_token_id" in refused(checkpoint)


def test_images_for_a_model_of_text(checkpoint) -> None:
    (checkpoint / "config.json").unlink()
    LlamaConfig(vocab_size=448, hidden_size=32, num_attention_heads=2).save_pretrained(checkpoint)
    assert f"task 'parity' shows images, and {checkpoint} is a model of text alone; leave the task out" in refused(checkpoint)
    assert check_askable(checkpoint, Suite((Talk("cell"),), samples=3))


def test_images_for_a_tokenizer(checkpoint) -> None:
    """Where the processor's own files are lacking, transformers gives the tokenizer alone, or refuses: both are told."""
    (checkpoint / "processor_config.json").unlink()
    drop(checkpoint / "tokenizer_config.json", "processor_class")
    assert "its processor cannot be loaded: Can't load image processor" in refused(checkpoint)
    blind = "has a tokenizer but no image processor"
    with pytest.raises(InputError, match=f"task 'parity' shows images, and {checkpoint} {blind}; leave the task out"):
        check_task(checkpoint, SUITE.tasks[0], SUITE, blind)


def test_likelihood_without_choices(checkpoint) -> None:
    suite = Suite((Talk("cell", Answering.LIKELIHOOD),), samples=3)
    assert "task 'graded cell' is to be answered by the likeliest of the choices" in refused(checkpoint, suite, ConfigError)
    assert "cell/test/0/0 has none; set answering: generate" in refused(checkpoint, suite, ConfigError)


def test_no_examples(checkpoint) -> None:
    class Empty(Graded):
        def examples(self, split, count=None) -> list[Example]:
            return []

    assert "task 'graded cell' has no examples in its test split" in refused(checkpoint, Suite((Empty("cell"),)))


def test_no_checkpoint(tmp_path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        check_askable(tmp_path, SUITE)
