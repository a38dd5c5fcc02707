"""The bundle as a file: what other tools make of it, its alignment, its bytes, and what a failed write leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from fick.compiler.bundle import file as bundles
from fick.compiler.bundle.file import Entry, weights_entry, write_bundle
from fick.ir.errors import UserError
from fick.runtime import load
from fick.runtime import native_api as api
from fick.targets.compiled import Compiled, PackedWeight
from fick.targets.packing import Dense, Panels
from tests.runtime import tiny

RNG = np.random.default_rng(0)
SOURCES = {
    "a": RNG.standard_normal((3,)).astype(np.float32),
    "b": RNG.standard_normal((5, 7)).astype(np.float32),
    "c": np.arange(4, dtype=np.int64),
    "scalar": np.array(2.5, np.float32),
}
WEIGHTS = (
    PackedWeight("a.dense", "a", Dense(), "float32", (3,), 0),
    PackedWeight("b.panels", "b", Panels(order=(0, 1), width=4, starts=(0, 1)), "float32", (2, 7, 4), 64),
    PackedWeight("scalar.dense", "scalar", Dense(), "float32", (), 64 + 224),  # no gap before this one
    PackedWeight("c.dense", "c", Dense(), "int64", (4,), 320),
)
WEIGHTS_BYTES = 384


def entries() -> list[Entry]:
    return [
        weights_entry(WEIGHTS, WEIGHTS_BYTES, SOURCES.__getitem__),
        Entry.of("code/libmodel.so", b"\x7fELF" + bytes(5000)),
        Entry.of("constants.onnx", b""),
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "some.fick"
    write_bundle(path, entries(), {"format": "fick-bundle", "note": "\u00e9"})
    return path


def test_other_tools_read_the_zip(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "weights.safetensors",
            "code/libmodel.so",
            "constants.onnx",
            "manifest.json",
        ]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("code/libmodel.so") == b"\x7fELF" + bytes(5000)
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest.pop("entries") == {
            name: {
                "sha256": hashlib.sha256(archive.read(name)).hexdigest(),
                "bytes": archive.getinfo(name).file_size,
            }
            for name in archive.namelist()[:-1]
        }
    assert manifest == {"format": "fick-bundle", "note": "\u00e9"}


def test_every_entry_starts_on_a_page(written: Path) -> None:
    with zipfile.ZipFile(written) as archive, written.open("rb") as file:
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            name_size, extra_size = struct.unpack("<2H", file.read(4))
            assert (info.header_offset + 30 + name_size + extra_size) % 4096 == 0


def test_safetensors_reads_the_weights(written: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        data = archive.read("weights.safetensors")
    (tmp_path / "w.safetensors").write_bytes(data)
    with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
        for weight in WEIGHTS:
            wanted = weight.packing.pack(SOURCES[weight.source]).reshape(weight.shape)
            np.testing.assert_array_equal(file.get_tensor(weight.name), wanted)
            assert file.get_tensor(weight.name).dtype == wanted.dtype
        others = set(file.keys()) - {weight.name for weight in WEIGHTS}
        assert all(not file.get_tensor(name).any() for name in others)
    # The kernels' offsets: into the data section, which a vector load must find aligned.
    (header,) = struct.unpack("<Q", data[:8])
    assert (8 + header) % 64 == 0
    assert len(data) == 8 + header + WEIGHTS_BYTES
    for weight in WEIGHTS:
        packed = weight.packing.pack(SOURCES[weight.source]).tobytes()
        assert data[8 + header + weight.offset_bytes :][: len(packed)] == packed


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.fick", "two.fick"):
        write_bundle(tmp_path / name, entries(), {"format": "fick-bundle"})
    assert (tmp_path / "one.fick").read_bytes() == (tmp_path / "two.fick").read_bytes()


def test_weights_are_streamed_one_at_a_time() -> None:
    alive: list[str] = []

    def array(name: str) -> np.ndarray:
        alive.append(name)
        return SOURCES[name]

    chunks = iter(weights_entry(WEIGHTS, WEIGHTS_BYTES, array).chunks())
    next(chunks)
    assert alive == []  # the header is known before any weight is
    next(chunks), next(chunks)
    assert alive == ["a"]


def test_beyond_four_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Compiled, core_cache: Path
) -> None:
    """zip64, at a lowered limit: entries on both sides of it, and a directory behind it."""
    monkeypatch.setattr(bundles, "ZIP64_FROM", 6000)
    path = tiny.write(tmp_path / "large.fick", program, core_cache)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert (
            archive.getinfo("code/libmodel.so").header_offset
            < 6000
            <= archive.getinfo("manifest.json").header_offset
        )
        library = archive.read("code/libmodel.so")
    with path.open("rb") as file:
        assert b"PK\6\6" in file.read()
    with load(path) as model:
        x, p = np.ones(4, np.float32), np.ones((1, 2), np.float32)
        np.testing.assert_array_equal(model.run(x=x, t=1, p=p)["y"], tiny.expected(x, 1, p))
    assert api.load_library(library).fick_abi_version() == api.ABI_VERSION


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    path = tmp_path / "some.fick"
    with pytest.raises(UserError) as caught:
        write_bundle(path, entries(), {})
    assert (
        str(caught.value)
        == f"cannot write {path}: No space left on device; free some space or write elsewhere"
    )
    assert leftovers(tmp_path) == []


def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path: Path) -> None:
    """A real failing write, by the process's limit on file sizes: in a process of its own."""
    path = tmp_path / "some.fick"
    path.write_bytes(b"the bundle of yesterday")
    script = (
        "import sys, resource, signal; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from fick.compiler.bundle.file import write_bundle\n"
        "from fick.ir.errors import UserError\n"
        "from tests.compiler.test_bundle import entries\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try: write_bundle(Path(sys.argv[1]), entries(), {})\n"
        "except UserError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(path), str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {path}: File too large; free some space or write elsewhere\n"
    assert leftovers(tmp_path) == ["some.fick"]
    assert path.read_bytes() == b"the bundle of yesterday"


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), UserError("weight a holds NaN")])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, raised: BaseException) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"123"
        raise raised

    with pytest.raises(type(raised)):
        write_bundle(tmp_path / "some.fick", [Entry("a", 6, chunks)], {})
    assert leftovers(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a folder that can be written"):
        write_bundle(tmp_path / "none" / "some.fick", entries(), {})


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="it is not a regular file"):
        write_bundle(pipe, entries(), {})
    assert pipe.is_fifo() and leftovers(tmp_path) == ["pipe"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link, target = tmp_path / "link.fick", tmp_path / "bundle.fick"
    link.symlink_to(target.name)
    write_bundle(link, entries(), {})
    assert link.is_symlink() and target.is_file()
