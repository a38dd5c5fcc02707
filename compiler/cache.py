"""Where the work of earlier calls is kept, and under which names."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from .frontends import Source

PARTS = ("ir", "passes", "targets", "hwmodel", "compiler", "runtime")
LIBRARIES = (
    "apache-tvm", "diffusers", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "torch", "transformers", "ziglang",
)  # fmt: skip
"""What a result depends on besides its input."""


def cache_folder() -> Path:
    """FICK_CACHE, or fick/ in the user's cache folder."""
    given = os.environ.get("FICK_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fick"


def digest(components: Mapping[str, Source], settings: Sequence[object]) -> str | None:
    """A name for what this code makes of these components with these settings, by content.

    None where nothing tells the content of a component.
    """
    total = hashlib.sha256(repr((_code_digest(), settings)).encode())
    for name, source in components.items():
        contents = source.contents()
        if contents is None:
            return None
        kind, files = contents
        total.update(repr((name, kind, len(files))).encode())
        for path in files:
            facts = path.stat()
            total.update(
                _file_digest(path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            )
    return total.hexdigest()[:32]


@cache
def _file_digest(path: Path, *changes: int) -> bytes:
    """SHA-256 of a file that is read once, however many digests it is a part of, unless one of ``changes`` differs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@cache
def _code_digest() -> str:
    total = hashlib.sha256()
    for name in LIBRARIES:
        try:
            total.update(importlib.metadata.version(name).encode())
        except importlib.metadata.PackageNotFoundError:
            total.update(b"-")
    for part in PARTS:
        spec = importlib.util.find_spec(f"fick.{part}")
        assert spec is not None and spec.origin is not None
        for path in sorted(Path(spec.origin).parent.rglob("*")):
            if path.suffix in (".py", ".c", ".h", ".toml"):
                total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()
