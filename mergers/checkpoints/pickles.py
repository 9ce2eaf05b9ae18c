"""Pickled weights (`pytorch_model.bin`, Lightning's `.ckpt`) as byte ranges: nothing is converted, and no code in them ever runs.

Since torch 1.6, `torch.save` writes a zip archive that stores each storage's bytes uncompressed beside one pickle that says which tensor is
which part of them. That pickle alone is read, with torch's own `weights_only=True` (which builds tensors and plain containers and refuses
all else) and without the weights (`map_location="meta"`). What is learned is what a safetensors header says: name, dtype, shape, place.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from foundation.errors import InputError
from mergers.checkpoints.header import ITEM_BYTES, MAX_TENSORS, TensorEntry, check_name, refuse_lookalikes

if TYPE_CHECKING:
    import torch

PICKLED = (".bin", ".ckpt", ".pt", ".pth")
"""How the names of pickled checkpoints end."""
ALLOW = "set allow_pickle: true, which reads them with weights_only=True"
WRAPPERS = ("state_dict", "model", "module")
"""Keys under which training frameworks keep the weights, in the order in which they are tried: Lightning; BEiT and others; DeepSpeed."""
MAX_PICKLE_BYTES = 64 << 20
LOCAL_HEADER = 30
"""Bytes before a record's name in a zip archive; the last four of them say how long the name and what follows it are."""
TORCH_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
    "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
}  # fmt: skip
"""torch's name of a dtype -> that of safetensors."""


def read_pickle(path: Path) -> dict[str, TensorEntry]:
    """Name -> entry of every tensor of the state dict in a file that `torch.save` wrote. The weights are not read.

    Only for callers who were allowed to read pickles. Raises InputError, naming the file, for an old or damaged format, for a pickle that
    holds more than tensors and plain containers (it is not run), and for a tensor whose bytes do not lie in one row-major run.
    """
    places = stored_records(path)
    state = state_dict(path, load_without_weights(path))
    if len(state) > MAX_TENSORS:
        raise InputError(f"{path} holds {len(state)} tensors, more than {MAX_TENSORS}")
    return {name: entry(path, name, value, places) for name, value in state.items()}


def stored_records(path: Path) -> dict[int, int]:
    """First byte -> end of every record of the archive; InputError unless it is one that torch.save wrote and its records are stored as
    they are."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        head = file.read(64)
        refuse_lookalikes(path, head, size)
        if head.startswith(b"\x80"):
            raise InputError(
                f"{path} is a pickle in the format of before torch 1.6, whose tensors cannot be read in place; write it again: "
                f"torch.save(torch.load(path, weights_only=True), path)"
            )
        if not head.startswith(b"PK\x03\x04"):
            raise InputError(f"{path} is not a file that torch.save wrote; copy or download it again")
        try:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, struct.error) as error:
            raise InputError(f"{path} is truncated or damaged ({error}); copy or download it again") from None
        places = {record.filename: stored_at(path, file, size, record) for record in records}
        start, end = next((place for name, place in places.items() if name.endswith("/byteorder")), (0, 0))
        file.seek(start)
        if end and file.read(min(end - start, 16)) != b"little":
            raise InputError(f"{path} was written on a machine of the other byte order; write it again on one like this")
        return dict(places.values())


def stored_at(path: Path, file: BinaryIO, size: int, record: zipfile.ZipInfo) -> tuple[int, int]:
    """First byte and end of one record's content; InputError unless it lies in the file as it is."""
    if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
        raise InputError(f"{path}: its record {record.filename!r} is compressed, which torch.save never does; write it again")
    if record.filename.endswith("data.pkl") and record.file_size > MAX_PICKLE_BYTES:
        raise InputError(f"{path}: its table of tensors has {record.file_size} bytes, more than {MAX_PICKLE_BYTES}; not one to trust")
    start = size
    if 0 <= record.header_offset <= size - LOCAL_HEADER:
        file.seek(record.header_offset)
        local = file.read(LOCAL_HEADER)
        start = record.header_offset + LOCAL_HEADER + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    if start + record.file_size > size or start == size:
        raise InputError(f"{path} is truncated: its record {record.filename!r} ends beyond the file; copy or download it again")
    return start, start + record.file_size


