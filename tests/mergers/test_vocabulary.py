"""Vocabularies that differ: refused with both sizes, or brought together row by row; the tokenizers are read by their own library."""

import json
import re
from dataclasses import replace

import pytest
import torch
from entries import as_read, value_of

from foundation.errors import ConfigError, InputError
from mergers import WeightedAverage, execute, plan_merge
from mergers.checkpoints.companions import choose_companions
from mergers.checkpoints.header import Rows, TensorEntry
from mergers.checkpoints.tokens import read_vocabulary
from mergers.checkpoints.vocabulary import align_vocabularies, check_vocabularies

tokenizers = pytest.importorskip("tokenizers")

PIECES = ["a", "b", "ab", "c"]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tokenizer(pieces, added, kind="BPE"):
    """A tokenizer.json as its library writes it."""
    if kind == "Unigram":
        model = tokenizers.models.Unigram([(piece, -float(score)) for score, piece in enumerate(pieces)])
    else:
        ids = pieces if isinstance(pieces, dict) else {piece: number for number, piece in enumerate(pieces)}
        model = tokenizers.models.BPE(vocab=ids, merges=[("a", "b")] if "ab" in pieces else [])
    made = tokenizers.Tokenizer(model)
    for token in added:
        made.add_tokens([tokenizers.AddedToken(token, special=token.startswith("<"), normalized=False)])
    return made


class Speakers:
    """Checkpoints with an embedding, a head and a tokenizer; the value of a row tells its source and row: 100 x source + row."""

    def __init__(self, bench):
        self.bench = bench
        self.paths = {}

    def add(self, name, pieces, added, rows, kind="BPE", config=None, dtype=torch.float32, head=True):
        value = 100.0 * (len(self.paths) + 1) + torch.arange(float(rows))
        held = {EMBEDDING: value[:, None].repeat(1, 3).to(dtype), "model.norm.weight": torch.ones(3)}
        held |= {HEAD: -held[EMBEDDING]} if head else {}
        path = self.bench.save(name, held, {"model_type": "llama", "vocab_size": rows} | (config or {}))
        (path / "tokenizer.json").write_text(tokenizer(pieces, added, kind).to_str())
        self.paths[name] = path
        return self

    def align(self, choice, **options):
        self.sources = self.bench.sources(**self.paths)
        held = [source.tensors() for source in self.sources]
        return align_vocabularies(self.sources, held, self.sources[0], choice, **options)


@pytest.fixture
def speakers(bench):
    return Speakers(bench)


def rows_of(alignment, name=EMBEDDING):
    """What each source's rows are, as numbers, by its own formula and by the merge's reader."""
    found = []
    for held in alignment.tensors:
        value = value_of(held[name])
        assert value.shape == (alignment.size, 3) == held[name].shape
        assert torch.equal(as_read(held[name]).double(), value)
        assert torch.equal(as_read(held[name], 1 << 18).double(), value)
        assert (value == value[:, :1]).all()
        found.append(value[:, 0].int().tolist())
    return found


def texts(alignment, sources):
    main = alignment.tokenizer.name
    return {found.name: found.content() for found in alignment.companions(choose_companions(sources, main, None))}


def test_sizes_that_differ_are_told_with_the_choices(speakers):
    speakers.add("a", PIECES, [], 4).add("b", PIECES, ["<x>"], 6)
    sources = speakers.bench.sources(**speakers.paths)
    pattern = rf"'{HEAD}' has 4 rows in 'a' \({re.escape(str(speakers.paths['a']))}\) and 6 in 'b' \(.*\). Choose tokenizer_source: padding"
    with pytest.raises(InputError, match=pattern):
        check_vocabularies(sources, [source.tensors() for source in sources])
    check_vocabularies(sources[:1] * 2, [sources[0].tensors()] * 2)


