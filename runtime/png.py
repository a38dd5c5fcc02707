"""PNG files (ISO/IEC 15948) from pixels, with nothing but zlib."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import FickError


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG of ``pixels``, [height, width, 3]."""
    height, width, _ = pixels.shape
    # Every row is preceded by its filter: none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, 3 * width)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def save(pixels: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
    """Write a PNG, whole or not at all. Raises FickError where it cannot be written."""
    place, partial = Path(path), ""
    try:
        descriptor, partial = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(pixels))
        os.chmod(partial, 0o644)
        os.replace(partial, place)
    except OSError as error:
        if os.path.exists(partial):
            os.unlink(partial)
        raise FickError(f"cannot write {place}: {error.strerror}; give another place") from None
