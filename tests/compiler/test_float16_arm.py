"""Programs stored in float16 on 64-bit Arm, under qemu, against the referee, which rounds the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fick.compiler.programs import fused
from fick.compiler.recipes import NOTHING
from fick.ir.interpreter import Interpreter
from fick.targets import profile

from ..emulated import run_bundle
from .test_bfloat16 import GRAPHS, imported
from .test_int8 import bundle

CORE = "cortex-a76"


@pytest.mark.parametrize("name", GRAPHS)
def test_the_compiled_program_rounds_what_the_referee_rounds(name: str, tmp_path: Path) -> None:
    exact, rounded = (
        Interpreter(fused(imported(name)[0], precision=precision))(imported(name)[1])["y"]
        for precision in ("float32", "float16")
    )
    given, feeds = imported(name)
    path = bundle(given, feeds, profile.load(CORE), tmp_path, recipe=NOTHING, precision="float16")
    got = run_bundle(path, CORE, feeds)["y"]
    # Sums in another order fall on the other side of a rounding now and then, each time by one unit of it.
    assert np.std(got - rounded) < np.std(rounded - exact)
    assert 1e-4 < np.std(rounded - exact) / np.std(exact) < 2e-3
