"""Bundles that are damaged, too new or for another machine: one sentence each, from Python and from C."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.fuzz_bundle import Guarded, fix_checksums, replace_manifest
from fick.runtime import FickError, load
from fick.runtime import native_api as api
from fick.runtime.loader import LIBRARY, check_bundle
from fick.targets.compiled import Compiled

from . import tiny

FORMAT, VERSION, DAMAGED, OTHER = 3, 4, 5, 6


@pytest.fixture(scope="session")
def pristine(bundle: Path) -> bytes:
    return bundle.read_bytes()


@pytest.fixture(scope="session")
def check(bundle: Path) -> Callable[[bytes], tuple[int, str]]:
    core = api.load_library(check_bundle(bundle).entries[LIBRARY])
    memory = Guarded(4 * bundle.stat().st_size)
    return lambda data: (core.fick_check(memory.place(data, 64), len(data)), core.fick_last_error().decode())


def loading(path: Path, data: bytes) -> FickError:
    path.write_bytes(data)
    with pytest.raises(FickError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return caught.value


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_the_whole_bundle_passes(pristine: bytes, check: Callable[[bytes], tuple[int, str]]) -> None:
    assert check(pristine)[0] == 0


@pytest.mark.parametrize("entry", ["manifest.json", "weights.safetensors", "code/libmodel.so"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_byte(
    pristine: bytes, check: Callable[[bytes], tuple[int, str]], tmp_path: Path, entry: str, where: float
) -> None:
    start, size = tiny.offsets(pristine)[entry]
    damaged = flipped(pristine, start + int(where * size))
    status, said = check(damaged)
    assert status == DAMAGED
    assert said.startswith(f"entry {entry} of the bundle is damaged")
    assert "damaged" in str(loading(tmp_path / "x.fick", damaged))


def test_every_flipped_byte_is_noticed_or_changes_nothing(
    pristine: bytes, check: Callable[[bytes], tuple[int, str]]
) -> None:
    """What is left unnoticed lies in padding and in fields of the zip that nobody reads: outside every entry."""
    spans = [(start, start + size) for start, size in tiny.offsets(pristine).values()]
    unnoticed = [at for at in range(0, len(pristine), 17) if check(flipped(pristine, at))[0] == 0]
    assert unnoticed
    assert not [at for at in unnoticed if any(start <= at < stop for start, stop in spans)]


@pytest.mark.parametrize("kept", [0, 1, 21, 22, 4096, 0.5, 0.9, -1])
def test_truncated(
    pristine: bytes, check: Callable[[bytes], tuple[int, str]], tmp_path: Path, kept: float
) -> None:
    size = int(kept * len(pristine)) if isinstance(kept, float) else kept % len(pristine)
    status, said = check(pristine[:size])
    assert status == FORMAT
    assert said.startswith("the file is not a fick bundle: its ")
    assert "is not a fick bundle or is damaged" in str(loading(tmp_path / "x.fick", pristine[:size]))


def with_manifest(pristine: bytes, **changed: object) -> bytes:
    """The bundle with other manifest fields, and everything else as a writer would have it."""
    return replace_manifest(pristine, json.dumps({**tiny.read_manifest(pristine), **changed}).encode())


def test_a_newer_version(pristine: bytes, check: Callable[[bytes], tuple[int, str]], tmp_path: Path) -> None:
    newer = with_manifest(pristine, format_version=2)
    sentence = "format version 2 and this runtime reads up to 1; update fick"
    status, said = check(newer)
    assert (status, said) == (VERSION, f"the bundle has {sentence}")
    error = loading(tmp_path / "x.fick", newer)
    assert (error.code, str(error)) == (VERSION, f"{tmp_path}/x.fick has {sentence}")


@pytest.mark.parametrize("version", [None, "1", -1, 1.5, [], 10**30])
def test_a_version_that_is_none(
    pristine: bytes, check: Callable[[bytes], tuple[int, str]], tmp_path: Path, version: object
) -> None:
    changed = with_manifest(pristine, format_version=version)
    assert check(changed)[0] in (FORMAT, VERSION)
    assert loading(tmp_path / "x.fick", changed).code in (1, FORMAT, VERSION)


def test_another_architecture(program: Compiled, core_cache: Path, tmp_path: Path) -> None:
    target = {"name": "phone", "arch": "riscv64", "cpu_features": []}
    path = tiny.write(tmp_path / "x.fick", program, core_cache, target=target)
    with pytest.raises(FickError) as caught:
        load(path)
    assert caught.value.code == OTHER
    machine = platform.machine()
    assert (
        str(caught.value)
        == f"{path} is compiled for riscv64 and this machine is {machine}; compile it for this one"
    )


def test_a_missing_cpu_feature(program: Compiled, core_cache: Path, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "x.fick", tiny.requiring(program, "fma4"), core_cache)
    with pytest.raises(FickError, match="the bundle uses fma4, which this processor lacks") as caught:
        load(path)
    assert caught.value.code == OTHER


def test_another_program_s_code(
    pristine: bytes, check: Callable[[bytes], tuple[int, str]], tmp_path: Path
) -> None:
    foreign = with_manifest(pristine, program_id="cd" * 32)
    assert check(foreign) == (
        FORMAT,
        "the bundle was compiled for another library than this one; load its own",
    )
    assert "compiled for another library" in str(loading(tmp_path / "x.fick", foreign))


def test_code_that_is_no_library(pristine: bytes, tmp_path: Path) -> None:
    """With matching checksums: only the dynamic linker can tell."""
    start, size = tiny.offsets(pristine)["code/libmodel.so"]
    broken = pristine[:start] + b"\0" * size + pristine[start + size :]
    entries = tiny.read_manifest(pristine)["entries"]
    entries["code/libmodel.so"]["sha256"] = hashlib.sha256(b"\0" * size).hexdigest()
    error = loading(tmp_path / "x.fick", fix_checksums(with_manifest(broken, entries=entries)))
    assert "the bundle's library cannot be loaded" in str(error)


@pytest.mark.parametrize("make", [lambda p: p, lambda p: p / "none", lambda p: p / "text"])
def test_what_is_no_bundle(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    (tmp_path / "text").write_text("hello\n" * 1000)
    with pytest.raises(FickError) as caught:
        load(make(tmp_path))
    assert str(make(tmp_path)) in str(caught.value)


def test_a_failed_load_leaves_nothing_open(pristine: bytes, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    start, size = tiny.offsets(pristine)["weights.safetensors"]
    for _ in range(5):
        loading(tmp_path / "x.fick", flipped(pristine, start + size - 1))
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the library, loaded once for good
