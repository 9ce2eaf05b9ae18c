"""The logged samples of lm-eval and lmms-eval, one line of JSON per document and filter, as they are read by `results.py`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import InputError

QUESTIONS = ("question", "query", "problem", "prompt", "text", "ctx", "sentence", "premise", "goal")
"""Under which of these a document's question stands, the first that it has; else the prompt is the question."""
SCORE_KEY = "score"


@dataclass(frozen=True)
class Row:
    """One document: its id, what was asked and answered as text, and the line it stands in."""

    key: str
    question: str
    prompt: str
    answer: str
    response: str
    line: Mapping[str, Any]

    def value(self, metric: str) -> float | None:
        """The document's own value of a metric; None where it has none that is a number."""
        value = self.line.get(metric)
        if isinstance(value, Mapping):
            value = value.get(SCORE_KEY)
        if isinstance(value, bool | int | float) and math.isfinite(value):
            return float(value)
        return None


def rows_of(path: Path, filtered: str) -> list[Row]:
    """The documents of a file of samples under one filter, sorted by id. InputError where the file is missing or not one."""
    try:
        lines = [json.loads(text) for text in path.read_text().splitlines() if text]
        rows = [row_of(line) for line in lines if line.get("filter", filtered) == filtered]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); the harness logged no samples, ask again") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is not a file of logged samples ({error!r}); ask again") from error
    return sorted(rows, key=lambda row: int(row.line["doc_id"]))


def row_of(line: Mapping[str, Any]) -> Row:
    """One line of samples.

    Of multiple choice, the response is the continuation of highest log-likelihood and the answer the text of the right one.
    """
    calls = [list(call.values()) for call in (line.get("arguments") or {}).values()]
    prompt = as_text(calls[0][0]) if calls else as_text(line.get("input", ""))
    doc = line.get("doc")
    question = next((doc[key] for key in QUESTIONS if isinstance(doc.get(key), str)), prompt) if isinstance(doc, Mapping) else prompt
    answer, response = as_text(line["target"]), spoken(line)
    choices = choices_of(calls)
    likely = likelihoods(line)
    if choices and len(likely) >= len(choices):
        response = choices[max(range(len(choices)), key=lambda index: likely[index])]
        if answer.isdigit() and int(answer) < len(choices):
            answer = choices[int(answer)]
    return Row(str(line["doc_id"]), question, prompt, answer, response, line)


def choices_of(calls: Sequence[Sequence[Any]]) -> list[str]:
    """The continuations of a multiple-choice document; where these are one, the contexts before it. Empty for other documents."""
    if len(calls) < 2 or not all(len(call) >= 2 and isinstance(call[1], str) for call in calls):
        return []
    endings = [call[1].strip() for call in calls]
    return [as_text(call[0]) for call in calls] if len(set(endings)) == 1 else endings


def likelihoods(line: Mapping[str, Any]) -> list[float]:
    """The log-likelihood of each continuation; empty where the responses are no pairs (log-likelihood, greedy)."""
    found = []
    for response in line.get("filtered_resps") or ():
        if not isinstance(response, list | tuple) or len(response) != 2:
            return []
        try:
            found.append(float(response[0]))
        except (TypeError, ValueError):
            return []
    return found


def spoken(line: Mapping[str, Any]) -> str:
    """What the model said, before any filter."""
    said = line.get("resps", line.get("filtered_resps", ""))
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    return as_text(said)


def as_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
