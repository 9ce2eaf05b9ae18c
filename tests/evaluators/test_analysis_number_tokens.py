"""Which entries of a vocabulary count as numbers."""

import pytest
from transformers import PreTrainedTokenizerFast

from evaluators.analysis.number_tokens import is_number, number_tokens
from foundation.errors import InputError
from models.digits_llava import digits_processor
from tasks.digits import all_texts

NUMBERS = [
    "3",
    "Ġ3",
    "▁17",
    " 400",
    "1st",
    "Ġ22nd",
    "2.5",
    "1,000",
    "12,345,678.9",
    "three",
    "ĠThree",
    "ZERO",
    "billion",
    "twenty-one",
    "ninetynine",
]
OTHERS = [
    "",
    "Ġ",
    "²",
    "٣",
    "threes",
    "a1",
    "1a",
    "first",
    "-",
    "1,00",
    "1.",
    ".5",
    "one-two",
    "twenty-zero",
    "ten-one",
    "<0x31>",
    "½",
    "1 2",
]


@pytest.mark.parametrize("entry", NUMBERS)
def test_numbers(entry: str) -> None:
    assert is_number(entry)


@pytest.mark.parametrize("entry", OTHERS)
def test_what_is_no_number(entry: str) -> None:
    assert not is_number(entry)


def test_the_set_of_a_tokenizer() -> None:
    tokenizer = digits_processor(all_texts()).tokenizer
    tokens = number_tokens(tokenizer)
    texts = {tokenizer.decode([number]).strip() for number in tokens.ids}
    assert {"0", "9", "zero", "nine"} <= texts
    assert not texts & {"even", "top", "red"}
    assert list(tokens.ids) == sorted(tokens.ids)
    assert tokens.text().splitlines()[0] == f"{tokens.ids[0]}\t{tokenizer.convert_ids_to_tokens(tokens.ids[0])}"
    assert tokens.text().count("\n") == len(tokens.ids)


def test_a_special_token_is_no_number_and_a_vocabulary_without_numbers_is_refused() -> None:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"red": 0, "blue": 1, "7": 2}, unk_token="red"))
    assert number_tokens(PreTrainedTokenizerFast(tokenizer_object=words)).ids == (2,)
    with pytest.raises(InputError, match=r"none of the 3 entries of the .* is a number such as '3'"):
        number_tokens(PreTrainedTokenizerFast(tokenizer_object=words, pad_token="7"))
