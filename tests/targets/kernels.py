"""Run one kernel specification on NumPy arrays, in process."""

import ctypes

import numpy as np
import tvm

from fick.targets.cpu.kernel import Kernel
from fick.targets.profile import load

PROFILE = load("host")


def compile_in_process(kernel: Kernel):
    module = tvm.IRModule({"kernel": kernel.prim_func("kernel")})
    return tvm.compile(module, tvm.target.Target(PROFILE.llvm_target())).jit()["kernel"]


def run(kernel: Kernel, *operands: np.ndarray) -> None:
    """Calls the kernel; the arrays that are outputs are written in place."""
    assert [str(array.dtype) for array in operands] == list(kernel.dtypes)
    compile_in_process(kernel)(*(ctypes.c_void_p(array.ctypes.data) for array in operands))
