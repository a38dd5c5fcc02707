"""From kernel specifications to object code: compiled in parallel, kept on disk by content."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from queue import SimpleQueue

import tvm

from ...ir.files import write_whole
from ..profile import Profile
from .kernel import Kernel
from .worker import Worker

OBJECT_MAGIC = b"\x7fELF"
"""A file that does not begin so is what a crash of the machine left."""


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
        kept = path.read_bytes() if path.exists() else b""
        if kept.startswith(OBJECT_MAGIC):
            objects[name] = kept
        else:
            missing[name] = kernel
    report = progress or (lambda done, total: None)
    report(len(objects), len(wanted))
    if missing:
        # Large kernels first, so that the last to finish is a small one.
        queue = sorted(missing, key=lambda name: (-_weight(missing[name]), name))
        for name, data in _compile_all(queue, missing, profile.llvm_target()):
            objects[name] = data
            write_whole(cache_folder / f"{name}.o", data)
            report(len(objects), len(wanted))
    return {name: objects[name] for name in wanted}


def _weight(kernel: Kernel) -> int:
    return {"Attention": 2, "Contraction": 1}.get(type(kernel).__name__, 0)


_resting: list[Worker] | None = None
"""Processes that have nothing to compile just now; None where none is kept."""


@contextlib.contextmanager
def workers_kept() -> Generator[None]:
    """Within this, processes that have compiled kernels wait for those of the next call of ``build``: to start one
    takes longer than most kernels do.
    """
    global _resting
    if _resting is not None:  # kept for longer already
        yield
        return
    _resting = []
    try:
        yield
    finally:
        for worker in _resting:
            worker.close()
        _resting = None


def _compile_all(
    queue: list[str], kernels: dict[str, Kernel], llvm_target: dict[str, object]
) -> Iterator[tuple[str, bytes]]:
    """Compile on as many processes as there are cores; yields in order of completion."""
    workers: SimpleQueue[Worker] = SimpleQueue()
    count = min(len(os.sched_getaffinity(0)), len(queue))
    taken = [_resting.pop() if _resting else Worker() for _ in range(count)]
    for worker in taken:
        workers.put(worker)

    def one(name: str) -> tuple[str, bytes]:
        worker = workers.get()
        try:
            return name, worker.compile(kernels[name], name, llvm_target)
        finally:
            workers.put(worker)

    whole = False
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(one, name) for name in queue]
        try:
            for future in as_completed(futures):
                yield future.result()
            whole = True
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if whole and _resting is not None:
                _resting.extend(taken)
            else:  # one of them may still compile
                for worker in taken:
                    worker.close()
