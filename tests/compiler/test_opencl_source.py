"""Kernels for phones as a compiler reads them that has what PoCL's device lacks: half arithmetic and dot products."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fick.compiler.bundle.link import KERNELS, kernels_source
from fick.compiler.cache import cache_folder
from fick.compiler.pipeline import pipeline
from fick.compiler.programs import fused
from fick.compiler.recipes import NOTHING
from fick.passes.base import Context, apply
from fick.targets import profile
from fick.targets.lower import lower, questions

from ..passes import small_unet
from . import test_bfloat16
from .test_int8 import exact_case

CLANGS = ["clang", *(f"clang-{version}" for version in range(14, 24))]
"""PoCL comes with one of them."""


@pytest.fixture(scope="module")
def source() -> str:
    """Of float16 and of int8 products for Adreno: images, half sums, dot products."""
    given, _, powers = exact_case("int8")
    halves = fused(test_bfloat16.imported("a resnet")[0], precision="float16", recipe=NOTHING)
    programs = {"integers": fused(given, recipe=powers), "halves": halves}
    adreno = profile.load("adreno")
    lowered = {name: lower(one, adreno, cache_folder()) for name, one in programs.items()}
    return kernels_source(lowered)[KERNELS].decode()


@pytest.mark.parametrize(
    ("target", "options", "used"),
    [
        ("spir64", ["-cl-std=CL3.0"], {"dot_4x8packed_ss_int", "half4 halves0", "read_imageh"}),
        (
            "aarch64-linux-gnu",
            ["-cl-std=CL1.2", "-Xclang", "-cl-ext=-all,+cl_arm_integer_dot_product_int8"],
            {"arm_dot"},
        ),
        ("spir64", ["-cl-std=CL1.2", "-DFICK_PLAIN"], set[str]()),
    ],
)
def test_extensions_are_used_as_they_are_declared(
    target: str, options: list[str], used: set[str], source: str, tmp_path: Path
) -> None:
    assert "dot4(a[r]" in source and "ADD_H4((H4)" in source and "TEXEL_H4(p" in source
    (tmp_path / "kernels.cl").write_text(source, encoding="utf-8")
    clang = next(filter(None, map(shutil.which, CLANGS)))
    command = [clang, "-x", "cl", "-Xclang", "-finclude-default-header", "-target", target, *options]
    read = [*command, "-E", "-P", "kernels.cl"]
    expanded = subprocess.run(read, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    kernels = expanded[expanded.index("int dot4(") :]
    assert {
        name
        for name in ("dot_4x8packed_ss_int", "arm_dot", "half4 halves0", "read_imageh")
        if name in kernels
    } == used
    checked = subprocess.run(
        [*command, "-fsyntax-only", "kernels.cl"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr[:2000]


def test_what_was_tuned_is_taken() -> None:
    """Heights of tiles, minimal filtering and queries are choices, and each of a problem's is another kernel."""
    program = apply(pipeline(), small_unet.program(), Context())
    gpu = profile.load("mali")
    asked = questions(program, gpu)
    predicted = set(lower(program, gpu, cache_folder()).kernels)
    for beginning in ("conv [", "attention, ", "["):
        problem = next(
            name for name, one in asked.items() if name.startswith(beginning) and len(one.choices) > 1
        )
        for choice in asked[problem].choices[1:]:
            tuned = gpu.model_copy(update={"tuned": {problem: choice}})
            assert set(lower(program, tuned, cache_folder()).kernels) != predicted
