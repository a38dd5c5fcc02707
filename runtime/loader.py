"""Open a bundle: check what can be checked before any of its code runs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FickError

FORMAT_VERSION = 1
LIBRARY = "code/libmodel.so"
LARGEST_ENTRY_BYTES = 1 << 30
"""More than this of code or manifest is not believed."""


@dataclass(frozen=True)
class Checked:
    """A bundle whose manifest and library are sound. The core checks the rest when it opens the file."""

    path: Path
    manifest: dict[str, Any]
    library: bytes


def check_bundle(path: str | os.PathLike[str]) -> Checked:
    """Read and check a bundle's manifest and library.

    Raises FickError: no such file, not a bundle, damaged, of a newer format, or for another processor.
    """
    file = Path(path)
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = _manifest(file, _entry(archive, "manifest.json"))
            _check_target(file, manifest)
            library = _entry(archive, LIBRARY)
    except FileNotFoundError:
        raise FickError(f"{file}: no such file; give the path of a .fick bundle") from None
    except IsADirectoryError:
        raise FickError(f"{file} is a folder; give the path of a .fick bundle") from None
    except OSError as error:
        raise FickError(f"cannot read {file}: {error.strerror}") from None
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise FickError(f"{file} is not a fick bundle or is damaged ({error}); copy or compile it anew") from None
    wanted = manifest["entries"].get(LIBRARY, {})
    if not isinstance(wanted, dict) or hashlib.sha256(library).hexdigest() != wanted.get("sha256"):
        raise FickError(f"entry {LIBRARY} of {file} is damaged (its SHA-256 differs); copy it anew", 5)
    return Checked(file, manifest, library)


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > LARGEST_ENTRY_BYTES or info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"entry {name} is compressed or too large")
    return archive.read(info)


def _manifest(file: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise FickError(f"{file} is not a fick bundle: its manifest is not JSON; copy or compile it anew") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "fick-bundle":
        raise FickError(f"{file} is not a fick bundle: its manifest does not say so; give a .fick file")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FickError(
            f"{file} has format version {version!r} and this runtime reads up to {FORMAT_VERSION}; update fick", 4
        )
    if not isinstance(manifest.get("entries"), dict) or not isinstance(manifest.get("target"), dict):
        raise FickError(f"{file} is damaged: its manifest lacks entries and target; copy or compile it anew")
    return manifest


def _check_target(file: Path, manifest: dict[str, Any]) -> None:
    arch, machine = manifest["target"].get("arch"), platform.machine()
    if arch != machine:
        raise FickError(f"{file} is compiled for {arch} and this machine is {machine}; compile it for this one", 6)
