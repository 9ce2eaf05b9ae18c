"""A tokenizer's tokens, read from tokenizer.json without any tokenizer library, and a tokenizer.json with tokens appended.

The file lists the model's own tokens (`model.vocab`: token -> id, or a list of [token, score] whose position is the id) and the added
tokens, which are cut out of a text before the model sees it. The library that reads it gives an added token the model's id if the model has
one, else the next free number: what the file says is only compared with that. So appended ids are kept stable by entering added tokens in
`model.vocab` too wherever counting would not lead to them.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from mergers.checkpoints.checkpoint import read_json

FILE = "tokenizer.json"
MAX_TOKENS = 1_000_000


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one tokenizer.json. `ids` maps every token to its id, `added` the added ones to their entries in the file."""

    path: Path
    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]
    document: Mapping[str, Any]

    @property
    def end(self) -> int:
        """One more than the highest id."""
        return max(self.ids.values()) + 1


def read_vocabulary(directory: Path) -> Vocabulary:
    """The tokens of the tokenizer.json in a checkpoint's directory. InputError if there is none, or if it contradicts itself."""
    path = directory / FILE
    if not path.is_file():
        raise InputError(
            f"{directory} has no {FILE}, so which row of its embedding is which token cannot be told; copy the tokenizer of its base there "
            "(AutoTokenizer.from_pretrained(base).save_pretrained(...))"
        )
    document = read_json(directory, FILE, MAX_TOKENS)
    model = document.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    try:
        own = dict(vocab) if isinstance(vocab, dict) else {token: position for position, (token, _) in enumerate(vocab or [])}
        added = {entry["content"]: entry for entry in document.get("added_tokens") or []}
        ids = own | {token: entry["id"] for token, entry in added.items()}
        readable = bool(ids) and all(isinstance(token, str) and type(number) is int and number >= 0 for token, number in ids.items())
    except (TypeError, ValueError, KeyError):
        readable = False
    if not readable:
        raise InputError(f"{path} holds no table of tokens and ids that can be read; copy or download it again")
    check_ids(path, own, added, ids)
    return Vocabulary(path, ids, added, document)


def check_ids(path: Path, own: Mapping[str, int], added: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    """Raise InputError if two tokens have one id, or an added token another than the one that counting leads to."""
    counted = len(own)
    for token, entry in added.items():
        expected = own.get(token, counted)
        counted += token not in own
        if entry["id"] != expected:
            raise InputError(f"{path}: the added token {token!r} has id {entry['id']}, but counting leads to {expected}; write it again")
    if len(set(ids.values())) < len(ids):
        raise InputError(f"{path} gives two tokens one id; copy or download it again")


def united(first: Vocabulary, others: Sequence[Vocabulary]) -> tuple[Vocabulary, bytes | None]:
    """`first` with the tokens that only the others have appended, in their order, and its tokenizer.json (None if nothing is new).

    What is an added token there is one here, with its flags. A piece of a model's own vocabulary has no merges here, so no text is cut into
    it, but its id and its row are kept; a model that scores its pieces (Unigram) would cut texts differently, so that is refused with
    InputError.
    """
    ids, end = dict(first.ids), first.end
    entries: list[Mapping[str, Any]] = []
    pieces: list[str] = []
    for other in others:
        for token in sorted(other.ids.keys() - ids.keys(), key=other.ids.__getitem__):
            ids[token], end = end, end + 1
            if token in other.added:
                entries.append({**other.added[token], "id": ids[token]})
            else:
                pieces.append(token)
    if len(ids) == len(first.ids):
        return first, None
    document = copy.deepcopy(dict(first.document))
    document["added_tokens"] = [*(document.get("added_tokens") or []), *entries]
    counted = first.end == len(first.ids)  # then counting alone leads to the appended ids
    if pieces and not isinstance(document["model"]["vocab"], dict):
        raise InputError(
            f"{first.path} scores its pieces ({document['model'].get('type')}) and lacks {len(pieces)} of the others', e.g. {pieces[0]!r}: "
            "with them it would cut texts differently: choose one source's tokenizer (tokenizer_source: base, or a source's name)"
        )
    if isinstance(document["model"]["vocab"], dict) and (pieces or not counted):
        document["model"]["vocab"] = ids
    text = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    added = {**first.added, **{entry["content"]: entry for entry in entries}}
    return Vocabulary(first.path, ids, added, document), text
