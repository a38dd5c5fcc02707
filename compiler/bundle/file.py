"""Writing a bundle: one zip of stored, page-aligned entries, streamed, atomic and byte for byte reproducible."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import UserError
from ...ir.files import whole_file
from ...targets.compiled import ITEM_BYTES, PackedWeight

FORMAT_VERSION = 1
PAGE_BYTES = 4096
ZIP64_FROM = 0xFFFFFFFF
ELSEWHERE = 0xFFFFFFFF
"""In place of a number of 32 bits: it stands in the zip64 record."""
SAFETENSORS_DTYPES = {
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


@dataclass(frozen=True)
class Entry:
    """A file of the bundle: its size is known before its bytes, which may be produced piece by piece."""

    name: str
    size_bytes: int
    chunks: Callable[[], Iterable[bytes | memoryview]]

    @staticmethod
    def of(name: str, data: bytes) -> Entry:
        return Entry(name, len(data), lambda: [data])


def weights_entry(
    weights: Sequence[PackedWeight],
    weights_bytes: int,
    array: Callable[[str], NDArray[Any]],
    progress: Callable[[int, int], None] | None = None,
) -> Entry:
    """``weights.safetensors``: each tensor packed when its turn comes, at exactly its planned offset.

    Gaps that alignment leaves are named tensors of bytes, because safetensors allows no holes.
    """
    tensors: dict[str, Any] = {}
    position = 0

    def add(name: str, dtype: str, shape: Sequence[int], end: int) -> None:
        nonlocal position
        tensors[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end

    def fill_to(end: int) -> None:
        if position < end:
            add(f"gap.{position}", "U8", [end - position], end)

    for weight in weights:
        fill_to(weight.offset_bytes)
        add(weight.name, SAFETENSORS_DTYPES[weight.dtype], weight.shape, weight.offset_bytes + _size(weight))
    fill_to(weights_bytes)
    header = json.dumps(tensors, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % 64)

    def chunks() -> Iterator[bytes | memoryview]:
        yield struct.pack("<Q", len(header)) + header
        written = 0
        for weight in weights:
            yield b"\0" * (weight.offset_bytes - written)
            packed = np.ascontiguousarray(weight.packing.pack(array(weight.source)))
            if weight.dtype == "float16" and not np.isfinite(packed).all():
                raise UserError(
                    f"weight {weight.source} leaves the range of float16, in which the bundle stores it; compile the "
                    "model anew with it, so that it stays in float32"
                )
            if packed.nbytes != _size(weight):
                raise AssertionError(f"weight {weight.name} packs to {packed.nbytes} bytes")
            yield packed.reshape(-1).view(np.uint8).data
            written = weight.offset_bytes + packed.nbytes
            if progress:
                progress(written, weights_bytes)
        yield b"\0" * (weights_bytes - written)

    return Entry("weights.safetensors", 8 + len(header) + weights_bytes, chunks)


def _size(weight: PackedWeight) -> int:
    return int(np.prod(weight.shape, dtype=np.int64)) * ITEM_BYTES[weight.dtype]


def write_bundle(path: Path, entries: Sequence[Entry], manifest: dict[str, Any]) -> None:
    """Write ``entries`` and, last, ``manifest.json`` with the SHA-256 and size of each.

    The file appears whole or not at all; a link stays a link. Raises UserError where the folder cannot be written
    or is full.
    """
    try:
        with whole_file(path) as file:
            _write_zip(file, entries, manifest)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space or write elsewhere" if full else "give a folder that can be written"
        raise UserError(f"cannot write {path}: {error.strerror}; {advice}") from None


def _write_zip(file: BinaryIO, entries: Sequence[Entry], manifest: dict[str, Any]) -> None:
    directory: list[bytes] = []
    facts: dict[str, Any] = {}
    for entry in entries:
        central, digest = _write_entry(file, entry)
        directory.append(central)
        facts[entry.name] = {"sha256": digest, "bytes": entry.size_bytes}
    text = json.dumps({**manifest, "entries": facts}, indent=1, ensure_ascii=True).encode()
    directory.append(_write_entry(file, Entry.of("manifest.json", text))[0])
    start = file.tell()
    for central in directory:
        file.write(central)
    size = file.tell() - start
    if start >= ZIP64_FROM:
        end64 = file.tell()
        file.write(
            struct.pack(
                "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, len(directory), len(directory), size, start
            )
        )
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end64, 1))
    count = len(directory)
    file.write(
        struct.pack(
            "<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, ELSEWHERE if start >= ZIP64_FROM else start, 0
        )
    )


def _write_entry(file: BinaryIO, entry: Entry) -> tuple[bytes, str]:
    """Write one stored entry whose data starts on a page; returns its directory record and its SHA-256."""
    offset = file.tell()
    name = entry.name.encode()
    large = entry.size_bytes >= ZIP64_FROM
    extra = struct.pack("<HHQQ", 1, 16, entry.size_bytes, entry.size_bytes) if large else b""
    data_at = offset + 30 + len(name) + len(extra) + 4
    padding = -data_at % PAGE_BYTES
    extra += struct.pack("<HH", 0xFFFF, padding) + b"\0" * padding  # an extra field of no meaning: alignment
    file.write(_local_header(name, extra, entry.size_bytes, 0, large))
    digest, checksum, size = hashlib.sha256(), 0, 0
    for chunk in entry.chunks():
        file.write(chunk)
        digest.update(chunk)
        checksum = zlib.crc32(chunk, checksum)
        size += len(chunk)
    if size != entry.size_bytes:
        raise AssertionError(f"entry {entry.name} has {size} bytes, not {entry.size_bytes}")
    end = file.tell()
    file.seek(offset)
    file.write(_local_header(name, extra, size, checksum, large))
    file.seek(end)
    wide: list[int] = []
    sizes, at = (size, size), offset
    if large:
        wide += [size, size]
        sizes = (ELSEWHERE, ELSEWHERE)
    if offset >= ZIP64_FROM:
        wide.append(offset)
        at = ELSEWHERE
    field = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    needed = 45 if wide else 20
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", needed, needed, 0, 0, 0, 0x21, checksum, *sizes, len(name), len(field), 0, 0, 0,
        0, at,
    )  # fmt: skip
    return central + name + field, digest.hexdigest()


def _local_header(name: bytes, extra: bytes, size: int, checksum: int, large: bool) -> bytes:
    stated = ELSEWHERE if large else size
    # 0x21 is 1 January 1980: the date is a constant, so that the same input gives the same bytes.
    return (
        struct.pack(
            "<4s5H3I2H",
            b"PK\3\4",
            45 if large else 20,
            0,
            0,
            0,
            0x21,
            checksum,
            stated,
            stated,
            len(name),
            len(extra),
        )
        + name
        + extra
    )
