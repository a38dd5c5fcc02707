"""fick-run and libfick.so for a device, by zig: the core, the pipeline around it, and musl where it stands alone."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...ir.errors import UserError
from ..bundle.link import FLAGS, GPU_SOURCES, OLDEST_LIBC, native_folder, zig
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

STRIPPED = ("-s", "-Wl,--build-id=none", "-Wl,--gc-sections")

ALONE = {"library.c"}
"""Sources of the core that only the library inside a bundle has."""


def program(arch: str, cache_folder: Path, libc: str = "musl") -> bytes:
    """fick-run for an architecture, as the runtime names it: one static file with musl, or for the system's "gnu"."""
    alone = ("-static",) if libc == "musl" else ()
    return _built(arch, libc, "program", alone, cache_folder)


def library(arch: str, cache_folder: Path) -> bytes:
    """libfick.so for an architecture: fick.h less what opens a bundle by itself, fick_pipeline.h, and the native
    methods of Pipeline.java.
    """
    return _built(arch, "gnu", "jni", ("-shared", "-Wl,-z,defs"), cache_folder)


def architecture(arch: str) -> Architecture:
    """Raises UserError for one that is not known."""
    if arch not in ARCHITECTURES:
        raise UserError(f"there is no runner for {arch}; there is one for {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[arch]


def sources(*more: str) -> list[Path]:
    """Of the core and the pipeline, and of other folders beside them."""
    native = native_folder()
    core = [path for path in sorted(native.glob("*.c")) if not path.name.startswith(GPU_SOURCES)]
    others = [path for folder in ("pipeline", *more) for path in sorted((native / folder).glob("*.c"))]
    return [path for path in core if path.name not in ALONE] + others


def compiling(target: str, cpu: str) -> list[str]:
    """What zig is told of how to compile them."""
    return ["-target", target, f"-mcpu={cpu}", *OWN_FLAGS]


def headers() -> list[str]:
    native = native_folder()
    return [f"-I{native}", f"-I{native / 'pipeline'}", f"-I{native / 'jni'}", "-I."]


def kept(cache_folder: Path, described: object, paths: list[Path], make: Callable[[Path], None]) -> bytes:
    """What ``make`` leaves as the file "made" of a folder that has unicode_tables.h; from the cache where neither what
    describes it nor a source has changed.
    """
    unicode = tables()
    digest = hashlib.sha256(repr((described, [path.name for path in paths])).encode())
    for text in (unicode.encode(), *(path.read_bytes() for path in [*paths, *native_folder().rglob("*.h")])):
        digest.update(text)
    place = cache_folder / f"runner-{digest.hexdigest()[:16]}"
    if not place.is_file():
        cache_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder) as scratch:
            folder = Path(scratch)
            (folder / "unicode_tables.h").write_text(unicode, encoding="utf-8")
            make(folder)
            (folder / "made").replace(place)
    return place.read_bytes()


def _built(arch: str, libc: str, more: str, linking: tuple[str, ...], cache_folder: Path) -> bytes:
    """Raises RuntimeError with zig's words if it fails."""
    kind = architecture(arch)
    oldest = f".{OLDEST_LIBC}" if libc == "gnu" else ""
    flags = [*compiling(f"{kind.triple}-{libc}{kind.abi}{oldest}", kind.cpu), *STRIPPED, *linking]
    paths = sources(more)

    def make(folder: Path) -> None:
        files = [*map(str, paths), "-lm", "-lpthread", "-o", "made"]
        zig(folder, cache_folder, [*flags, *headers(), *files])

    return kept(cache_folder, flags, paths, make)
