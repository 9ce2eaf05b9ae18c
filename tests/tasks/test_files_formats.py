"""Every format gives back what was written; a record becomes the right turns and images."""

import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow.parquet import write_table

from foundation.errors import ConfigError, InputError
from tasks.files.check import find_usable
from tasks.files.conversation import read_record
from tasks.files.images import decode
from tasks.files.readers import open_records
from tasks.files.sources import expand_braces
from tasks.files.task import FileTask, file_task
from tasks.files.text import array_spans
from tasks.files.write import FORMS, export
from tasks.registry import get_task
from tasks.task import Example, Role, Split, Turn

COLORS = ("red", "green", "blue", "white")


@dataclasses.dataclass(frozen=True)
class Talks:
    """A task with all that a conversation may hold: several turns, several images, none, a system turn, marks inside the text."""

    name: str = "talks"
    max_new_tokens: int = 4
    version = 1

    def examples(self, split: Split, count: int | None = None) -> list[Example]:
        red, green, blue = (Image.new("RGB", (4, 3), color) for color in COLORS[:3])
        system, asked, told = Turn(Role.SYSTEM, "Be brief."), Turn(Role.USER, "Wie heißt das? <image>"), Turn(Role.ASSISTANT, "Grün.")
        return [
            Example("a", (red,), "Which color?", "red"),
            Example("b", (), "What is 2 + 2?\nSay it.", "4"),
            Example("c", (green, blue), "Same?", "no"),
            Example("d", (green, blue), "And <image>this?", "blue ☃", (system, asked, told)),
            Example("e", (red,), "And again?", "red", (Turn(Role.USER, "Which color?"), Turn(Role.ASSISTANT, "red"))),
        ][:count]

    def score(self, response: str, example: Example) -> float:
        return 0.0


def content(example: Example) -> tuple[Any, ...]:
    return example.question, example.answer, example.before, [(image.mode, image.size, image.tobytes()) for image in example.images]


@pytest.mark.parametrize("form", FORMS)
def test_a_task_that_is_written_reads_back_the_same(form: str, tmp_path: Path) -> None:
    for task in (Talks(), get_task("larger")):
        path = export(task, Split.TRAIN, tmp_path / task.name, form, 5)
        read = file_task(task.name, train=path).examples(Split.TRAIN)
        assert [content(each) for each in read] == [content(each) for each in task.examples(Split.TRAIN, 5)]
        assert [each.key for each in read] == [
            f"{task.name}/train/{path.name}/{row}/{each.key}" for row, each in enumerate(task.examples(Split.TRAIN, 5))
        ]
        for example in pickle.loads(pickle.dumps(read)):
            assert isinstance(example, Example)
    with pytest.raises(InputError, match="is there already"):
        export(task, Split.TRAIN, tmp_path / task.name, form)


DETECTED = {
    "llava.json": "train.json (JSON array, LLaVA conversations; all)",
    "llava.jsonl": "train.jsonl (JSON lines, LLaVA conversations; all)",
    "messages.jsonl": "train.jsonl (JSON lines, messages; all)",
    "messages.parquet": "train.parquet (Parquet, messages; all)",
    "messages.arrow": "train.arrow (Arrow file, messages; all)",
}


@pytest.mark.parametrize(("form", "said"), DETECTED.items())
def test_the_format_is_recognised_by_content_and_told(form: str, said: str, tmp_path: Path) -> None:
    path = export(Talks(), Split.TRAIN, tmp_path / "out", form)
    assert file_task("t", train=path).describe() == f"train: all 5 records of {said}"
    other = path.with_name("train.data")
    path.rename(other)
    assert len(file_task("t", train=other).examples(Split.TRAIN)) == 5


def test_an_arrow_stream_and_image_columns_of_several_kinds(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (2, 2), "red").save(image)
    asked = [{"role": "user", "content": "<image>Which color?"}, {"role": "assistant", "content": "red"}]
    for kind, held in {"path": "a.png", "bytes": image.read_bytes(), "struct": {"bytes": image.read_bytes(), "path": "x.png"}}.items():
        table = pa.Table.from_pylist([{"id": 7, "messages": asked, "image": held, "split": "unused"}])
        with pa.OSFile(str(tmp_path / f"{kind}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        task = file_task("t", train=tmp_path / f"{kind}.arrow")
        assert "Arrow stream, messages" in task.describe()
        (example,) = task.examples(Split.TRAIN)
        assert (example.question, example.images[0].getpixel((0, 0))) == ("Which color?", (255, 0, 0))
        assert bool(task.train and task.train.pictures) == (kind == "path")


def messages(*content: Any, **record: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "yes"}], **record}