def test_padding_takes_the_largest_and_fills_from_the_first_that_has_the_row(speakers):
    speakers.add("a", PIECES, ["<s>"], 5).add("b", PIECES, ["<s>"], 8).add("c", PIECES, ["<s>"], 6)
    found = speakers.align("padding", pad_to_multiple_of=5)
    a, b, c = [100, 101, 102, 103, 104], [200, 201, 202, 203, 204], [300, 301, 302, 303, 304]
    fill = [205, 206, 207, 0, 0]
    assert rows_of(found) == [a + fill, b + fill, [*c, 305, *fill[1:]]]
    assert rows_of(found, HEAD)[0] == [-value for value in a + fill]
    assert (found.size, found.text, found.tokenizer.name) == (10, None, "a")
    assert json.loads(texts(found, speakers.sources)["config.json"])["vocab_size"] == 10
    untouched = speakers.align("padding")
    assert untouched.tensors[1][EMBEDDING].rows is None, "a tensor that already has all rows is read as it lies"


def test_padding_wants_the_same_tokens(speakers):
    speakers.add("a", PIECES, ["<s>"], 5).add("b", PIECES, ["<t>"], 8)
    with pytest.raises(InputError, match=r"'a' and 'b' do not have the same tokens: 2 differ, e.g. '<s>'; choose union, base or a source"):
        speakers.align("padding")


def test_union_appends_what_the_base_lacks_in_config_order(speakers):
    speakers.add("a", PIECES, ["<s>"], 5).add("b", PIECES, ["<b>", "<s>"], 7).add("c", PIECES, ["<s>", "<c>", "<b>"], 7)
    found = speakers.align("union")
    # ids: four pieces, <s> 4, then <b> 5 of b, <c> 6 of c
    assert rows_of(found) == [
        [100, 101, 102, 103, 104, 204, 305],
        [200, 201, 202, 203, 205, 204, 305],
        [300, 301, 302, 303, 304, 306, 305],
    ]
    made = tokenizers.Tokenizer.from_str(texts(found, speakers.sources)["tokenizer.json"].decode())
    assert [made.token_to_id(token) for token in (*PIECES, "<s>", "<b>", "<c>")] == list(range(7))
    assert made.encode("<b>abc<c>").ids == [5, 2, 3, 6]
    assert found.notes[0] == "2 tokens that 'a' lacks are appended to its own"


def test_a_union_keeps_the_base_s_filling_and_uses_it_for_new_tokens(speakers):
    speakers.add("a", PIECES, [], 8).add("b", PIECES, ["<b>"], 5)
    assert rows_of(speakers.align("union")) == [
        [100, 101, 102, 103, 204, 105, 106, 107],
        [200, 201, 202, 203, 204, 105, 106, 107],
    ]


def test_pieces_of_another_vocabulary_keep_rows_but_change_no_encoding(speakers):
    speakers.add("a", PIECES, ["<s>"], 5).add("b", ["a", "b", "c", "bc", "d"], ["<t>"], 6)
    found = speakers.align("union")
    made = tokenizers.Tokenizer.from_str(found.text.decode())
    before = tokenizers.Tokenizer.from_file(str(speakers.paths["a"] / "tokenizer.json"))
    assert [made.token_to_id(token) for token in ("bc", "d", "<t>")] == [5, 6, 7]
    for text in ("abc", "<s>bcab", "cab<s>"):
        assert made.encode(text).ids == before.encode(text).ids
    assert rows_of(found)[0] == [100, 101, 102, 103, 104, 203, 204, 205]
    assert rows_of(found)[1] == [200, 201, 102, 202, 104, 203, 204, 205]


def test_ids_with_holes_keep_their_place_in_a_union(speakers):
    speakers.add("a", {"a": 0, "b": 1, "ab": 2, "c": 6}, [], 7).add("b", PIECES, ["<b>"], 5)
    found = speakers.align("union")
    made = tokenizers.Tokenizer.from_str(found.text.decode())
    assert (made.token_to_id("c"), made.token_to_id("<b>")) == (6, 7)
    assert rows_of(found)[1] == [200, 201, 202, 103, 104, 105, 203, 204], "rows of no token are the base's"


