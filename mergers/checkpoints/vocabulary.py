"""Sources whose vocabularies differ: refused unless the user chooses, then brought together row by row.

The embedding and the output head of a language model have one row per token. Two sources may differ in which tokens they have, in the rows
that those have, and in how many unused rows fill the tensor up. The choices:

- `padding`: the tokens are the same, only the filling differs. The largest size counts.
- `base`, or a source's name: the output has that source's tokens, ids and size; tokens that only others have are dropped.
- `union`: the base's tokens and ids, then the others' that it lacks, in config order.

A token that a source lacks takes the row of the first source (the base first) that has it; a row of no token takes that of the source which
gives the ids, or zeros beyond its end. So in a row that only one source knows, all agree, and a task vector is zero there.

mergekit's `tokenizer_source` has no `padding`. It gives a token that a model lacks the base's row, or else the average of all rows that
there are, and drops the filling, so that a base padded to a round size shrinks; here it keeps its size. In the union of both, a piece of
another tokenizer's vocabulary has an id and a row, but no merges that lead to it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from mergers.checkpoints.checkpoint import inside
from mergers.checkpoints.companions import Companion, group_of, small_files
from mergers.checkpoints.header import FLOATS, Rows, TensorEntry
from mergers.checkpoints.tokens import FILE, Vocabulary, read_vocabulary, united
from mergers.sources.source import Source

UNION, BASE, PADDING = KEYWORDS = "union", "base", "padding"
PER_TOKEN = re.compile(
    r"(?:^|\.)(?:embed_tokens\.weight|lm_head\.(?:weight|bias)|wte\.weight|word_embeddings\.weight|tok_embeddings\.weight|embed_in\.weight"
    r"|embed_out\.weight|shared\.weight)$"
)
"""Names of tensors with one row per token."""
TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
TOKEN_ID = re.compile(r"_token_(?:id|ids|index)$")
GONE = -1
Tensors = Mapping[str, TensorEntry]


@dataclass(frozen=True)
class Alignment:
    """Sources brought to one vocabulary of `size` rows. `tensors` are theirs in the order given, `tokenizer` is the source that gives the
    tokenizer's files, `text` its new tokenizer.json if tokens were appended, `moved` what became of each source's ids."""

    tensors: list[dict[str, TensorEntry]]
    size: int
    notes: list[str]
    tokenizer: Source
    text: bytes | None = None
    moved: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def companions(self, chosen: Sequence[Companion]) -> tuple[Companion, ...]:
        """The output's small files: as chosen, but the tokenizer of the source that gives the ids, and sizes and ids in the configs."""
        home = self.tokenizer.checkpoint.path
        kept = {found.name: found for found in chosen if group_of(found.name) != "tokenizer"}
        kept |= {
            name: Companion(name, inside(home, name), self.tokenizer.name) for name in small_files(home) if group_of(name) == "tokenizer"
        }
        for name in ("config.json", "generation_config.json"):
            if name in kept:
                old = kept[name]
                moved = self.moved.get(old.source, {})
                size = self.size if name == "config.json" else None
                kept[name] = Adjusted(name, old.path, old.source, old.dtype, old.values, size, moved)
                kept[name].content()  # refuses an id whose token is gone, now rather than after the merge
        if self.text is not None:
            kept[FILE] = Adjusted(FILE, home / FILE, self.tokenizer.name, text=self.text)
        return tuple(kept[name] for name in sorted(kept))


@dataclass(frozen=True)
class Adjusted(Companion):
    """A small file in which the vocabulary's size and the ids of tokens are entered, or one that is written anew."""

    size: int | None = None
    moved: Mapping[int, int] = field(default_factory=dict)
    text: bytes | None = None

    def content(self) -> bytes:
        """The bytes to write."""
        data = super().content()
        if self.text is not None:
            return self.text
        config = adjusted(json.loads(data), self.size, self.moved, f"{self.path} (of '{self.source}')")
        return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def check_vocabularies(sources: Sequence[Source], tensors: Sequence[Tensors]) -> None:
    """Raise InputError if a tensor with one row per token has different sizes in two sources. `tensors` are under the output's names."""
    for name in sorted({name for held in tensors for name in held if PER_TOKEN.search(name)}):
        held = [(source, found[name]) for source, found in zip(sources, tensors, strict=True) if name in found]
        first, entry = held[0]
        other = next(((source, one) for source, one in held if one.shape[:1] != entry.shape[:1]), None)
        if other is not None:
            raise InputError(
                f"the vocabularies differ: '{name}' has {entry.shape[0]} rows in '{first.name}' ({first.checkpoint.path}) and "
                f"{other[1].shape[0]} in '{other[0].name}' ({other[0].checkpoint.path}). Choose tokenizer_source: padding (the same "
                "tokens, only filled up differently), base or a source's name (the tokens of that one), or union (the base's, then the "
                "others')"
            )