def load_without_weights(path: Path) -> Any:
    """What the pickle says, with tensors that know their place in the file and hold no bytes."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    found = load_under(path, nullcontext(), torch.device("meta"))
    if any(place_of(value) is None for value in tensors_in(found)):  # older releases of torch note the place under a FakeTensorMode only
        found = load_under(path, FakeTensorMode(), None)
    return found


def load_under(path: Path, mode: AbstractContextManager[Any], device: torch.device | None) -> Any:
    """torch.load with weights_only=True; InputError saying what is in the way."""
    import torch

    try:
        with mode, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd about a file, it either refuses or reads all the same
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # an untrusted file makes it raise many unrelated kinds; all mean: not read
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise InputError(
                f"{path} holds an object of {named[1]}, not only tensors; to load it would run that class's code, so it is "
                "refused. Where you trust the file, keep its weights alone: torch.save(torch.load(path, weights_only=False)['state_dict'], "
                "new_path)"
            ) from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} cannot be read as tensors ({reason}); copy or download it again, or save it again") from None


def tensors_in(found: Any) -> list[torch.Tensor]:
    """The tensors of a state dict, wrapped or not."""
    import torch

    if not isinstance(found, Mapping):
        return []
    wrapped = [found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)]
    return [value for held in (found, *wrapped) for value in held.values() if isinstance(value, torch.Tensor)]


def state_dict(path: Path, found: Any) -> dict[str, torch.Tensor]:
    """The name -> tensor table in what a checkpoint file holds: itself, or under the key where its framework keeps it."""
    import torch

    if isinstance(found, Mapping):
        key = next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        state = found if key is None else found[key]
        if state and all(isinstance(name, str) for name in state):
            stray = next((name for name, value in state.items() if not isinstance(value, torch.Tensor)), None)
            if stray is None:
                return dict(state)
            where = f"under {key!r}, " if key else ""
            raise InputError(
                f"{path}: {where}{stray!r} is {type(state[stray]).__name__}, not a tensor; expected name -> tensor, or a dict that holds "
                f"such a table under one of {', '.join(WRAPPERS)}: save the weights alone"
            )
    raise InputError(f"{path} holds {type(found).__name__} without named tensors; save a state dict: torch.save(model.state_dict(), path)")


def place_of(tensor: torch.Tensor) -> int | None:
    """First byte of a tensor's storage in the file; -1 for a tensor that has none (a sparse one), None where torch did not note it."""
    if str(tensor.layout) != "torch.strided":
        return -1
    place = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    return None if place is None else int(place)


def entry(path: Path, name: str, tensor: torch.Tensor, places: Mapping[int, int]) -> TensorEntry:
    """One tensor's place, checked to be a run of bytes inside a record of the file."""
    check_name(path, name)
    dtype = TORCH_DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise InputError(f"{path}: tensor '{name}' has dtype {tensor.dtype}, which cannot be read; known: {', '.join(TORCH_DTYPES)}")
    place = place_of(tensor)
    if place is None or place not in places:
        raise InputError(f"{path}: tensor '{name}' ({tensor.layout}) has no bytes of its own in the file; save it as a plain tensor")
    if not tensor.is_contiguous():
        raise InputError(
            f"{path}: tensor '{name}' {tuple(tensor.shape)} lies in memory with strides {tensor.stride()}, not row by row; save it again "
            "after .contiguous()"
        )
    start = place + int(tensor.storage_offset()) * ITEM_BYTES[dtype]
    found = TensorEntry(name, dtype, tuple(tensor.shape), str(path), start)
    if tensor.storage_offset() < 0 or start + found.nbytes > places[place]:
        raise InputError(
            f"{path}: tensor '{name}' {found.shape} {dtype} needs bytes {start} to {start + found.nbytes}, its record ends at "
            f"{places[place]}; the file is damaged: copy or download it again"
        )
    return found
