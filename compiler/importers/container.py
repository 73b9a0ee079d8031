"""Read a safetensors file without trusting it: header first, sizes checked before any data, nothing unpickled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from zeroskip.compiler.errors import InputError

__all__ = ["ELEMENT_LIMIT", "Container", "Entry", "read_container"]

ELEMENT_LIMIT = 1 << 28
_HEADER_LIMIT = 1 << 26
_METADATA = "__metadata__"
_ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
_NOT_OURS = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes it around a Python pickle; zeroskip never unpickles files"),
    (b"\x89HDF", "an HDF5 file"),
)
_REMEDY = "export the network with zeroskip.pruning, which writes safetensors"


@dataclass(frozen=True)
class Entry:
    """What the file header says of one tensor; ``begin`` and ``end`` are byte offsets into the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Container:
    """A checked safetensors file: ``metadata`` texts, tensors, and the sha256 over the tensor bytes in header order."""

    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    arrays: Mapping[str, NDArray[Any]]
    sha256: str


def read_container(path: Path) -> Container:
    """Read every tensor of a safetensors file.

    Raises
    ------
    InputError
        If the file cannot be read, is of another kind, truncated or inconsistent, or holds a tensor of an absurd size.
    """
    try:
        with path.open("rb") as file:
            header, data_start = _read_header(path, file)
            metadata, entries = _parse_entries(path, header)
            size = file.seek(0, 2)
            _check_length(path, entries, size - data_start)
            file.seek(0)
            content = file.read()
    except FileNotFoundError as error:
        raise InputError(f"Artifact {str(path)!r} does not exist") from error
    except OSError as error:
        raise InputError(f"Artifact {str(path)!r} cannot be read: {error.strerror}") from error
    try:
        arrays = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"Artifact {str(path)!r} is not a valid safetensors file: {error}; export it again") from error
    digest = hashlib.sha256()
    for entry in entries.values():
        digest.update(content[data_start + entry.begin : data_start + entry.end])
    # The library returns tensors in no fixed order.
    return Container(metadata, entries, {name: arrays[name] for name in entries}, digest.hexdigest())


def _read_header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the JSON header and the offset of the data behind it."""
    start = file.read(9)
    size = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:9] != b"{" or size > _HEADER_LIMIT:
        raise InputError(f"Artifact {str(path)!r} is {_kind_of(start)}; {_REMEDY}")
    text = start[8:] + file.read(size - 1)
    if len(text) < size:
        raise InputError(
            f"Artifact {str(path)!r} is truncated: its header needs {size} bytes, but {len(text)} are there; "
            "copy or export it again"
        )
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"Artifact {str(path)!r} has a damaged safetensors header ({error}); export it again"
        ) from error
    return header, 8 + size


def _kind_of(start: bytes) -> str:
    """Return what a file that is no safetensors file looks like."""
    if len(start) < 9:
        return f"not a safetensors file: it holds only {len(start)} bytes"
    if start[0] == 0x80 and start[1] <= 5:
        return "a Python pickle; zeroskip never unpickles files"
    for magic, kind in _NOT_OURS:
        if start.startswith(magic):
            return kind
    return "not a safetensors file"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, refusing a key that occurs twice."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key!r} occurs twice")
        result[key] = value
    return result


def _parse_entries(path: Path, header: dict[str, Any]) -> tuple[dict[str, str], dict[str, Entry]]:
    """Return the metadata and the checked tensor entries in header order."""
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"Artifact {str(path)!r} has metadata that is not a table of texts; export it again")
    entries: dict[str, Entry] = {}
    for name, fields in header.items():
        if name == _METADATA:
            continue
        entries[name] = _parse_entry(f"Artifact {str(path)!r} has a tensor {name!r}", fields)
    return metadata, entries


def _parse_entry(what: str, fields: Any) -> Entry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{what} without dtype, shape and data offsets; export it again") from error
    if dtype not in _ITEM_BYTES:
        raise InputError(f"{what} of dtype {dtype!r}; known are {', '.join(_ITEM_BYTES)}")
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise InputError(
            f"{what} with shape {shape!r} and data offsets {fields['data_offsets']!r}, which must be natural numbers"
        )
    elements = math.prod(shape)
    if elements > ELEMENT_LIMIT or max(shape, default=0) > ELEMENT_LIMIT:
        raise InputError(
            f"{what} of shape {tuple(shape)}, more than {ELEMENT_LIMIT} elements; no supported device holds it"
        )
    if end - begin != elements * _ITEM_BYTES[dtype]:
        raise InputError(
            f"{what} of shape {tuple(shape)} and dtype {dtype}, {elements * _ITEM_BYTES[dtype]} bytes, "
            f"but {end - begin} bytes of data; export it again"
        )
    return Entry(dtype, tuple(shape), begin, end)


def _check_length(path: Path, entries: Mapping[str, Entry], size: int) -> None:
    """Refuse a file whose data is shorter or longer than its header says."""
    needed = max((entry.end for entry in entries.values()), default=0)
    if size < needed:
        raise InputError(
            f"Artifact {str(path)!r} is truncated: its tensors need {needed} bytes, but {size} are there; "
            "copy or export it again"
        )
    if size > needed:
        raise InputError(
            f"Artifact {str(path)!r} has {size - needed} bytes behind its last tensor; copy or export it again"
        )
