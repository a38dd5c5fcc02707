"""What drivers of phones do that PoCL does not: long versions, extensions that do not build, limits of all kinds.

A library in the driver's place (lying_driver.c) says so of PoCL's device.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fick
from fick.runtime.errors import FickError
from fick.targets import profile

from . import test_operators
from .test_opencl import TARGET, compiled
from .test_opencl import own_builds as own_builds

NAME, DRIVER, EXTENSIONS = 0x102B, 0x102D, 0x1030
GLOBAL_MEMORY, LOCAL_MEMORY, LARGEST_BUFFER, IMAGES, WIDEST = 0x101F, 0x1023, 0x1010, 0x1016, 0x1011


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library, and a product and a normalisation whose weights are images."""
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("lying_driver.c")
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1", str(source)]
    subprocess.run([*command, "-l:libOpenCL.so.1", "-o", "libOpenCL.so"], cwd=folder, check=True)
    text = (
        "g (float[1, 12, 5, 8] x) => (float[1, 12, 5, 8] y) <float[12] s, float[12] b, float[8, 8] w> "
        "{ n = GroupNormalization <num_groups = 4> (x, s, b) y = MatMul(n, w) }"
    )
    gpu = profile.load(TARGET).model_copy(update={"images": True, "int8_dot": True})
    compiled(test_operators.model(text, np.random.default_rng(7)), folder, gpu)
    return folder


@pytest.fixture
def lie(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Has the driver say something; a text, or a number."""
    monkeypatch.setenv("FICK_OPENCL", str(made / "libOpenCL.so"))
    monkeypatch.setenv("FICK_CACHE", str(tmp_path / "cache"))
    return lambda fact, said: monkeypatch.setenv("LIE", f"{fact}:{said}")


def builds(folder: Path) -> int:
    return len(list((folder / "cache" / "opencl").iterdir()))


def test_another_driver_builds_anew(made: Path, tmp_path: Path, lie) -> None:
    """However late in its version it differs."""
    for version, expected in (("one", 1), ("another", 2), ("one", 2)):
        lie(DRIVER, 500 * "x" + version)
        fick.load(made / "graph.fick").close()
        assert builds(tmp_path) == expected


def test_extensions_that_do_not_build_are_done_without(
    made: Path, tmp_path: Path, lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(8).standard_normal((1, 12, 5, 8)).astype(np.float32)
    with fick.load(made / "graph.fick") as loaded:
        wanted = loaded.run(x=x)["y"]
    lie(EXTENSIONS, "cl_khr_fp64 cl_khr_integer_dot_product")
    monkeypatch.setenv("REFUSE", "-cl-std=CL3.0")
    for _ in range(2):
        with fick.load(made / "graph.fick") as loaded:
            np.testing.assert_array_equal(loaded.run(x=x)["y"], wanted)
    assert builds(tmp_path) == 2  # as the first device's, and as this one's without the extension
    monkeypatch.setenv("REFUSE", "-cl-std=CL1.2")
    lie(EXTENSIONS, "cl_arm_integer_dot_product_int8")
    with fick.load(made / "graph.fick") as loaded:
        np.testing.assert_array_equal(loaded.run(x=x)["y"], wanted)
    lie(EXTENSIONS, "cl_arm_integer_dot_product_int8_2")  # another one: no way is left
    with pytest.raises(FickError, match="does not build kernel"):
        fick.load(made / "graph.fick")


@pytest.mark.parametrize(
    ("fact", "said", "message"),
    [
        (GLOBAL_MEMORY, 1000, r"the model takes \d+ bytes and the GPU .* has 1000; compile it with"),
        (LARGEST_BUFFER, 100, "take .* bytes and a buffer of the GPU .* holds 100; compile for"),
        (
            LOCAL_MEMORY,
            8,
            "kernel groupnorm_.* shares .* bytes in a work-group and the GPU .* has 8; compile",
        ),
        (IMAGES, 0, "read weights as images and the GPU .* has none; compile"),
        (WIDEST, 1, r"an image of 2 by 8 texels and one of the GPU .* has at most 1 by \d+; compile"),
    ],
)
def test_what_a_device_cannot_hold_is_said(fact: int, said: int, message: str, made: Path, lie) -> None:
    lie(fact, said)
    with pytest.raises(FickError, match=message):
        fick.load(made / "graph.fick")
