"""How a question, and a conversation with its answers, are put to a model: the one place trainers and evaluators share.

Text comes from the checkpoint's own chat template. A conversation's text begins with the text of its last question, so what an evaluator
asks before it lets the model generate is exactly what was learned. Which characters the assistant says, and so carry the loss, is taken
from the template too: from its {% generation %} marks where it has them, else by rendering the conversation as it grows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple, Protocol

from foundation.errors import InputError

IMAGE_MARK = "<image>"
"""Stands in a turn's text where an image is shown; the same word as `tasks.task.IMAGE_MARK`."""

ASSISTANT = "assistant"
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
DAY = date(2024, 7, 26)
"""What "today" is in a template that asks for it (the day Llama 3.1's falls back to): a step must not learn another text tomorrow."""

Message = dict[str, Any]


class Said(Protocol):
    """One turn: who speaks ("system", "user" or "assistant") and what; `tasks.task.Turn` is one."""

    @property
    def role(self) -> str:
        """Who speaks."""

    @property
    def text(self) -> str:
        """What is said; may hold IMAGE_MARK."""


class Line(NamedTuple):
    """A turn made here."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """A conversation's text, where in it the last prompt ends, and the stretches [first, end) of characters that are to be learned."""

    text: str
    prompt: int
    learned: tuple[tuple[int, int], ...]


def question_text(processor: Any, n_images: int, question: str, before: Sequence[Said] = ()) -> str:
    """The prompt for `question` after the turns of `before`, up to where the answer begins; `n_images` are those of all the turns.

    Raises InputError where no template is held, or where the images are not as many as the marks ask for.
    """
    return render(processor, messages(processor, n_images, [*before, Line("user", question)]), add_generation_prompt=True)


def conversation_text(processor: Any, n_images: int, question: str, answer: str) -> str:
    """The text of one question with its answer: all that follows `question_text` is to be learned. See `conversation`."""
    return conversation(processor, n_images, [Line("user", question), Line(ASSISTANT, answer)]).text


def conversation(processor: Any, n_images: int, turns: Sequence[Said]) -> Conversation:
    """The text of the whole conversation, which ends with the assistant's answer, and what of it is to be learned.

    Learned is what the assistant says and the token that ends it. What the template puts after the last answer's end (a line break) is
    cut; where it ends the last answer without the end-of-text token, the token is added. Between turns nothing is added or cut, as whoever
    serves the model adds nothing there. Raises InputError for a template that leaves a turn out, whose conversation does not begin with
    its own prompt, or that writes an earlier turn in another way when the conversation goes on (unless it has generation marks).
    """
    tokenizer = tokenizer_of(processor)
    if tokenizer.eos_token is None:
        raise InputError("the tokenizer names no eos_token, so an answer would have no end; set eos_token in tokenizer_config.json")
    said = messages(processor, n_images, turns)
    prompt = render(processor, said[:-1], add_generation_prompt=True)
    marked = GENERATION.search(template_of(processor)) is not None
    whole, spans = marked_spans(processor, said, prompt) if marked else grown_spans(processor, said, prompt)
    text = whole.rstrip() if len(whole.rstrip()) > len(prompt) else prompt
    if not text.endswith(tokenizer.eos_token, len(prompt)):
        text += tokenizer.eos_token
    refuse_left_out(text, said)
    return Conversation(text, len(prompt), (*spans[:-1], (spans[-1][0], len(text))))


def grown_spans(processor: Any, said: list[Message], prompt: str) -> tuple[str, list[tuple[int, int]]]:
    """The rendered conversation, and what each of the assistant's turns adds to the prompt before it."""
    whole = render(processor, said, add_generation_prompt=False)
    spans = []
    for place, message in enumerate(said):
        if message["role"] != ASSISTANT:
            continue
        last = place == len(said) - 1
        asked = prompt if last else render(processor, said[:place], add_generation_prompt=True)
        refuse_other_beginning(whole, asked)
        answered = (whole if last else render(processor, said[: place + 1], add_generation_prompt=False)).rstrip()
        if not whole.startswith(answered):
            raise InputError(
                f"the chat template writes turn {place + 1} of {len(said)} as {answered[len(asked) :]!r}, but in another way when the "
                "conversation goes on, so what is to be learned is unclear; put {% generation %} marks around what the assistant says"
            )
        spans.append((len(asked), max(len(answered), len(asked))))
    return whole, spans


def marked_spans(processor: Any, said: list[Message], prompt: str) -> tuple[str, list[tuple[int, int]]]:
    """The rendered conversation, and what its template marks as the assistant's, with the white space before and the end token after it.

    The white space between the last prompt and its answer is what the model itself must write first, so it counts as said.
    """
    whole, marks = render_marked(processor, said)
    found = [(start, end) for start, end in marks if whole[start:end].strip()]
    refuse_other_beginning(whole, prompt)
    if not found or found[-1][1] <= len(prompt):
        raise InputError("the chat template's {% generation %} marks leave out the last answer; put them around all the assistant says")
    eos = tokenizer_of(processor).eos_token
    first = next(start for start, end in found if end > len(prompt))
    lead = whole[len(prompt) : first] if not whole[len(prompt) : first].strip() else ""
    spans = []
    for start, end in found:
        begun = start - len(lead) if whole.endswith(lead, 0, start) else start
        ended = begun + len(whole[begun:end].rstrip())
        spans.append((begun, end + len(eos) if whole.startswith(eos, end) else ended))
    return whole, [(start, end) for start, end in spans if end > start]


