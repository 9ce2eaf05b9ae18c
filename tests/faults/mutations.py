"""Damage for fuzzing: bytes changed at random, and JSON documents in which single values are replaced. All from a seed."""

import copy
import json
from random import Random
from typing import Any

ODD: list[Any] = [None, True, -1, 0, 1.5, 2**70, "", "x", "../x", "\0", [], {}, [[]], {"x": 1}, "nan", [None]]
"""What a value may be replaced by; all can be written as JSON."""


def damaged_bytes(content: bytes, chance: Random) -> bytes:
    """`content` after one to four edits: bytes changed, cut out, put in, repeated, or everything after some point lost."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randint(0, len(data)), chance.randint(1, 40)
        kind = chance.choice(["change", "change", "cut", "insert", "repeat", "lose"])
        if kind == "change":
            data[at : at + 1] = bytes([chance.randint(0, 255)])
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "insert":
            data[at:at] = chance.randbytes(chance.randint(1, 8))
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        else:
            del data[at:]
    return bytes(data)


def damaged_json(content: bytes, chance: Random) -> bytes:
    """The document with one to three of its values, at any depth, replaced by something odd or left out."""
    value = json.loads(content)
    for _ in range(chance.randint(1, 3)):
        value = _replaced(value, chance)
    return json.dumps(value).encode()


def _replaced(value: Any, chance: Random) -> Any:
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return copy.deepcopy(chance.choice(ODD))
    key = chance.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
    if chance.random() < 0.2:
        del value[key]
    else:
        value[key] = _replaced(value[key], chance)
    return value


def damaged(content: bytes, chance: Random) -> bytes:
    """Either kind of damage; `content` is JSON."""
    return damaged_json(content, chance) if chance.random() < 0.7 else damaged_bytes(content, chance)
