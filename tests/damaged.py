"""Files that lie in place of a checkpoint's weights, or were made to do harm: what each is, and how it is told.

The format: 8 bytes header length (little endian), a JSON header, then the tensors' bytes without gaps.
"""

import json
import struct
from collections.abc import Callable
from typing import Any


def header_file(header: Any, data: bytes = b"", pad: int = 0) -> bytes:
    """A safetensors file with this header, whose length is said to be `pad` bytes more than it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) + pad) + text + data


def one(dtype: Any = "F32", shape: Any = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    """A header of one tensor."""
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


EIGHT = b"\0" * 8
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is empty \(0 bytes\); copy or download it again"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n",
        "is a git-lfs pointer, .*run `git lfs pull`",
    ),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", r"is a web page \(HTML\), .*download it again"),
    "pickle": (b"\x80\x02}q\x00." + EIGHT, "is a pickle that is named .safetensors; pickles can run code and are not read"),
    "zip of pickles": (b"PK\x03\x04" + EIGHT, "is a pickle that is named .safetensors"),
    "few bytes": (b"abc", "has 3 bytes, too few"),
    "cut in its header": (header_file(one(), EIGHT)[:20], "is truncated: its header alone needs"),
    "cut in its data": (header_file(one(), EIGHT)[:-1], "is truncated: its header describes .* bytes, the file has"),
    "longer than it says": (header_file(one(), EIGHT + b"x"), "has 1 bytes more than its header describes"),
    "header bomb": (header_file({"__metadata__": {"x": ""}}, pad=1 << 30), "its header claims .* bytes, more than 33554432"),
    "not JSON": (header_file(b"not json at all", EIGHT), "its header is not JSON"),
    "nested without end": (header_file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "its header is not JSON"),
    "a list": (header_file(b"[1, 2]  ", EIGHT), "its header is not a JSON object"),
    "name twice": (
        header_file(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', EIGHT),
        "'w' stands twice in its header",
    ),
    "unprintable name": (header_file({"a\x00b": one()["w"]}, EIGHT), "is empty, longer than 512 characters or not printable"),
    "long name": (header_file({"a" * 513: one()["w"]}, EIGHT), "is empty, longer than 512 characters"),
    "unknown dtype": (header_file(one(dtype="F31"), EIGHT), "tensor 'w' has dtype 'F31', which cannot be read; known: F64"),
    "unhashable dtype": (header_file(one(dtype=["F32"]), EIGHT), "tensor 'w' has dtype"),
    "negative shape": (header_file(one(shape=(-2,)), EIGHT), "a shape or offset that is not a whole number >= 0"),
    "true as a number": (header_file(one(shape=(True,), offsets=(0, 4)), b"\0" * 4), "a shape or offset that is not a whole number"),
    "many dimensions": (header_file(one(shape=[1] * 33, offsets=(0, 4)), b"\0" * 4), "of at most 32 dimensions"),
    "a size of 70 bits": (header_file(one(shape=(1 << 65,)), EIGHT), "a shape or offset that is not a whole number >= 0 .and below 2.63"),
    "a size of a thousand digits": (header_file(one(shape=(10**1000,))), "its header is not JSON .a number of 1001 digits"),
    "wrong size": (header_file(one(shape=(3,)), EIGHT), "needs 12 bytes, the header gives it 8"),
    "gap": (header_file(one(offsets=(8, 16)), EIGHT + EIGHT), "the header has a gap or an overlap"),
    "overlap": (header_file({"a": one()["w"], "b": one(offsets=(4, 12))["w"]}, EIGHT + b"\0" * 4), "the header has a gap or an overlap"),
    "no offsets": (header_file({"w": {"dtype": "F32", "shape": [2]}}, EIGHT), "no well-formed dtype, shape and data_offsets"),
    "no tensors": (header_file({}), "holds no tensors"),
}

NOTHING = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
HEADER_BOMBS: dict[str, Callable[[], bytes]] = {
    "half a million tensors": lambda: b"{" + b",".join(b'"%d":%s' % (number, NOTHING) for number in range(500_000)) + b"}",
    "ten million lists": lambda: b'{"a":[' + b"[]," * 10_000_000 + b"[]]}",
    "two million numbers": lambda: b'{"a":[' + b"12345," * 2_000_000 + b"1]}",
    "numbers of four thousand digits": lambda: (
        b'{"a":{"dtype":"F32","shape":[' + (b"9" * 4000 + b",") * 8000 + b'1],"data_offsets":[0,4]}}'
    ),
    "the last of many names twice": lambda: b"{" + b",".join(b'"%d":%s' % (number % 99_999, NOTHING) for number in range(100_000)) + b"}",
    "32 MB of metadata": lambda: b'{"__metadata__":{"a":"' + b"x" * ((32 << 20) - 40) + b'"}}',
}
"""Headers that would fill the memory, or take minutes, if they were read as they ask to be; all are JSON but for what they are."""
