"""What an example shows is told without decoding it, and is what decoding it gives."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tasks.files import examples as file_examples
from tasks.files import headers
from tasks.files.images import decode
from tasks.files.task import file_task
from tasks.joined import Joined
from tasks.outline import ImageSize, has_images, outline
from tasks.registry import get_task
from tasks.task import Split

ORIENTATION = 274


def never(*_: Any) -> Any:
    raise AssertionError("decoded")


def test_files_are_outlined_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (9, 5)).save(tmp_path / "a.png")
    Image.new("RGB", (7, 8)).save(tmp_path / "b.jpg")
    asked, told = {"from": "human", "value": "<image><image>Same?"}, {"from": "gpt", "value": "no"}
    words = [{"from": "human", "value": "Why?"}, told]
    records = [{"id": "x", "image": ["a.png", "b.jpg"], "conversations": [asked, told]}, {"id": "y", "conversations": words}]
    (tmp_path / "r.json").write_text(json.dumps(records))
    examples = file_task("t", train=tmp_path / "r.json").examples(Split.TRAIN)
    joined = Joined([get_task("parity").examples(Split.TRAIN, 2), examples], ["p", "q"])
    expected = [(each.key, each.turns, tuple(ImageSize(image.mode, image.size) for image in each.images)) for each in joined]
    monkeypatch.setattr(file_examples, "open_picture", never)
    monkeypatch.setattr(headers, "open_picture", never)
    found = [outline(joined, place) for place in range(len(joined))]
    assert [(each.key, each.turns, each.images) for each in found] == expected
    assert [has_images(joined, place) for place in range(len(joined))] == [True, True, True, False]
    assert found[2].place == f"record 0 (from 0) of {tmp_path / 'r.json'}"
    with pytest.raises(IndexError):
        joined.outline(4)


def encoded(form: str, size: tuple[int, int], orientation: int | None, **more: Any) -> bytes:
    """An image file of that form and EXIF orientation."""
    image, sink = Image.new("RGB", size, "red"), io.BytesIO()
    exif = image.getexif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    image.save(sink, form, **(more if form in {"BMP", "GIF", "ICO"} else {"exif": exif} | more))
    return sink.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "ICO", "JPEG2000"]),
    size=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    orientation=st.none() | st.integers(0, 9),
)
def test_a_header_tells_the_size_that_is_decoded(form: str, size: tuple[int, int], orientation: int | None) -> None:
    content = encoded(form, size, orientation)
    assert headers.picture_size("", content) == decode(io.BytesIO(content), "x").size
    assert (headers.header_size(io.BytesIO(content)) is None) == (form not in headers.TELL)


@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_png_may_tell_its_orientation_behind_its_pixels(where: str) -> None:
    content = encoded("PNG", (9, 5), 6)
    chunk = slice(content.index(b"eXIf") - 4, content.index(b"eXIf") + 8 + int.from_bytes(content[content.index(b"eXIf") - 4 :][:4]))
    if where == "behind":
        content = content[: chunk.start] + content[chunk.stop : -12] + content[chunk] + content[-12:]
    assert headers.picture_size("", content) == decode(io.BytesIO(content), "x").size == (5, 9)
    assert (headers.header_size(io.BytesIO(content)) is None) == (where == "behind")
    xmp = PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>')
    assert headers.picture_size("", encoded("PNG", (9, 5), None, pnginfo=xmp)) == (5, 9)
