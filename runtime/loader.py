"""Open a bundle: check what can be checked before any of its code runs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import FickError

FORMAT_VERSION = 1
LIBRARY = "code/libmodel.so"
NEWER_FORMAT, DAMAGED, OTHER_PROCESSOR = 4, 5, 6
LARGEST_ENTRY_BYTES = 1 << 30
"""More than this of code or manifest is not believed."""


@dataclass(frozen=True)
class Checked:
    """A bundle whose manifest and asked-for entries are sound. The core checks the rest when it opens the file."""

    path: Path
    manifest: dict[str, Any]
    entries: dict[str, bytes]


def check_bundle(path: str | os.PathLike[str], names: Sequence[str] = (LIBRARY,)) -> Checked:
    """Read and check a bundle's manifest and the entries called ``names``.

    Raises FickError: no such file, not a bundle, damaged, or of a newer format.
    """
    file = Path(path)
    if file.exists() and not file.is_file() and not file.is_dir():
        raise FickError(f"{file} is not a regular file; give the path of a .fick bundle")
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = _manifest(file, _entry(archive, "manifest.json"))
            entries = {name: _entry(archive, name) for name in names}
    except FileNotFoundError:
        raise FickError(f"{file}: no such file; give the path of a .fick bundle") from None
    except IsADirectoryError:
        raise FickError(f"{file} is a folder; give the path of a .fick bundle") from None
    except OSError as error:
        raise FickError(f"cannot read {file}: {error.strerror}") from None
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise FickError(
            f"{file} is not a fick bundle or is damaged ({error}); copy or compile it anew"
        ) from None
    for name, data in entries.items():
        wanted: dict[str, Any] | None = manifest["entries"].get(name)
        if not isinstance(wanted, dict) or hashlib.sha256(data).hexdigest() != wanted.get("sha256"):
            raise FickError(f"entry {name} of {file} is damaged (its SHA-256 differs); copy it anew", DAMAGED)
    return Checked(file, manifest, entries)


def require_this_machine(bundle: Checked) -> None:
    """Raises FickError for a bundle that is compiled for another architecture."""
    arch, machine = bundle.manifest["target"].get("arch"), platform.machine()
    if arch != machine:
        raise FickError(
            f"{bundle.path} is compiled for {arch} and this machine is {machine}; compile it for this one",
            OTHER_PROCESSOR,
        )


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > LARGEST_ENTRY_BYTES or info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"entry {name} is compressed or too large")
    return archive.read(info)


def _manifest(file: Path, data: bytes) -> dict[str, Any]:
    try:
        parsed: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise FickError(
            f"{file} is not a fick bundle: its manifest is not JSON; copy or compile it anew"
        ) from None
    manifest = cast(dict[str, Any], parsed if isinstance(parsed, dict) else {})
    if manifest.get("format") != "fick-bundle":
        raise FickError(f"{file} is not a fick bundle: its manifest does not say so; give a .fick file")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FickError(
            f"{file} has format version {version!r} and this runtime reads up to {FORMAT_VERSION}; update fick",
            NEWER_FORMAT,
        )
    if not isinstance(manifest.get("entries"), dict) or not isinstance(manifest.get("target"), dict):
        raise FickError(f"{file} is damaged: its manifest lacks entries and target; copy or compile it anew")
    return manifest
