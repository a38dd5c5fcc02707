"""From kernel specifications to object code: compiled in parallel, kept on disk by content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import tvm

from ..profile import Profile
from .kernel import Kernel


@cache
def _generator_digest() -> str:
    """Changes whenever the code that turns specifications into loops does, TVM included."""
    digest = hashlib.sha256(tvm.__version__.encode())
    folder = Path(__file__).parent
    for source in sorted([*folder.glob("*.py"), folder.parent / "expressions.py"]):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def symbol(kernel: Kernel, profile: Profile) -> str:
    """A name that is the kernel's content: the same specification, target and generator give the same name."""
    text = f"{_generator_digest()}|{sorted(profile.llvm_target().items())}|{kernel!r}"
    return f"{type(kernel).__name__.lower()}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def compile_kernel(kernel: Kernel, name: str, llvm_target: dict[str, object]) -> bytes:
    """The object file that defines ``__tvm_ffi_<name>``."""
    module = tvm.IRModule({name: kernel.prim_func(name)})
    executable = tvm.compile(module, tvm.target.Target(llvm_target))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel.o")
        executable.mod.write_to_file(path, "o")
        return Path(path).read_bytes()


def build(
    kernels: Iterable[Kernel],
    profile: Profile,
    cache_folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, bytes]:
    """Object code of each distinct kernel by symbol; what ``cache_folder`` already holds is not built again."""
    wanted = {symbol(kernel, profile): kernel for kernel in kernels}
    cache_folder.mkdir(parents=True, exist_ok=True)
    objects: dict[str, bytes] = {}
    missing: dict[str, Kernel] = {}
    for name, kernel in wanted.items():
        path = cache_folder / f"{name}.o"
        if path.exists():
            objects[name] = path.read_bytes()
        else:
            missing[name] = kernel
    report = progress or (lambda done, total: None)
    report(len(objects), len(wanted))
    if missing:
        workers = min(os.cpu_count() or 1, len(missing))
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            target = profile.llvm_target()
            futures = {
                pool.submit(compile_kernel, kernel, name, target): name for name, kernel in missing.items()
            }
            try:
                for future in as_completed(futures):
                    name = futures[future]
                    objects[name] = future.result()
                    _keep(cache_folder / f"{name}.o", objects[name])
                    report(len(objects), len(wanted))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return {name: objects[name] for name in wanted}


def _keep(path: Path, data: bytes) -> None:
    """Written beside its place and moved there, so that an interrupted build leaves no torn file."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(partial, path)
