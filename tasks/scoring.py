"""How an answer is compared with the right one. Pure functions on text, shared by the tasks."""


def normalized(text: str) -> str:
    """`text` in lower case, without space at its ends and with single spaces inside."""
    return " ".join(text.lower().split())


def exact_match(response: str, answer: str) -> float:
    """1.0 where the whole response equals the whole answer after `normalized`, else 0.0."""
    return float(normalized(response) == normalized(answer))
