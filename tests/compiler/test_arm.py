"""Whole graphs compiled for Arm and run by their own library under qemu, against ONNX Runtime."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import fick
from fick.ir.interpreter import Interpreter
from fick.runtime.loader import LIBRARY, check_bundle

from ..emulated import CORES, CORES_32, run_bundle
from ..passes import small_unet
from . import test_operators

ARM_64 = 183
"""EM_AARCH64 of the ELF header."""

GRAPHS = {
    **test_operators.GRAPHS,
    "a convolution of stride two": (
        "g (float[1, 6, 9, 11] x) => (float[1, 10, 5, 6] y) <float[10, 6, 3, 3] w, float[10] b> "
        "{ y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b) }"
    ),
}


@pytest.mark.parametrize("name", [*CORES, *CORES_32])
def test_graphs_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    feeds, wanted = test_operators.side_by_side(GRAPHS, tmp_path / "graphs.onnx")
    report = fick.compile(tmp_path / "graphs.onnx", name, tmp_path / "graphs.fick")
    got = run_bundle(report.bundle, name, feeds)
    test_operators.assert_agree(GRAPHS, got, wanted)


def test_a_unet_agrees_with_the_referee(tmp_path: Path) -> None:
    """With its work for prompts and steps in variants of their own; to 2e-5, as each of some thirty layers, of values
    up to ten, adds some roundings.
    """
    program = small_unet.program()
    model = program.variants["full"]
    feeds = small_unet.calls()[1]
    wanted = Interpreter(program)(feeds)["output"]
    ir.save(model, tmp_path / "small.onnx")
    report = fick.compile(tmp_path / "small.onnx", "cortex-a76", tmp_path / "small.fick")
    checked = check_bundle(report.bundle)
    (machine,) = struct.unpack_from("<H", checked.entries[LIBRARY], 18)
    assert machine == ARM_64
    got = run_bundle(report.bundle, "cortex-a76", feeds)["output"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)


def test_a_core_without_the_instructions_is_told_so(tmp_path: Path) -> None:
    ir.save(small_unet.program().variants["full"], tmp_path / "small.onnx")
    report = fick.compile(tmp_path / "small.onnx", "cortex-a76", tmp_path / "small.fick")
    with pytest.raises(RuntimeError, match=r"fick_open: .*asimdhp"):
        run_bundle(report.bundle, "cortex-a53", small_unet.calls()[0])
