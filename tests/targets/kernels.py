"""Run one kernel specification on NumPy arrays: in this process, or for 64-bit Arm under qemu; or several as a bundle."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from tvm.runtime import Executable

from fick.compiler.bundle.file import Entry, weights_entry, write_bundle
from fick.compiler.bundle.link import kernels_source, link
from fick.compiler.cache import cache_folder
from fick.targets import profile as profiles
from fick.targets.compiled import Call, Compiled, Launch, Operand, StateTensor
from fick.targets.cpu.kernel import WORDS, Kernel
from fick.targets.cpu.pipeline import compiled
from fick.targets.cpu.worker import compile_kernel
from fick.targets.memory import aligned
from fick.targets.profile import Profile, Target

from ..emulated import CORES, run_bundle


@dataclass(frozen=True)
class Host:
    """This machine."""

    profile: Profile

    def run(self, kernel: Kernel, *operands: np.ndarray) -> None:
        """Calls the kernel; the arrays that are outputs are written in place."""
        assert [str(array.dtype) for array in operands] == [WORDS.get(one, one) for one in kernel.dtypes]
        built = Executable(compiled(kernel, "kernel", self.profile.llvm_target())).jit()["kernel"]
        built(*(ctypes.c_void_p(array.ctypes.data) for array in operands))


@dataclass(frozen=True)
class Emulated:
    """An Arm core. A kernel is the one call of a bundle, and its operands are all inputs and outputs of it."""

    profile: Profile

    def run(self, kernel: Kernel, *operands: np.ndarray) -> None:
        """As of ``Host``."""
        assert [str(array.dtype) for array in operands] == [WORDS.get(one, one) for one in kernel.dtypes]
        tensors, at = list[StateTensor](), 0
        carried = [_words(array) if array.itemsize < 4 else array for array in operands]
        for index, array in enumerate(carried):
            tensors.append(StateTensor(f"p{index}", str(array.dtype), array.shape, at, "sample"))
            at += aligned(array.nbytes)
        profile = self.profile
        kernels = {"kernel": compile_kernel(kernel, "kernel", profile.llvm_target())}
        call = Call("kernel", tuple(Operand("state", one.offset_bytes) for one in tensors), "it")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "kernel.fick"
            write_calls(path, profile, kernels, [call], tensors, at)
            found = run_bundle(path, profile.name, {f"p{i}": array for i, array in enumerate(carried)})
        for index, array in enumerate(operands):
            array[...] = found[f"p{index}"].reshape(-1).view(array.dtype)[: array.size].reshape(array.shape)


def write_calls(
    path: Path,
    profile: Target,
    kernels: dict[str, bytes],
    calls: Sequence[Call],
    tensors: Sequence[StateTensor],
    state_bytes: int,
    launches: Mapping[str, Launch] | None = None,
) -> None:
    """A bundle of calls of kernels, whose operands, all of them ``tensors``, are its inputs and its outputs."""
    program = Compiled(
        arch=profile.arch,
        triple=profile.triple,
        cpu_features=profile.requires,
        kernels=kernels,
        variants={"full": tuple(calls)},
        inputs=tuple(tensors),
        outputs=tuple(tensors),
        weights=(),
        weights_bytes=0,
        arena_bytes=0,
        state_bytes=state_bytes,
        carried={},
        launches=launches or {},
    )
    described = [{"name": one.name, "dtype": one.dtype, "shape": list(one.shape)} for one in tensors]
    manifest = {
        "format": "fick-bundle", "format_version": 1, "name": "kernels", "program_id": "it",
        "target": {"arch": profile.arch}, "components": {"it": {"inputs": described, "outputs": described}},
    }  # fmt: skip
    library = link({"it": program}, "it", cache_folder() / "core")
    code = [("code/libmodel.so", library), *kernels_source({"it": program}).items()]
    write_bundle(path, [weights_entry((), 0, {}.__getitem__), *(Entry.of(*one) for one in code)], manifest)


def _words(array: np.ndarray) -> np.ndarray:
    """The bytes of an array as numbers that a caller can give."""
    return np.frombuffer(array.tobytes() + bytes(-array.nbytes % 4), np.int32)


ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18


def allow_tiles() -> None:
    """Have this process use a matrix unit, where there is one."""
    if any(one.tile_formats for one in profiles.fitting()):
        assert ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0


HOST = Host(profiles.load("host"))
ARM = [Emulated(profiles.load(name)) for name in CORES]
MACHINES = [HOST, ARM[0]]
"""For cases that are few."""

machines = st.sampled_from([HOST] * len(ARM) + ARM)
