"""A preview shows what the collator's row holds: every token counted, those with loss marked, images in brief."""

from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from models.load import load_processor
from tasks.registry import get_task
from tasks.task import Example, Role, Split, Turn
from trainers.data.collate import IGNORED, AnswerCollator
from trainers.data.preview import as_text, preview

PICTURE = get_task("parity").examples(Split.TRAIN, 1)[0].images[0]
TALK = Example(
    "talk", (PICTURE, PICTURE), "And <image> [b]here[/b]?", "two", (Turn(Role.USER, "<image>\nWhich?"), Turn(Role.ASSISTANT, "one"))
)


@pytest.fixture(scope="module")
def processor(base: Path) -> Any:
    return load_processor(base)


def test_every_token_is_counted(processor: Any) -> None:
    shown, batch = preview(processor, TALK), AnswerCollator([TALK], processor)([0])
    assert shown.tokens == batch["input_ids"].numel()
    assert shown.learned == (batch["labels"] != IGNORED).sum()
    assert [(span.text, span.tokens) for span in shown.spans if span.image] == [("<image>", 16)] * 2
    assert [span.text.strip() for span in shown.spans if span.learned] == ["one<eos>", "two<eos>"]


def test_what_carries_the_loss_is_marked(processor: Any) -> None:
    shown = preview(processor, TALK)
    text = as_text(shown)
    assert text.startswith(f"example 'talk': {shown.tokens} tokens, 32 of images, {shown.learned} with loss\n")
    assert "<image> x 16 Which?<|assistant|>« one<eos>»<|user|> And" in text
    assert "[b]here[/b]?<|assistant|>« two<eos>»" in text


def test_a_terminal_shows_the_same_words(processor: Any) -> None:
    shown = preview(processor, TALK)
    drawn = Text.from_markup(as_text(shown, markup=True))
    assert drawn.plain == as_text(shown).replace("«", "").replace("»", "")
    learned = [drawn.plain[span.start : span.end].strip() for span in drawn.spans if "green" in str(span.style)]
    assert learned == ["one<eos>", "two<eos>"]
