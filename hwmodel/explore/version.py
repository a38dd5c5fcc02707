"""Which fick this is: results of another one are neither mixed with its own nor taken for them."""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

ROOTS = ("ir", "hwmodel")
"""Folders whose code what a design costs follows from."""


@cache
def version() -> str:
    """The released version, and a digest of the code and the tables that measures follow from."""
    total = hashlib.sha256()
    here = Path(__file__).resolve().parents[2]
    for root in ROOTS:
        for path in sorted((here / root).rglob("*")):
            if path.suffix in (".py", ".toml") and "report" not in path.parts:
                total.update(path.name.encode() + path.read_bytes())
    try:
        released = importlib.metadata.version("fick")
    except importlib.metadata.PackageNotFoundError:
        released = "source"
    return f"{released}+{total.hexdigest()[:12]}"
