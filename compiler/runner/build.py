"""fick-run and libfick.so for a device, by zig: the core, the pipeline around it, and musl where it stands alone."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...ir.errors import UserError
from ..link import FLAGS, GPU_SOURCES, OLDEST_LIBC, native_folder, zig
from .unicode import tables


@dataclass(frozen=True)
class Architecture:
    """A kind of processor: its triple less the C library, the least of its cores, and the end of the library's name."""

    triple: str
    cpu: str
    abi: str = ""


ARCHITECTURES = {
    "aarch64": Architecture("aarch64-linux", "generic"),
    "armv7l": Architecture("arm-linux", "generic+v7a+neon+vfp4", "eabihf"),
    "x86_64": Architecture("x86_64-linux", "x86_64"),
}

OWN_FLAGS = (
    *(flag for flag in FLAGS if flag != "-fvisibility=hidden"),
    "-Os", "-ffunction-sections", "-fdata-sections", "-ffp-contract=off",
)  # fmt: skip
"""Sums of products are rounded as in Python: twice. All of libfick.so may be called: tests do."""

ALONE = {"library.c"}
"""Sources of the core that only the library inside a bundle has."""


LINKING = {"musl": ("-static", "-Wl,--gc-sections"), "gnu": ("-Wl,--gc-sections",)}


def program(arch: str, cache_folder: Path, libc: str = "musl") -> bytes:
    """fick-run for an architecture, as the runtime names it: one static file with musl, or for the system's "gnu"."""
    return _built(arch, libc, ("program",), LINKING[libc], cache_folder)


def library(arch: str, cache_folder: Path) -> bytes:
    """libfick.so for an architecture: fick.h less what opens a bundle by itself, and fick_pipeline.h."""
    shared = ("-shared", "-Wl,-z,defs", "-Wl,--gc-sections")
    return _built(arch, "gnu", (), shared, cache_folder)


def _built(arch: str, libc: str, more: Sequence[str], linking: Sequence[str], cache_folder: Path) -> bytes:
    """Raises UserError for an architecture that is not known, RuntimeError with zig's words if it fails."""
    if arch not in ARCHITECTURES:
        raise UserError(f"there is no runner for {arch}; there is one for {', '.join(ARCHITECTURES)}")
    kind, native = ARCHITECTURES[arch], native_folder()
    oldest = f".{OLDEST_LIBC}" if libc == "gnu" else ""
    core = sorted(native.glob("*.c"))
    sources = [path for path in core if path.name not in ALONE and not path.name.startswith(GPU_SOURCES)]
    folders = [native / folder for folder in ("pipeline", *more)]
    sources += [path for folder in folders for path in sorted(folder.glob("*.c"))]
    flags = [
        "-target", f"{kind.triple}-{libc}{kind.abi}{oldest}", f"-mcpu={kind.cpu}", *OWN_FLAGS,
        f"-I{native}", f"-I{native / 'pipeline'}", "-I.",
    ]  # fmt: skip
    digest = hashlib.sha256(repr((flags[:-3], linking, [path.name for path in sources])).encode())
    unicode = tables()
    for text in (unicode.encode(), *(path.read_bytes() for path in [*sources, *native.rglob("*.h")])):
        digest.update(text)
    kept = cache_folder / f"runner-{digest.hexdigest()[:16]}"
    if not kept.is_file():
        cache_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder) as scratch:
            folder = Path(scratch)
            (folder / "unicode_tables.h").write_text(unicode, encoding="utf-8")
            final = [
                "-s",
                "-Wl,--build-id=none",
                *linking,
                "-o",
                "made",
                *map(str, sources),
                "-lm",
                "-lpthread",
            ]
            zig(folder, cache_folder, [*flags, *final])
            (folder / "made").replace(kept)
    return kept.read_bytes()
