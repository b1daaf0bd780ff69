"""Tensors and a JSON header in one safetensors file, under one hash; written atomically, read without trust.

safetensors alone reads a file with a flipped bit without a word, hence the hash. What the file says about
sizes is checked before anything of that size is allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_KEY, _HASH = "equitorch", "sha256"  # our two entries in safetensors' own metadata
_HEADER_LIMIT = 16 * 2**20  # bytes
_AGAIN = "copy it again from its source"


def write_container(
    path: str | PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors with a header of plain JSON values; their dtypes are kept.

    Raises:
        ValueError: if the header holds what JSON cannot.
    """
    from safetensors.torch import save

    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the header of {path} must be plain JSON ({error}): use numbers, strings, lists, dicts"
        ) from None
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, save(own, {_KEY: text, _HASH: _digest(text, own)}))


def read_container(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`write_container` wrote: the header and the tensors, on the CPU.

    Raises:
        ValueError: if the file is of another kind, truncated, or changed in a single bit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    data = path.read_bytes()
    text, stored = _metadata(path, data, len(data))
    header = _json(path, text.encode())
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); {_AGAIN}") from None
    if _digest(text, tensors) != stored:
        raise ValueError(f"{path} is damaged: its contents do not match its sha256; {_AGAIN}")
    # cloned: a view would keep the whole file in memory, and need not be aligned
    return header, {name: value.clone() for name, value in tensors.items()}


def peek_container(path: str | PathLike[str]) -> dict[str, Any]:
    """The header alone, and the ``"sha256"`` that the file claims; its tensors are neither read nor checked.

    Raises:
        ValueError: if the file is of another kind or truncated.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) == 8:
            start += file.read(min(struct.unpack("<Q", start)[0], _HEADER_LIMIT))
    text, stored = _metadata(path, start, path.stat().st_size)
    return _json(path, text.encode()) | {"sha256": stored}


def write_atomically(path: str | PathLike[str], data: bytes) -> None:
    """Replace a file at once: whoever reads it, even after a crash, finds the old bytes or the new ones."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the folder's entry, too, must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _metadata(path: Path, start: bytes, size: int) -> tuple[str, str]:
    """The header's text and the hash, from the first bytes of a file of the given size."""
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if start[8:9] != b"{" or length > _HEADER_LIMIT:
        pickled = start[:2] == b"PK" or start[:1] == b"\x80"
        kind = (
            "a PyTorch pickle, which can run code when it is read; never do that with a file you do not trust"
            if pickled
            else "another kind of file"
        )
        raise ValueError(f"{path} is no equitorch file but {kind if size else 'empty'}")
    if size < 8 + length:
        raise ValueError(f"{path} is truncated: its header needs {8 + length} bytes, it has {size}; {_AGAIN}")
    index = _json(path, start[8 : 8 + length])
    metadata = index.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not {_KEY, _HASH} <= metadata.keys():
        raise ValueError(
            f"{path} is a safetensors file without an equitorch header; use one written by Potential.save"
        )
    try:
        end = max((entry["data_offsets"][1] for entry in index.values()), default=0)
        elements = [math.prod(entry["shape"]) for entry in index.values()]
        sound = isinstance(end, int) and all(isinstance(n, int) and 0 <= n <= size for n in elements)
    except (TypeError, KeyError, IndexError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is damaged: its table of tensors makes no sense; {_AGAIN}")
    if size != 8 + length + end:
        word = "truncated" if size < 8 + length + end else "damaged"
        raise ValueError(
            f"{path} is {word}: its tensors need {8 + length + end} bytes, it has {size}; {_AGAIN}"
        )
    return str(metadata[_KEY]), str(metadata[_HASH])


def _json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: its header is no JSON ({type(error).__name__}); {_AGAIN}"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: its header is no JSON object; {_AGAIN}")
    return value


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header's text, then of each tensor's name, dtype, shape and bytes, by name."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"\0{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()