def test_images_are_taken_in_the_order_in_which_they_are_shown() -> None:
    column, inline = {"type": "image"}, {"type": "image", "image": "inline.png"}
    words = {"type": "text", "text": "and"}
    mixed = read_record(messages(column, words, inline, column, images=["one.png", "two.png"]))
    assert mixed.pictures == ("one.png", "inline.png", "two.png")
    assert mixed.turns[0].text == "<image>and<image><image>"
    leading = read_record(messages(column, inline, words, images=["one.png"]))
    assert (leading.pictures, leading.turns[0].text) == (("one.png", "inline.png"), "and")
    plain = {"role": "user", "content": "Which?"}, {"role": "assistant", "content": [{"type": "text", "text": "this", "image": None}]}
    with pytest.raises(Exception, match="0 <image> marks for 1 image"):
        read_record({"messages": list(plain), "image": "a.png"})
    unmarked = read_record({"messages": [plain[0], {"role": "assistant", "content": "this"}], "images": ["a.png"]})
    assert (unmarked.pictures, unmarked.turns[0].text) == (("a.png",), "Which?")


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=40), min_size=1, max_size=12),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    bom=st.booleans(),
)
def test_text_records_are_those_that_a_whole_parse_gives(
    texts: list[str], indent: int | None, ascii_only: bool, bom: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch_block: None
) -> None:
    records = [{"id": number, "text": text, "nested": [{"]": "}"}]} for number, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("text")
    mark = b"\xef\xbb\xbf" if bom else b""
    whole = json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    (folder / "a.json").write_bytes(mark + b" \n" + whole + b"\n")
    (folder / "a.jsonl").write_bytes(mark + b"\n\n".join(json.dumps(each).encode() for each in records))
    for name in ("a.json", "a.jsonl"):
        opened = open_records(str(folder / name))
        assert [opened[number] for number in range(len(opened))] == records


@pytest.fixture(scope="module")
def monkeypatch_block() -> Any:
    """Read arrays in blocks of a few bytes, so that every place of a record falls on a border."""
    from tasks.files import json_text

    before, json_text.BLOCK = json_text.BLOCK, 7
    yield
    json_text.BLOCK = before


@pytest.mark.parametrize("block", range(1, 12))
def test_a_number_cut_at_a_blocks_end_is_read_whole(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = ["1", "-1.5", "1e5", "1E+50", "-1.25e-10", "NaN", "-Infinity"]
    content = f"[{', '.join(numbers)}]".encode()
    monkeypatch.setattr("tasks.files.json_text.BLOCK", block)
    spans = array_spans(io.BytesIO(content), "numbers.json")
    assert [content[start:end].decode() for start, end in spans] == numbers


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; records are read from"),
        (b"hello", "begins with b'hello'"),
        (b"[]", "holds no records"),
        (b'[{"a": 1}, {"b" 2}]', "cannot be read: .*at byte 11.*or write one record per line"),
        (b'[{"a": 1} {"b": 2}]', "has '{' where ']' should stand"),
        (b'[{"a": 1}', "ends before its ']'"),
        (b'[{"a": 1}] x', "goes on after its array"),
        (b'[{"a": "\xff"}]', "is not UTF-8"),
        (b'{\n "data": [1]\n}', "is one JSON object, not a list of records"),
        (b"PAR1 no", "cannot be read as Parquet"),
        (b"ARROW1 no", "cannot be read as Arrow file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        file_task("t", train=path)
    assert str(path) in str(error.value)


def test_a_table_without_conversations_names_its_columns(tmp_path: Path) -> None:
    write_table(pa.table({"image": ["a"], "caption": ["b"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="has no column conversations or messages; its columns are image, caption"):
        file_task("t", train=tmp_path / "t.parquet")


def write_records(path: Path, ids: range, **more: Any) -> Path:
    """Text-only LLaVA records with the given ids."""
    said = [[{"from": "human", "value": f"Q{number}?"}, {"from": "gpt", "value": f"A{number}"}] for number in ids]
    path.write_text(json.dumps([{"id": number, "conversations": each} | more for number, each in zip(ids, said, strict=True)]))
    return path


def questions(task: FileTask, count: int | None = None) -> list[str]:
    return [example.question for example in task.examples(Split.TRAIN, count)]


def test_yaml_mixtures_brace_lists_and_lists_give_the_same_files(tmp_path: Path) -> None:
    for name, ids in (("a", range(10)), ("b", range(10, 30))):
        write_records(tmp_path / f"{name}.json", ids)
    entries = [
        {"json_path": "{a,b}.json", "sampling_strategy": "end:10%"},
        {"json_path": str(tmp_path / "a.json"), "sampling_strategy": "first:2"},
    ]
    (tmp_path / "mix.yaml").write_text(yaml.dump({"datasets": entries}))
    mixed = file_task("t", train=tmp_path / "mix.yaml")
    assert questions(mixed) == ["Q9?", "Q28?", "Q29?", "Q0?", "Q1?"]
    assert [example.key for example in mixed.examples(Split.TRAIN)][-1] == "t/train/a.json~2/1/1"
    assert questions(file_task("t", train=entries, base=tmp_path)) == questions(mixed)
    assert questions(file_task("t", train="{a,b}.json", base=tmp_path)) == [f"Q{number}?" for number in range(30)]
    assert expand_braces("{x,y}/{1,2}.json") == ["x/1.json", "x/2.json", "y/1.json", "y/2.json"]
    drawn = file_task("t", train={"path": "b.json", "sampling_strategy": "random:25%"}, base=tmp_path)
    assert questions(drawn) == questions(dataclasses.replace(drawn)) != questions(dataclasses.replace(drawn, seed=1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("datasets: []", "one key, datasets"),
        ("a: 1", "one key, datasets.*it has a"),
        (
            "datasets: [{json_path: a.json, sampling_stratgy: all}]",
            "entry 1: unknown key 'sampling_stratgy'; did you mean 'sampling_strategy'",
        ),
        ("datasets: [{sampling_strategy: all}]", "entry 1: give the path"),
        ("datasets: [{json_path: a.json}, {json_path: b.json}]", "entry 2: there is no file .*b.json"),
        ("datasets: [{json_path: a.json, sampling_strategy: frist:10%}]", "entry 1: 'frist:10%' is not a sampling strategy"),
        ("datasets: [{json_path: a.json, json_path: a.json}]", "'json_path' stands twice"),
        ("datasets: [", "is no YAML"),
    ],
)
def test_a_wrong_mixture_says_what_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    write_records(tmp_path / "a.json", range(3))
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises((ConfigError, InputError), match=says):
        file_task("t", train=tmp_path / "mix.yaml")


def test_parquet_and_cache_hold_a_bounded_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.files import tables

    monkeypatch.setattr(tables, "ROOM", 1)
    path = export(get_task("parity"), Split.TRAIN, tmp_path / "x", "messages.parquet", 250)
    examples = file_task("t", train=path).examples(Split.TRAIN)
    assert [examples[place].key.split("/")[-1] for place in (0, 249, 100, 99)] == ["0", "249", "100", "99"]
    assert len(examples.usable.records[0]._held) == 1  # type: ignore[attr-defined]


def test_many_records_open_by_their_places_alone(tmp_path: Path) -> None:
    """20,000 records of 300 bytes: what is kept is 28 bytes a record (two places, a file and a row), not the records."""
    line = json.dumps({"conversations": [{"from": "human", "value": "Why? " * 40}, {"from": "gpt", "value": "So."}]})
    (tmp_path / "a.jsonl").write_text(f"{line}\n" * 20_000)
    task = file_task("t", train=tmp_path / "a.jsonl")
    usable, report = find_usable(task._asked(Split.TRAIN), None)
    records: Any = usable.records[0]
    assert sum(held.itemsize * len(held) for held in (records.starts, records.ends, usable.files, usable.rows)) == 28 * 20_000
    assert report.usable == 20_000


def test_images_are_shown_upright_in_rgb_over_white(tmp_path: Path) -> None:
    turned = Image.new("RGB", (4, 2), "red")
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert decode(str(tmp_path / "turned.jpg"), "x").size == (2, 4)
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (10, 20, 30, 255))
    clear.save(tmp_path / "clear.png")
    shown = decode(str(tmp_path / "clear.png"), "x")
    assert [shown.mode, shown.getpixel((0, 0)), shown.getpixel((1, 0))] == ["RGB", (255, 255, 255), (10, 20, 30)]
    gray = Image.new("I;16", (2, 1), 65535)
    gray.putpixel((1, 0), 257 * 100)
    gray.save(tmp_path / "gray.png")
    shown = decode(str(tmp_path / "gray.png"), "x")
    assert [shown.getpixel((0, 0)), shown.getpixel((1, 0))] == [(255, 255, 255), (100, 100, 100)]
