"""The passes of TVM that a kernel needs.

Kernels leave the builder as loops over flat buffers on one device. TVM's own pipeline is made for schedules with blocks
and for GPUs as well, and most of its time goes to passes that find nothing in such a kernel, or that LLVM repeats, such
as the elimination of common subexpressions.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx

from .kernel import Kernel

NAME = "fick-cpu"


def _lowered() -> tvm.transform.Pass:
    return tvm.transform.Sequential(
        [
            tirx.transform.StmtSimplify(),
            s_tir.transform.LowerOpaqueBlock(),  # for loops of one step, which are no vectors
            tirx.transform.NarrowDataType(32),
            tirx.transform.VectorizeLoop(),
            tirx.transform.StorageRewrite(),
            tirx.transform.UnrollLoop(),
            tirx.transform.StmtSimplify(),
            s_tir.transform.RewriteUnsafeSelect(),
            tirx.transform.VerifyMemory(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.MakePackedAPI(),
        ]
    )


def _finalised() -> tvm.transform.Pass:
    return tvm.transform.Sequential([tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()])


tirx.register_tir_pipeline(NAME, lambda: (_lowered(), _finalised, _finalised))


def compiled(kernel: Kernel, name: str, llvm_target: dict[str, object]) -> tvm.runtime.Module:
    """Object code that defines ``__tvm_ffi_<name>``."""
    module = tvm.IRModule({name: kernel.prim_func(name)})
    return tirx.build(module, tvm.target.Target(llvm_target), NAME)
