"""The library inside a bundle: what it needs, what it shows, and where its C builds."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fick.compiler.bundle.link import MOST_OPERANDS, core_objects, link
from fick.ir.errors import UserError
from fick.runtime import native_api as api
from fick.targets.compiled import Compiled

from . import tiny

HEADER = Path(__file__).parents[2] / "runtime" / "native" / "fick.h"


def test_the_library_needs_libc_libm_and_threads_alone(
    program: Compiled, core_cache: Path, tmp_path: Path
) -> None:
    library = tmp_path / "libmodel.so"
    library.write_bytes(link({"tiny": program}, tiny.PROGRAM_ID, core_cache))
    needed, undefined, exported = dynamic_tables(library.read_bytes())
    assert needed <= {
        "libc.so.6",
        "libm.so.6",
        "libpthread.so.0",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    }
    # A program with a core of its own attaches to the plan (fick_plan.h); all else is the interface.
    assert exported == {*api.SIGNATURES, "fick_attach"}
    declared = set(re.findall(r"^FICK_API [^;(]*?(fick_\w+)\(", HEADER.read_text(), re.MULTILINE))
    assert declared == set(api.SIGNATURES)
    assert not {
        name for name in undefined if name.startswith(("TVM", "__TVM", "__tvm", "_Z", "__zig", "__ubsan"))
    }


def dynamic_tables(data: bytes) -> tuple[set[str], set[str], set[str]]:
    """(NEEDED libraries, undefined symbols, defined symbols) of a little-endian shared library."""
    wide = data[4] == 2
    size, at_section = (24, 6) if wide else (16, 14)

    def text(at: int) -> str:
        return data[at : data.index(b"\0", at)].decode()

    sections = _sections(data)
    symbols, length, strings_index = next(entry[1:] for entry in sections if entry[0] == 11)
    strings = sections[strings_index][1]
    needed = {text(strings + value) for tag, value in dynamic_entries(data) if tag == 1}
    undefined, defined = set[str](), set[str]()
    for at in range(symbols + size, symbols + length, size):
        (name,), (section,) = (
            struct.unpack_from("<I", data, at),
            struct.unpack_from("<H", data, at + at_section),
        )
        (defined if section else undefined).add(text(strings + name))
    return needed, undefined, defined


def dynamic_entries(data: bytes) -> list[tuple[int, int]]:
    """(tag, value) of a shared library's dynamic section."""
    start, length, _ = next(entry[1:] for entry in _sections(data) if entry[0] == 6)
    return list(struct.iter_unpack("<QQ" if data[4] == 2 else "<II", data[start : start + length]))


def _sections(data: bytes) -> list[tuple[int, int, int, int]]:
    """(kind, offset, size, linked section) of each, of a library of 64 or of 32 bits."""
    wide = data[4] == 2
    place, counted, form = ("<Q", 58, "<4xI16xQQI") if wide else ("<I", 46, "<4xI8xIII")
    (start,) = struct.unpack_from(place, data, 40 if wide else 32)
    size, count = struct.unpack_from("<HH", data, counted)
    return [struct.unpack_from(form, data, start + size * index) for index in range(count)]  # type: ignore[misc]


def test_the_header_is_c_and_cxx(tmp_path: Path) -> None:
    for name, standard in (("a.c", "-std=c11"), ("a.cpp", "-std=c++17")):
        (tmp_path / name).write_text(
            '#include "fick.h"\nint main(void) { return fick_abi_version() == 0; }\n'
        )
        compiler = "c++" if name == "a.cpp" else "cc"
        command = [sys.executable, "-m", "ziglang", compiler, standard, "-Wall", "-Wextra", "-Werror", "-c"]
        subprocess.run([*command, f"-I{HEADER.parent}", name], cwd=tmp_path, check=True, timeout=120)


def test_the_core_builds_for_arm(core_cache: Path) -> None:
    objects = core_objects("aarch64", "aarch64-linux-gnu.2.17", core_cache)
    assert {path.read_bytes()[18:20] for path in objects} == {(183).to_bytes(2, "little")}  # EM_AARCH64


def test_a_call_of_more_tensors_than_the_core_has_room_for(program: Compiled, core_cache: Path) -> None:
    assert f"FICK_MAX_OPERANDS {MOST_OPERANDS}\n" in (HEADER.parent / "fick_plan.h").read_text()
    first, *others = program.variants["full"]

    def wide(count: int) -> Compiled:
        call = replace(first, operands=first.operands[:1] * count)
        return replace(program, variants={**program.variants, "full": (call, *others)})

    assert link({"tiny": wide(MOST_OPERANDS)}, tiny.PROGRAM_ID, core_cache)
    with pytest.raises(UserError, match=f"node {first.node} needs a kernel of 65 tensors"):
        link({"tiny": wide(MOST_OPERANDS + 1)}, tiny.PROGRAM_ID, core_cache)
