"""How long every example is, before the first step: for batches of like lengths, and to refuse what is too long before work begins.

Texts are tokenised in large batches; how images are written out depends on the sizes of all an example's images alone, so blank ones of
those sizes go through the processor, once for each combination of sizes. No example's image is decoded where its sequence tells its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foundation.errors import InputError
from models.prompts import Conversation, question_text, special_tokens, tokenizer_of
from tasks.outline import ImageSize, Outline, outline
from tasks.task import Example
from trainers.data.encoding import converse, processed, too_long
from trainers.spec import Grouping, TrainSpec
from trainers.workers import first_decides

AT_ONCE = 1000
"""Texts per call of the tokenizer."""

Written = dict[tuple[ImageSize, ...], tuple[str, ...]]
"""The sizes of an example's images -> what the processor writes for each of them."""


@dataclass(frozen=True)
class Alike:
    """What examples are grouped by: their lengths in tokens, and whether they show images; None for what is not grouped by."""

    lengths: list[int] | None = None
    kinds: list[bool] | None = None


def measure(examples: Sequence[Example], processor: Any, spec: TrainSpec) -> Alike:
    """What `StageOrder` needs for `spec.grouping`; InputError, on every worker, where an example is longer than `spec.max_length`.

    Call it on every worker. Examples are measured only where one of the two asks for it, on the first worker, for all.
    """
    if spec.grouping is Grouping.NONE and spec.max_length is None:
        return Alike()
    return first_decides(lambda: measured(examples, processor, spec))


def measured(examples: Sequence[Example], processor: Any, spec: TrainSpec) -> Alike:
    """What `measure` gives, found by this worker."""
    lengths, kinds = lengths_and_kinds(examples, processor)
    longest = max(range(len(lengths)), key=lambda place: (lengths[place], -place), default=0)
    if spec.max_length is not None and lengths and lengths[longest] > spec.max_length:
        over = sum(length > spec.max_length for length in lengths)
        one = outline(examples, longest)
        said = too_long(one.key, lengths[longest], spec.max_length, one.place)
        raise InputError(f"{over} of {len(examples)} examples are too long: {said}")
    if spec.grouping is Grouping.NONE:
        return Alike()
    return Alike(lengths, kinds if spec.grouping is Grouping.MODALITY_LENGTH else None)


def lengths_and_kinds(examples: Sequence[Example], processor: Any) -> tuple[list[int], list[bool]]:
    """Each example's tokens of text and images, as many as `trainers.data.encoding.encode` gives, and whether it shows images; in order.

    Raises InputError as `encode` does.
    """
    lengths: list[int] = []
    kinds: list[bool] = []
    known: Written = {}
    for start in range(0, len(examples), AT_ONCE):
        texts, left_out = [], []
        for one in (outline(examples, place) for place in range(start, min(start + AT_ONCE, len(examples)))):
            text, tokens = text_for_count(processor, one, known)
            texts.append(text)
            left_out.append(tokens)
            kinds.append(bool(one.images))
        ids = tokenizer_of(processor)(texts, **special_tokens(processor, texts[0]))["input_ids"]
        lengths += [len(each) + tokens for each, tokens in zip(ids, left_out, strict=True)]
    return lengths, kinds


def text_for_count(processor: Any, one: Outline, known: Written) -> tuple[str, int]:
    """A text, and how many tokens fewer it has than the example.

    An image that is written as its mark many times over stays one mark, for speed: a mark is always a token of its own. Where more is
    written (line breaks, the places of tiles), it is written out, because its ends may melt with the text around them.
    """
    text = converse(processor, one).text
    if not one.images:
        return text, 0
    if one.images not in known:
        known[one.images] = written(processor, one)
    mark = processor.image_token
    many = [len(each) // len(mark) if each and not each.replace(mark, "") else 0 for each in known[one.images]]
    short = [mark if count else each for count, each in zip(many, known[one.images], strict=True)]
    return processor.get_text_with_replacements([text], short)[0][0], sum(count - 1 for count in many if count)


def written(processor: Any, one: Outline) -> tuple[str, ...]:
    """What the processor writes for each of the example's images, found with blank ones of their sizes."""
    from PIL import Image

    blank = Example(one.key, tuple(Image.new(*size) for size in one.images), "?", "")
    asked = Conversation(question_text(processor, len(blank.images), blank.question), 0, ())
    found = processed(processor, [blank], [asked])["text_replacement_offsets"][0]
    if len(found) != len(one.images):
        raise InputError(f"example {one.key!r}: its text shows {len(found)} image(s), but it has {len(one.images)}")
    return tuple(image["replacement"] for image in found)
