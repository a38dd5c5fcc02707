"""Bundles for Arm, run by their own library under qemu."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fick.compiler.bundle.link import OLDEST_LIBC, system_of
from fick.compiler.cache import cache_folder
from fick.runtime.loader import LIBRARY, check_bundle
from fick.targets.profile import load

CORES = {"cortex-a53": "cortex-a53", "cortex-a76": "cortex-a76", "cortex-x3": "max,sve=off"}
"""What qemu has to be by profile: the core itself where it knows it, so that other instructions are illegal."""

CORES_32 = {"cortex-a7": "cortex-a7"}
"""The same of 32-bit Arm."""

SYSTEMS = {
    "aarch64": ("qemu-aarch64", Path("/usr/aarch64-linux-gnu"), "libc6-arm64-cross"),
    "armv7l": ("qemu-arm", Path("/usr/arm-linux-gnueabihf"), "libc6-armhf-cross"),
}
"""The emulator of an architecture, the C library that a program runs with there, and Debian's package of that."""

HERE = Path(__file__).parent


def run_bundle(path: Path, core: str, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name of one call of the bundle at ``path``, which has one component, on the core of a profile.

    Raises RuntimeError with the words of the bundle's library if it fails.
    """
    checked = check_bundle(path)
    [facts] = checked.manifest["components"].values()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "libmodel.so").write_bytes(checked.entries[LIBRARY])
        ordered = [np.ascontiguousarray(feeds[one["name"]], one["dtype"]) for one in facts["inputs"]]
        (folder / "inputs").write_bytes(b"".join(array.tobytes() for array in ordered))
        files = ("./libmodel.so", os.fspath(path.absolute()), "inputs", "outputs")
        ran = run_program(_driver(system_of(load(core).triple)), core, *files, cwd=folder)
        if ran.returncode != 0:
            raise RuntimeError(f"exit code {ran.returncode}: {ran.stderr}")
        data, found = (folder / "outputs").read_bytes(), dict[str, np.ndarray]()
    at = 0
    for one in facts["outputs"]:
        array = np.frombuffer(data, one["dtype"], int(np.prod(one["shape"])), at)
        found[one["name"]] = array.reshape(one["shape"])
        at += array.nbytes
    assert at == len(data)
    return found


def run_program(
    program: Path, core: str, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A program for Arm on the core of a profile."""
    name, system, package = SYSTEMS[load(core).arch]
    qemu = shutil.which(name)
    if qemu is None or not system.is_dir():
        pytest.fail(f"Arm code is run by {name}: on Debian, apt-get install qemu-user {package}")
    cpu = {**CORES, **CORES_32}[core]
    command = [qemu, "-L", os.fspath(system), "-cpu", cpu, os.fspath(program), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@cache
def _driver(triple: str) -> Path:
    """The program that opens a bundle's library."""
    folder = cache_folder() / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    target = f"{triple}.{OLDEST_LIBC}"
    own = os.fspath(cache_folder() / "core" / "zig")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / "run_bundle"
        headers = HERE.parent / "runtime" / "native"
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O1", f"-I{headers}",
             os.fspath(HERE / "run_bundle.c"), "-o", os.fspath(built), "-ldl"],
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": own, "ZIG_LOCAL_CACHE_DIR": own}, check=True,
        )  # fmt: skip
        return built.replace(folder / f"run_bundle-{triple}")
