"""What a model is really given for one example, and which of it carries the loss: to be looked at before hours are spent.

The spans are read back from the collator's own row, so what is shown is what is learned.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from models.prompts import tokenizer_of
from tasks.task import Example
from trainers.data.encoding import IGNORED, encode


@dataclass(frozen=True)
class Span:
    """A run of tokens: with loss or without; `image` where they stand for one or more images."""

    text: str
    learned: bool
    tokens: int
    image: bool = False


@dataclass(frozen=True)
class Preview:
    """An example as a model gets it, in order."""

    key: str
    spans: tuple[Span, ...]

    @property
    def tokens(self) -> int:
        """All tokens, those of images included."""
        return sum(span.tokens for span in self.spans)

    @property
    def learned(self) -> int:
        """The tokens that carry the loss."""
        return sum(span.tokens for span in self.spans if span.learned)


def preview(processor: Any, example: Example) -> Preview:
    """The example as a training step sees it. Raises InputError as the collator does."""
    row = encode(processor, [example])[0]
    tokenizer = tokenizer_of(processor)
    image_ids = set(getattr(processor, "image_token_ids", None) or [getattr(processor, "image_token_id", None)])
    tokens = zip(row["input_ids"].tolist(), row["labels"].tolist(), strict=True)
    spans = []
    for (learned, image), run in groupby(tokens, key=lambda token: (token[1] != IGNORED, token[0] in image_ids)):
        ids = [token for token, _ in run]
        text = "<image>" if image else tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        spans.append(Span(text, learned, len(ids), image))
    return Preview(example.key, tuple(spans))


def as_text(shown: Preview, markup: bool = False) -> str:
    """The preview on several lines: what carries the loss in «...», or with `markup` as rich draws it (green, underlined)."""
    body = "".join(span_text(span, markup) for span in shown.spans)
    images = sum(span.tokens for span in shown.spans if span.image)
    of_images = f", {images} of images" if images else ""
    head = f"example {shown.key!r}: {shown.tokens} tokens{of_images}, {shown.learned} with loss"
    return f"{escaped(head, markup)}\n{body}"


def span_text(span: Span, markup: bool) -> str:
    """One span as it is shown."""
    text = escaped(f"{span.text} x {span.tokens}" if span.image else span.text, markup)
    if markup:
        return f"[green underline]{text}[/]" if span.learned else f"[dim]{text}[/]"
    return f"«{text}»" if span.learned else text


def escaped(text: str, markup: bool) -> str:
    """The text, with what rich would read as markup made plain."""
    from rich.markup import escape

    return escape(text) if markup else text
