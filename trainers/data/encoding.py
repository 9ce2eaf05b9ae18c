"""From examples to rows of tokens: conversation and images through the checkpoint's own processor, the loss on what the assistant says.

Which tokens are learned is decided by characters: the tokenizer says which characters each token stands for, and the processor where it
wrote an image's one placeholder out as many. A token that reaches across the beginning of an answer could not be learned alone, and a
prompt whose tokens change when the answer follows would not be what an evaluator asks; both are refused.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foundation.errors import InputError
from models.prompts import Conversation, conversation, special_tokens, tokenizer_of
from tasks.outline import Outline
from tasks.task import Example

IGNORED = -100
"""The label of a token that carries no loss."""

Row = dict[str, Tensor]
"""One example: input_ids, attention_mask and labels [T] int64, and the images' tensors as the processor gives them."""

Offsets = list[tuple[int, int]]
Replaced = Sequence[Mapping[str, Any]]
"""The image placeholders of a text: each one's characters in the text (`span`) and in what the tokenizer reads (`new_span`)."""

LOOSE = {"image_grid_thw"}
"""What a processor gives beside images' patches that go by images, not by examples."""


def encode(processor: Any, examples: Sequence[Example], max_length: int | None = None) -> list[Row]:
    """One row per example, without padding. A row does not depend on which others are encoded with it.

    Raises InputError, naming the example, where it is longer than `max_length` tokens, where its images are not as many as its text shows,
    or where its answer's tokens cannot be told from its prompt's.
    """
    said = [converse(processor, example) for example in examples]
    if not tokenizer_of(processor).is_fast:
        raise InputError(
            f"{type(tokenizer_of(processor)).__name__} does not say which characters a token stands for; save a fast tokenizer"
        )
    if not any(example.images for example in examples):
        found = encode_texts(processor, said)
    elif can_batch(processor, examples):
        found = encode_images(processor, examples, said)
    else:
        found = [
            row
            for example, each in zip(examples, said, strict=True)
            for row in (encode_images(processor, [example], [each]) if example.images else encode_texts(processor, [each]))
        ]
    beginnings = prompt_tokens(processor, said)
    for example, each, (row, offsets, replaced) in zip(examples, said, found, strict=True):
        if len(replaced) != len(example.images):
            raise InputError(f"example {example.key!r}: its text shows {len(replaced)} image(s), but it has {len(example.images)}")
        if max_length is not None and len(offsets) > max_length:
            raise InputError(too_long(example.key, len(offsets), max_length))
        row["labels"] = labels_of(row["input_ids"], offsets, each, replaced, beginnings[each.text[: each.prompt]], example)
    return [row for row, _, _ in found]


def converse(processor: Any, example: Example | Outline) -> Conversation:
    """The example's text; what is wrong with it is said with its key."""
    try:
        return conversation(processor, len(example.images), example.turns)
    except InputError as error:
        raise InputError(f"example {example.key!r}: {error}") from error


def too_long(key: str, length: int, max_length: int, place: str = "") -> str:
    """What is said of an example that does not fit; `place` is the record it comes from."""
    said = f"example {key!r} is {length} tokens long, but max_length is {max_length}"
    return f"{said}; raise max_length to {length}, or take {place or 'its record'} out{'' if place else ' of the file that its key names'}"


def can_batch(processor: Any, examples: Sequence[Example]) -> bool:
    """Whether one call of the processor may give tensors that go by examples: one image each, all of one size."""
    sizes = {image.size for example in examples for image in example.images}
    return len(sizes) == 1 and {len(example.images) for example in examples} == {1} and LOOSE.isdisjoint(processor.model_input_names)


def encode_texts(processor: Any, said: Sequence[Conversation]) -> list[tuple[Row, Offsets, Replaced]]:
    """Rows of examples without images."""
    texts = [each.text for each in said]
    batch = tokenizer_of(processor)(texts, return_offsets_mapping=True, **special_tokens(processor, texts[0]))
    rows = [{name: torch.tensor(batch[name][place]) for name in batch if name != "offset_mapping"} for place in range(len(said))]
    return [(row, offsets, []) for row, offsets in zip(rows, batch["offset_mapping"], strict=True)]