@pytest.mark.parametrize(("choice", "size"), [("base", 5), ("b", 6)])
def test_one_source_s_tokens_count_and_others_are_dropped(speakers, choice, size):
    config = {
        "bos_token_id": 4,
        "eos_token_id": [0, 4],
        "image_token_index": -1,
        "text_config": {"pad_token_id": 4},
        "vision": {"vocab_size": 9},
    }
    speakers.add("a", PIECES, ["<s>"], 5, config=config).add("b", PIECES, ["<t>", "<s>"], 6)
    (speakers.paths["a"] / "generation_config.json").write_text(json.dumps({"bos_token_id": 4}))
    found = speakers.align(choice)
    expected = {
        "base": [[100, 101, 102, 103, 104], [200, 201, 202, 203, 205]],
        "b": [[100, 101, 102, 103, 204, 104], [200, 201, 202, 203, 204, 205]],
    }
    assert (found.size, rows_of(found)) == (size, expected[choice])
    written = {item.name: item.content() for item in found.companions(choose_companions(speakers.sources, "a", None))}
    assert json.loads(written["config.json"]) == {
        "model_type": "llama", "vocab_size": size, "bos_token_id": size - 1, "eos_token_id": [0, size - 1], "image_token_index": -1,
        "text_config": {"pad_token_id": size - 1, "vocab_size": size}, "vision": {"vocab_size": 9},
    }  # fmt: skip
    assert json.loads(written["generation_config.json"]) == {"bos_token_id": size - 1}
    assert written["tokenizer.json"] == (speakers.paths["b" if choice == "b" else "a"] / "tokenizer.json").read_bytes()
    assert ("1 tokens of 'b' are dropped, e.g. '<t>'" in found.notes) == (choice == "base")


def test_a_config_that_needs_a_dropped_token_is_refused(speakers):
    speakers.add("a", PIECES, ["<s>"], 5).add("b", PIECES, ["<s>", "<t>"], 6, config={"pad_token_id": 5})
    found = speakers.align("base")
    with pytest.raises(InputError, match=r"config.json \(of 'b'\) gives pad_token_id 5, a token that the output's tokenizer does not have"):
        found.companions(choose_companions(speakers.sources, "b", None))


def test_rows_may_come_in_another_dtype_or_under_an_adapter(speakers):
    speakers.add("a", PIECES, ["<s>", "<a>"], 6, dtype=torch.bfloat16).add("b", PIECES, ["<s>", "<b>"], 6)
    found = speakers.align("union")
    assert [held[EMBEDDING].dtype for held in found.tensors] == ["BF16", "F32"]
    assert rows_of(found) == [[100, 101, 102, 103, 104, 105, 205], [200, 201, 202, 203, 204, 105, 205]]


def test_a_tensor_that_only_some_hold_gets_its_rows_from_those(speakers):
    speakers.add("a", PIECES, ["<a>"], 5, head=False).add("b", PIECES, [], 4)
    with pytest.raises(InputError, match=r"no source that has the token '<a>' has the tensor 'lm_head.weight'"):
        speakers.align("union")


def test_a_merge_reads_rows_from_where_they_are(speakers):
    speakers.add("a", PIECES, ["<s>", "<a>"], 6, dtype=torch.bfloat16).add("b", PIECES, ["<s>", "<b>"], 9)
    found = speakers.align("union")
    sources = [
        replace(source, checkpoint=replace(source.checkpoint, tensors=held))
        for source, held in zip(speakers.sources, found.tensors, strict=True)
    ]
    execute(plan_merge(WeightedAverage(), sources, speakers.bench.root / "out"))
    merged = speakers.bench.load()
    assert merged[EMBEDDING].dtype == torch.bfloat16
    assert merged[EMBEDDING][:, 0].tolist() == [150, 151, 152, 153, 154, 105, 205]
    assert torch.equal(merged[HEAD], -merged[EMBEDDING])


