"""Both ways to hash, against Python's: the plain one is what processors without SHA instructions run."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fick.targets.profile import load

NATIVE = Path(__file__).parents[2] / "runtime" / "native"
DATA = np.random.default_rng(0).integers(0, 256, 10000, dtype=np.uint8).tobytes()
LENGTHS = [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, len(DATA)]


@pytest.fixture(scope="module", params=["as the processor allows", "plain"])
def sha256(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("sha256")
    source = (NATIVE / "sha256.c").read_text()
    if request.param == "plain":
        # The dispatcher is the only user of this name inside an #if; without it, the plain path is left.
        assert source.count("  if (has_sha_extensions()) {") == 1
        source = source.replace("  if (has_sha_extensions()) {", "  if (has_sha_extensions() && 0) {")
    (folder / "sha256.c").write_text(source)
    target = load("host").triple
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O2", "-fPIC", "-shared"]
    subprocess.run([*command, f"-I{NATIVE}", "sha256.c", "-o", "sha256.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "sha256.so"))


@pytest.mark.parametrize("length", LENGTHS)
def test_digests_are_python_s(sha256: ctypes.CDLL, length: int) -> None:
    digest = ctypes.create_string_buffer(32)
    sha256.fick_sha256(DATA[:length], ctypes.c_uint64(length), None, digest)
    assert digest.raw == hashlib.sha256(DATA[:length]).digest()