def encode_images(processor: Any, examples: Sequence[Example], said: Sequence[Conversation]) -> list[tuple[Row, Offsets, Replaced]]:
    """Rows of examples with images: of one example, or of examples whose tensors go by examples."""
    batch, count = processed(processor, examples, said), len(said)
    images = {name: torch.as_tensor(value) for name, value in batch.items() if len(value) != count or not isinstance(value[0], list)}
    if count > 1 and any(len(tensor) != count for tensor in images.values()):  # loose patches: only alone are they an example's
        return [row for place in range(count) for row in encode_images(processor, examples[place : place + 1], said[place : place + 1])]
    offsets, replaced = batch.pop("offset_mapping"), batch.pop("text_replacement_offsets")
    found = []
    for place in range(count):
        tokens = {name: torch.tensor(batch[name][place]) for name in batch if name not in images}
        own = {name: tensor[place : place + 1].clone() if count > 1 else tensor for name, tensor in images.items()}
        found.append((tokens | own, offsets[place], replaced[place]))
    return found


def processed(processor: Any, examples: Sequence[Example], said: Sequence[Conversation]) -> dict[str, Any]:
    """What the processor makes of the examples: lists of tokens and their characters, and tensors of images."""
    try:
        batch = processor(
            text=[each.text for each in said],
            images=[list(example.images) for example in examples],
            images_kwargs={"return_tensors": "pt"},
            text_kwargs={"return_offsets_mapping": True, "padding": False, **special_tokens(processor, said[0].text)},
            return_text_replacement_offsets=True,
        )
    except ValueError as error:
        keys = ", ".join(repr(example.key) for example in examples)
        raise InputError(f"example {keys}: {type(processor).__name__} refuses text or images: {error}") from error
    if not batch.get("text_replacement_offsets"):
        raise InputError(f"{type(processor).__name__} does not say where it puts an image's tokens, so answers cannot be told from them")
    return dict(batch)


def prompt_tokens(processor: Any, said: Sequence[Conversation]) -> dict[str, tuple[list[int], Offsets]]:
    """The tokens of each different prompt and their characters, as an evaluator would have them before images are written out."""
    prompts = list(dict.fromkeys(each.text[: each.prompt] for each in said))
    batch = tokenizer_of(processor)(prompts, return_offsets_mapping=True, **special_tokens(processor, prompts[0]))
    return dict(zip(prompts, zip(batch["input_ids"], batch["offset_mapping"], strict=True), strict=True))


def labels_of(
    ids: Tensor, offsets: Offsets, said: Conversation, replaced: Replaced, prompt: tuple[list[int], Offsets], example: Example
) -> Tensor:
    """Labels [T] int64: the token where the assistant says it, else IGNORED. Raises InputError for an answer that melts into its prompt.

    The prompt is compared from its last image on; before it, images' tokens have taken the place of their marks.
    """
    starts = [start for start, _ in offsets]
    labels = torch.full_like(ids, IGNORED)
    for first, end in said.learned:
        begins, ends = (bisect_left(starts, written_out(place, replaced)) for place in (first, end))
        if begins == ends or (begins and offsets[begins - 1][1] > written_out(first, replaced)):
            refuse_melted(said, first, end, example)
        labels[begins:ends] = ids[begins:ends]
    asked, places = prompt
    tail = asked[bisect_left([start for start, _ in places], replaced[-1]["span"][1]) if replaced else 0 :]
    begins = bisect_left(starts, written_out(said.prompt, replaced))
    if tail != ids[max(0, begins - len(tail)) : begins].tolist():
        refuse_melted(said, said.learned[-1][0], said.learned[-1][1], example)
    return labels


def written_out(place: int, replaced: Replaced) -> int:
    """Where a character of the text stands once the images before it are written out as many tokens."""
    gained = 0
    for image in replaced:
        if image["span"][1] > place:
            break
        gained = image["new_span"][1] - image["span"][1]
    return place + gained


def refuse_melted(said: Conversation, first: int, end: int, example: Example) -> None:
    """Raise InputError for an answer whose tokens cannot be learned alone."""
    raise InputError(
        f"example {example.key!r}: the tokens of its prompt are not the beginning of the tokens of prompt and answer "
        f"{said.text[first:end]!r}, so the answer cannot be learned alone; use a chat template whose prompt ends with a special token"
    )
