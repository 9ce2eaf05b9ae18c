"""How a question, and a question with its answer, are put to a model: the one place trainers and evaluators share.

Text comes from the checkpoint's own chat template. `conversation_text` always begins with `question_text`, so a trainer may take the loss
on what follows the prompt, and an evaluator that generates after the prompt asks exactly what was learned.
"""

from typing import Any

from foundation.errors import InputError


def question_text(processor: Any, n_images: int, question: str) -> str:
    """The prompt for `question` about `n_images` images, up to where the answer begins. Raises InputError where no template is held."""
    return render(processor, [user_turn(processor, n_images, question)], add_generation_prompt=True)


def conversation_text(processor: Any, n_images: int, question: str, answer: str) -> str:
    """The prompt, then `answer` and what ends it: all that follows `question_text` is to be learned.

    What the template puts after the end of the answer (a line break) is cut; where it ends no answer with the end-of-text token, the
    token is added. Raises InputError for a template whose conversation does not begin with its own prompt.
    """
    prompt = question_text(processor, n_images, question)
    turns = [user_turn(processor, n_images, question), {"role": "assistant", "content": content(processor, 0, answer)}]
    text = render(processor, turns, add_generation_prompt=False)
    if not text.startswith(prompt):
        raise InputError(
            f"the chat template writes {text[: len(prompt) + 20]!r} for an answered question, not beginning with its prompt {prompt!r}; "
            "use a template whose generation prompt is what it puts before an answer"
        )
    end = tokenizer_of(processor).eos_token
    if end is None:
        raise InputError("the tokenizer names no eos_token, so an answer would have no end; set eos_token in tokenizer_config.json")
    learned = text[len(prompt) :].rstrip()
    return prompt + (learned if learned.endswith(end) else learned + end)


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer itself for a text-only model."""
    return getattr(processor, "tokenizer", processor)


def user_turn(processor: Any, n_images: int, question: str) -> dict[str, Any]:
    """The user's turn: the images, then the question."""
    return {"role": "user", "content": content(processor, n_images, question)}


def content(processor: Any, n_images: int, text: str) -> str | list[dict[str, str]]:
    """A turn's content: a list of typed parts for a processor, a plain string for a text-only tokenizer."""
    if tokenizer_of(processor) is processor:
        if n_images:
            raise InputError(
                f"the checkpoint has a tokenizer but no image processor, and the example has {n_images} image(s); use a text task"
            )
        return text
    return [{"type": "image"}] * n_images + [{"type": "text", "text": text}]


def render(processor: Any, turns: list[dict[str, Any]], add_generation_prompt: bool) -> str:
    """The chat template's text for `turns`."""
    if not getattr(processor, "chat_template", None):
        raise InputError(
            f"the checkpoint's {type(processor).__name__} has no chat template; put a chat_template.jinja beside its config.json"
        )
    return processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, tokenize=False)