@pytest.mark.parametrize(
    ("choice", "options", "error", "message"),
    [
        ("unoin", {}, ConfigError, r"tokenizer_source: unknown choice 'unoin'; did you mean 'union'\?|tokenizer_source: unknown choice"),
        ("union", {"pad_to_multiple_of": 0}, ConfigError, "pad_to_multiple_of is 0; expected a whole number >= 1"),
    ],
)
def test_choices_that_are_none(speakers, choice, options, error, message):
    speakers.add("a", PIECES, [], 4).add("b", PIECES, ["<b>"], 5)
    with pytest.raises(error, match=message):
        speakers.align(choice, **options)


def test_tokenizers_that_do_not_fit_are_refused(speakers):
    speakers.add("a", PIECES, [], 4).add("b", PIECES, ["<b>", "<c>"], 5)
    with pytest.raises(InputError, match=r"source 'b': 'lm_head.weight' is \(5, 3\), but ids go up to 5 in .*tokenizer.json"):
        speakers.align("union")
    (speakers.paths["b"] / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"b has no tokenizer.json, so which row of its embedding is which token cannot be told"):
        speakers.align("padding")


def test_a_model_that_scores_its_pieces_is_not_mixed(speakers):
    speakers.add("a", ["x", "y"], [], 2, kind="Unigram").add("b", ["x", "y", "z"], [], 3, kind="Unigram")
    with pytest.raises(InputError, match=r"scores its pieces \(Unigram\) and lacks 1 of the others', e.g. 'z'"):
        speakers.align("union")
    assert rows_of(speakers.align("b"))[0] == [100, 101, 202]
    speakers.add("b", ["x", "y"], ["<z>"], 3, kind="Unigram")
    made = tokenizers.Tokenizer.from_str(speakers.align("union").text.decode())
    assert made.token_to_id("<z>") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: {}, "holds no table of tokens and ids"),
        (lambda text: text | {"model": {"vocab": 3}}, "holds no table of tokens and ids"),
        (lambda text: text | {"model": {"vocab": {"a": "0"}}}, "holds no table of tokens and ids"),
        (lambda text: text | {"model": {"vocab": {"a": 0, "b": 0}}, "added_tokens": []}, "gives two tokens one id"),
        (lambda text: text | {"added_tokens": [{"content": "<s>", "id": 9}]}, "the added token '<s>' has id 9, but counting leads to 4"),
    ],
)
def test_tokenizer_files_that_contradict_themselves(speakers, change, message):
    path = speakers.add("a", PIECES, [], 4).paths["a"]
    (path / "tokenizer.json").write_text(json.dumps(change(json.loads((path / "tokenizer.json").read_text()))))
    with pytest.raises(InputError, match=message):
        read_vocabulary(path)


def test_statistics_of_rows_that_change_are_refused(speakers):
    speakers.add("a", PIECES, [], 4).add("b", PIECES, ["<b>"], 5)
    first, second = speakers.bench.sources(**speakers.paths)
    measured = replace(first, statistics={EMBEDDING: first.checkpoint.tensors[EMBEDDING]})
    with pytest.raises(InputError, match=r"source 'a' has statistics for 'model.embed_tokens.weight', whose rows change"):
        align_vocabularies([measured, second], [measured.tensors(), second.tensors()], measured, "union")


def test_runs_of_rows_are_as_long_as_can_be():
    part = TensorEntry("w", "F32", (9, 2), "file", 0)
    rows = Rows.of((part, part), [(0, 1), (0, 2), (0, 3), (1, 4), (0, 5), (Rows.ZEROS, 0), (Rows.ZEROS, 0), (0, 0)])
    assert list(rows.runs(0, 8)) == [(part, 1, 3), (part, 4, 1), (part, 5, 1), (None, 0, 2), (part, 0, 1)]
    assert list(rows.runs(1, 3)) == [(part, 2, 2)]