def refuse_other_beginning(whole: str, prompt: str) -> None:
    """Raise InputError unless the conversation begins with its prompt."""
    if not whole.startswith(prompt):
        raise InputError(
            f"the chat template writes {whole[: len(prompt) + 20]!r} for an answered question, not beginning with its prompt {prompt!r}; "
            "use a template whose generation prompt is what it puts before an answer"
        )


def refuse_left_out(text: str, said: list[Message]) -> None:
    """Raise InputError for a turn whose words are not in the text."""
    place = 0
    for number, message in enumerate(said, 1):
        for words in texts_of(message):
            found = text.find(words.strip(), place)
            if found < 0:
                raise InputError(
                    f"the chat template leaves out or rewrites turn {number}, the {message['role']}'s {shortened(words)!r}; "
                    "change that turn, or use a template that writes it"
                )
            place = found + len(words.strip())


def shortened(words: str) -> str:
    """The beginning of a long text."""
    return words if len(words) <= 60 else words[:57] + "..."


def texts_of(message: Message) -> list[str]:
    """The texts of a message, in order."""
    held = message["content"]
    return [held] if isinstance(held, str) else [part["text"] for part in held if part["type"] == "text"]


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer itself for a text-only model."""
    return getattr(processor, "tokenizer", processor)


def special_tokens(processor: Any, text: str) -> dict[str, bool]:
    """The option that keeps the tokenizer from writing a first token that the template has written already."""
    bos = tokenizer_of(processor).bos_token
    return {"add_special_tokens": False} if bos and text.startswith(bos) else {}


def messages(processor: Any, n_images: int, turns: Sequence[Said]) -> list[Message]:
    """The turns as a chat template reads them. Images stand where they are marked; without any mark they come first.

    Raises InputError unless the marks are none or as many as the images, for a mark in what the assistant says, and for images (or marks)
    where the checkpoint has no image processor.
    """
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if any(turn.role == ASSISTANT and IMAGE_MARK in turn.text for turn in turns):
        raise InputError(f"what the assistant says holds {IMAGE_MARK}, but a model's answer shows no images; remove it")
    if tokenizer_of(processor) is processor:
        if n_images or marks:
            raise InputError(
                f"the checkpoint has a tokenizer but no image processor, and the example has {n_images or marks} image(s); use a text task"
            )
        return [{"role": str(turn.role), "content": turn.text} for turn in turns]
    if marks not in (0, n_images):
        raise InputError(
            f"{n_images} image(s) are given but {IMAGE_MARK} stands {marks} time(s) in the text; mark each image once, or none"
        )
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), 0)
    loose = [0 if marks or place != first else n_images for place in range(len(turns))]
    return [{"role": str(turn.role), "content": content(count, turn.text)} for count, turn in zip(loose, turns, strict=True)]


def content(n_images: int, text: str) -> list[dict[str, str]]:
    """Typed parts: the images that nothing marks, then the text, with an image at each mark.

    A line break between the words and marks at the text's beginning or end ("<image>\\nWhat is this?") belongs to the marks: how an image
    is set apart is the template's business.
    """
    pieces = text.split(IMAGE_MARK)
    for place in range(1, len(pieces)):
        if not any(pieces[:place]):
            pieces[place] = pieces[place].removeprefix("\n")
    for place in reversed(range(len(pieces) - 1)):
        if not any(pieces[place + 1 :]):
            pieces[place] = pieces[place].removesuffix("\n")
    parts: list[dict[str, str]] = [{"type": "image"}] * n_images
    for place, piece in enumerate(pieces):
        parts += [{"type": "image"}] * (place > 0)
        parts += [{"type": "text", "text": piece}] * (bool(piece) or len(pieces) == 1)
    return parts


def template_of(processor: Any) -> str:
    """The chat template, with a fixed day where it asks for today's; InputError where there is none."""
    held = getattr(processor, "chat_template", None)
    template = held.get("default") if isinstance(held, dict) else held
    if not template:
        raise InputError(
            f"the checkpoint's {type(processor).__name__} has no chat template; put a chat_template.jinja beside its config.json"
        )
    return TODAY.sub(lambda asked: f"{asked[1]}{DAY.strftime(asked[2])}{asked[1]}", template)


def render(processor: Any, said: list[Message], add_generation_prompt: bool) -> str:
    """The chat template's text for a conversation; InputError where the template refuses it."""
    from jinja2 import TemplateError

    template = template_of(processor)
    try:
        return processor.apply_chat_template(said, chat_template=template, add_generation_prompt=add_generation_prompt, tokenize=False)
    except (TemplateError, TypeError) as error:
        roles = ", ".join(message["role"] for message in said)
        raise InputError(
            f"the chat template refuses a conversation of {roles or 'no turns'}: {error}; change the conversation or the template"
        ) from error


def render_marked(processor: Any, said: list[Message]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and the stretches its template marks as generated."""
    from transformers.utils.chat_template_utils import render_jinja_template

    render(processor, said, add_generation_prompt=False)  # refuses what the template refuses
    texts, spans = render_jinja_template(
        conversations=[said],
        chat_template=template_of(processor),
        return_assistant_tokens_mask=True,
        **tokenizer_of(processor).special_tokens_map,
    )
    return texts[0], spans[0]
