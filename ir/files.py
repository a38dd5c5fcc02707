"""Files: small ones that people write, and those that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UserError

LARGEST_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """Of a file that somebody wrote by hand. Raises OSError, and ValueError for what such a file would not hold."""
    with path.open("rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise ValueError("it is larger than 1 MiB")
    return data.decode("utf-8-sig")  # some editors begin a file with a mark


def check_place(path: Path, source: Path | None = None) -> None:
    """Before minutes of work, not after them: raises UserError where no file can be written, or would be over the
    ``source`` that it is made of.
    """
    try:
        if not path.parent.is_dir() or (path.exists() and not path.is_file()):
            raise UserError(f"cannot write {path}: give the path of a file in a folder that exists")
        descriptor, partial = _beside(Path(os.path.realpath(path)))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place") from None
    os.close(descriptor)
    os.unlink(partial)
    if source is not None:
        check_apart(path, source)


def check_apart(path: Path, source: Path) -> None:
    """Raises UserError for a place to write that is what is read."""
    if source.exists() and os.path.realpath(path) == os.path.realpath(source):
        raise UserError(f"cannot write {path}: it is what is read; give another place")


def check_folder(path: Path) -> None:
    """The same of a folder that is made where it does not exist."""
    if any(one.exists() and not one.is_dir() for one in (path, *path.parents)):
        raise UserError(f"cannot write into {path}: a file is in its place; give the path of a folder")


def check_new_folder(path: Path) -> None:
    """The same of one that must not be there yet."""
    if path.exists() or not path.parent.is_dir():
        raise UserError(f"cannot write {path}: give the name of a new folder in one that exists")


def write_whole(path: Path, data: bytes) -> None:
    """See ``whole_file``."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path) -> Generator[BinaryIO]:
    """Written beside the place and moved there in the end, so that an interruption leaves no torn file.

    A link stays a link: what it points to is replaced. Raises OSError, also for what is no file.
    """
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file")
    descriptor, partial = _beside(place)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, place)
    except BaseException:
        os.unlink(partial)
        raise


def _beside(place: Path) -> tuple[int, str]:
    """A new file, open, in the same folder."""
    return tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=".part")