def align_vocabularies(
    sources: Sequence[Source], tensors: Sequence[Tensors], anchor: Source, choice: str, pad_to_multiple_of: int = 1
) -> Alignment:
    """Bring all sources to one vocabulary; reads tokenizer.json files and no weights.

    `tensors` are each source's under the output's names, `anchor` (one of the sources) is the base of the choice. The entries that come
    back keep their dtype and read rows from other sources where their own lacks them. Raises ConfigError for an unknown choice, InputError
    for tokenizers that cannot be read or do not fit their tensors or the choice.
    """
    check_choice(sources, choice, pad_to_multiple_of)
    names = sorted({name for held in tensors for name in held if PER_TOKEN.search(name)})
    if not names:
        raise InputError(f"tokenizer_source is {choice!r}, but no source has an embedding or output head of a name that is known")
    vocabularies = [read_vocabulary(source.checkpoint.path) for source in sources]
    check_rows(sources, tensors, vocabularies, names)
    first = next(index for index, source in enumerate(sources) if source is anchor)
    giver = next((index for index, source in enumerate(sources) if choice == source.name and choice not in KEYWORDS), first)
    order = [first, *(index for index in range(len(sources)) if index != first)]
    output, text, notes = agreed(sources, vocabularies, order, giver, choice)
    filling = order if choice == PADDING else [giver]
    rows = [tensors[index][name].shape[0] for index in filling for name in names if name in tensors[index]]
    size = -(-max(output.end, *rows) // pad_to_multiple_of) * pad_to_multiple_of
    table = Table(vocabularies, output, size, order, filling, choice == PADDING)
    aligned = [dict(held) for held in tensors]
    for name in names:
        for index, held in enumerate(aligned):
            if name in held:
                held[name] = table.entry(index, name, [found.get(name) for found in tensors])
                check_unmeasured(sources[index], tensors[index][name], held[name])
    moved = {source.name: table.moved(index) for index, source in enumerate(sources)}
    notes.append(f"all vocabularies are brought to {size} rows, with the tokenizer of '{sources[giver].name}'")
    return Alignment(aligned, size, notes, sources[giver], text, moved)


def agreed(
    sources: Sequence[Source], vocabularies: Sequence[Vocabulary], order: Sequence[int], giver: int, choice: str
) -> tuple[Vocabulary, bytes | None, list[str]]:
    """The output's tokens, its tokenizer.json if it is a new one, and what a user should know."""
    output = vocabularies[giver]
    others = [index for index in order if index != giver]
    if choice == UNION:
        union, text = united(output, [vocabularies[index] for index in others])
        return union, text, [f"{len(union.ids) - len(output.ids)} tokens that '{sources[giver].name}' lacks are appended to its own"]
    notes = []
    for index in others:
        lost = sorted(vocabularies[index].ids.keys() - output.ids.keys())
        if choice == PADDING and vocabularies[index].ids != output.ids:
            pairs = vocabularies[index].ids.items() ^ output.ids.items()
            raise InputError(
                f"tokenizer_source is padding, but '{sources[giver].name}' and '{sources[index].name}' do not have the same tokens: "
                f"{len({token for token, _ in pairs})} differ, e.g. {min(pairs)[0]!r}; choose union, base or a source's name"
            )
        if lost:
            notes.append(f"{len(lost)} tokens of '{sources[index].name}' are dropped, e.g. {lost[0]!r}")
    return output, None, notes


@dataclass(frozen=True)
class Table:
    """Which row of which source plays each row of the output. `order` is the order in which sources are asked for a token, `filling` that
    for rows of no token; `own_filling`: a source's own come first."""

    vocabularies: Sequence[Vocabulary]
    output: Vocabulary
    size: int
    order: Sequence[int]
    filling: Sequence[int]
    own_filling: bool

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Id -> token of the output."""
        return {number: token for token, number in self.output.ids.items()}

    @cached_property
    def known(self) -> dict[tuple[int, tuple[int, ...]], list[tuple[int, int]]]:
        """What `places` has found, by the source and the sources' sizes."""
        return {}

    def entry(self, index: int, name: str, entries: Sequence[TensorEntry | None]) -> TensorEntry:
        """One source's tensor in the output's vocabulary, from that tensor of every source (None where it has none)."""
        own = entries[index]
        assert own is not None
        if own.shape[0] == self.size and self.vocabularies[index].ids == self.output.ids:
            return own
        sizes = tuple(entry.shape[0] if entry else 0 for entry in entries)
        places = self.known.setdefault((index, sizes), [])  # the embedding and the head mostly share theirs
        if not places:
            places += self.places(index, name, sizes)
        used = [index, *sorted({source for source, _ in places} - {index, Rows.ZEROS})]
        parts = [entry for entry in (entries[source] for source in used) if entry]
        part_of = {source: part for part, source in enumerate(used)} | {Rows.ZEROS: Rows.ZEROS}
        odd = next((part for part in parts if part.shape[1:] != own.shape[1:] or part.dtype not in FLOATS), None)
        if odd:
            raise InputError(f"tensor '{name}' is {odd.shape} {odd.dtype} in {odd.path} and {own.shape} {own.dtype} in {own.path}")
        rows = Rows.of(parts, ((part_of[source], row) for source, row in places))
        return replace(own, shape=(self.size, *own.shape[1:]), added=(), rows=rows)

    def places(self, index: int, name: str, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(source, its row) for every row of one source's tensor; `rows` is how many the sources have, 0 for those without the tensor."""
        holders = [source for source in (index, *self.order) if rows[source]]
        fillers = [source for source in ((index, *self.filling) if self.own_filling else self.filling) if rows[source]]
        for row in range(self.size):
            token = self.tokens.get(row)
            if token is None:
                yield next(((source, row) for source in fillers if row < rows[source]), (Rows.ZEROS, 0))
                continue
            source = next((source for source in holders if token in self.vocabularies[source].ids), None)
            if source is None:
                raise InputError(f"no source that has the token {token!r} has the tensor '{name}'; choose another tokenizer_source")
            yield source, self.vocabularies[source].ids[token]

    def moved(self, index: int) -> dict[int, int]:
        """Old id -> new id of one source's tokens whose id changes, GONE where the output has no such token."""
        ids = self.output.ids
        return {old: ids.get(token, GONE) for token, old in self.vocabularies[index].ids.items() if ids.get(token, GONE) != old}


def check_choice(sources: Sequence[Source], choice: str, pad_to_multiple_of: int) -> None:
    """Raise ConfigError for a choice that is none."""
    choices = [*KEYWORDS, *(source.name for source in sources)]
    if choice not in choices:
        raise ConfigError(f"tokenizer_source: {unknown('choice', choice, choices)}")
    if type(pad_to_multiple_of) is not int or pad_to_multiple_of < 1:
        raise ConfigError(f"pad_to_multiple_of is {pad_to_multiple_of!r}; expected a whole number >= 1, e.g. 64")


def check_rows(sources: Sequence[Source], tensors: Sequence[Tensors], vocabularies: Sequence[Vocabulary], names: Sequence[str]) -> None:
    """Raise InputError if a source has tokens without a row."""
    for source, held, vocabulary in zip(sources, tensors, vocabularies, strict=True):
        for name in names:
            if name in held and held[name].shape[:1] < (vocabulary.end,):
                raise InputError(
                    f"source '{source.name}': '{held[name].name}' is {held[name].shape}, but ids go up to {vocabulary.end - 1} in "
                    f"{vocabulary.path}; the tokenizer is not that of this model"
                )


def check_unmeasured(source: Source, old: TensorEntry, new: TensorEntry) -> None:
    """Raise InputError if a tensor whose rows change has statistics, which were measured on the old ones."""
    if new is not old and old.name in source.statistics:
        raise InputError(
            f"source '{source.name}' has statistics for '{old.name}', whose rows change with the vocabulary; measure them without it, or "
            "bring the checkpoint to that vocabulary before measuring"
        )


def adjusted(config: dict[str, Any], size: int | None, moved: Mapping[int, int], where: str) -> dict[str, Any]:
    """A config with the vocabulary's size entered (unless None), where it stands or belongs, and every token's id brought up to date.

    InputError, naming `where` the config is, for the id of a token that the output does not have.
    """

    def renumber(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: renumber(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [renumber(inner, key) for inner in value]
        if not TOKEN_ID.search(key) or type(value) is not int:
            return value
        if moved.get(value, value) == GONE and value != GONE:
            raise InputError(
                f"{where} gives {key} {value}, a token that the output's tokenizer does not have; take the tokenizer of that source, a "
                "union, or the config of another (files_from)"
            )
        return moved.get(value, value)

    config = renumber(config)
    inner = next((key for key in TEXT_CONFIGS if isinstance(config.get(key), dict)), None)
    if size is not None and inner:
        config[inner]["vocab_size"] = size
    if size is not None and (not inner or "vocab_size" in config):
        config["vocab_size"] = size
    return config
