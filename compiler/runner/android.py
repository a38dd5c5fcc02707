"""libfick.so for Android, by zig, which has neither Android's headers nor its libraries.

The sources are compiled with musl's headers and linked with none of musl: against libraries that are names alone, of
functions that every Android from API level 24 on has. Where the two do not agree (on 64-bit processors in little, on
32-bit ones in the sizes of times and files and in how floats are handed over), native/android leads from one to the
other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...ir.errors import UserError
from ..bundle.link import zig
from .build import STRIPPED, architecture, compiling, headers, kept, sources

FUNCTIONS = {
    "libc.so": """
        __errno __sched_cpucount _exit abort bsearch calloc clock_gettime close fchmod fclose ferror fprintf
        fputc fputs free fstat fwrite getauxval getpagesize madvise malloc memchr memcmp memcpy memmove
        memset mkstemp mmap mmap64 mprotect munmap open open_memstream posix_memalign pthread_attr_destroy
        pthread_attr_init pthread_attr_setstacksize pthread_cond_broadcast pthread_cond_destroy
        pthread_cond_init pthread_cond_wait pthread_create pthread_getspecific pthread_join
        pthread_key_create pthread_key_delete pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock
        pthread_mutex_unlock pthread_setspecific qsort read realloc rename sched_getaffinity sched_yield
        snprintf strchr strcmp strcpy strcspn strerror strlen strncmp strrchr strspn strtod strtoll strtoull
        syscall unlink vsnprintf write
    """,
    "libm.so": """
        ceilf cos cosf erf erff exp exp2f expf fabsf floorf fmaf fmaxf fminf fmod fmodf log log2f logf
        nearbyintf pow powf rint rintf roundf sin sinf sqrt sqrtf tanf tanh tanhf truncf
    """,
}
"""By the library that has them (bionic's libc.map.txt and libm.map.txt): what a source may call, and no more."""

LIKE_ANDROIDS = ("-fvisibility=hidden", "-femulated-tls", "-fno-builtin-bcmp", "-fno-stack-protector")
"""Thread-local variables as before Android 10, and no calls of functions that it lacks."""

SOFT = "erf erff nearbyintf pow powf rint rintf tanh tanhf"
"""What is taken of libm where floats are handed over in two ways (native/android/soft_floats.h): by name alone, for a
compiler's own idea of these functions would miss the detour. All else of it comes with the compiler.
"""


@dataclass(frozen=True)
class Abi:
    """What Android calls an architecture, how zig calls one without a C library, what compiling and linking are told
    besides, and the functions that there are.
    """

    name: str
    system: str = "none"
    compiling: tuple[str, ...] = ()
    linking: tuple[str, ...] = ()
    functions: Mapping[str, str] = field(default_factory=lambda: FUNCTIONS)


ABIS = {
    "aarch64": Abi("arm64-v8a"),
    "armv7l": Abi(
        "armeabi-v7a",
        "eabihf",
        ("-include", "android/soft_floats.h", *(f"-fno-builtin-{name}" for name in SOFT.split())),
        ("-rtlib=compiler-rt",),
        {**FUNCTIONS, "libm.so": SOFT},
    ),
    "x86_64": Abi("x86_64"),
}
"""Phones of 64 and of 32 bits, and the emulator on a PC."""

PAGE_BYTES = 16384
"""Android 15 has pages of 16 KiB on some phones; one that fits these fits those of 4."""


def library(arch: str, cache_folder: Path) -> bytes:
    """libfick.so for apps: fick_pipeline.h and the native methods of Pipeline.java.

    Raises UserError for an architecture that phones do not have, RuntimeError with zig's words if it fails.
    """
    kind = architecture(arch)
    if arch not in ABIS:
        raise UserError(f"there is no library for Android on {arch}; there is one for {', '.join(ABIS)}")
    paths = sources("jni", "android")
    abi = ABIS[arch]
    flags = [*compiling(f"{kind.triple}-musl{kind.abi}", kind.cpu), *LIKE_ANDROIDS, *abi.compiling]
    linking = [
        "-target", f"{kind.triple}-{abi.system}", f"-mcpu={kind.cpu}", "-shared", "-nostdlib", *STRIPPED, "-Wl,-z,defs",
        f"-Wl,-z,max-page-size={PAGE_BYTES}", "-Wl,-soname,libfick.so",
    ]  # fmt: skip

    def make(folder: Path) -> None:
        for name, functions in abi.functions.items():
            _names_alone(folder, cache_folder, linking[:4], name, functions)
        zig(folder, cache_folder, [*flags, *headers(), "-c", *map(str, paths), "-o", "all.o"])
        zig(folder, cache_folder, [*linking, "all.o", *abi.functions, *abi.linking, "-o", "made"])

    return kept(cache_folder, (flags, linking, abi), paths, make)


def _names_alone(folder: Path, cache_folder: Path, linking: list[str], name: str, functions: str) -> None:
    """A library that says what another one has."""
    lines = [f".globl {one}\n.type {one}, %function\n{one}:\n" for one in functions.split()]
    (folder / f"{name}.s").write_text(".text\n" + "".join(lines), encoding="utf-8")
    zig(folder, cache_folder, [*linking, "-nostdlib", f"-Wl,-soname,{name}", f"{name}.s", "-o", name])
