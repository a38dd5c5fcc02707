"""A process that compiles kernels for its parent: specifications in, object files out.

Plain processes rather than ``multiprocessing``, which would run the user's main script again in each child.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from .kernel import Kernel
from .pipeline import compiled

LENGTH = struct.Struct("<Q")


def compile_kernel(kernel: Kernel, name: str, llvm_target: dict[str, object]) -> bytes:
    """The object file that defines ``__tvm_ffi_<name>``."""
    module = compiled(kernel, name, llvm_target)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel.o")
        module.write_to_file(path, "o")
        return Path(path).read_bytes()


def assembly(kernel: Kernel, llvm_target: dict[str, object]) -> str:
    """The same code as text."""
    return str(compiled(kernel, "kernel", llvm_target).inspect_source("s"))


class Worker:
    """The parent's end. Use from one thread at a time."""

    def __init__(self) -> None:
        # TVM imports torch where it finds it: that takes as long as TVM itself, and compiles nothing.
        code = f"import sys; sys.modules['torch'] = None; from {__name__} import serve; serve()"
        command = [sys.executable, "-c", code]
        environment = {**os.environ, "TVM_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )

    def compile(self, kernel: Kernel, name: str, llvm_target: dict[str, object]) -> bytes:
        """As ``compile_kernel``. Raises RuntimeError with the compiler's message if it fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        _send(self._process.stdin, (kernel, name, llvm_target))
        answer = _receive(self._process.stdout)
        if not isinstance(answer, bytes):
            raise RuntimeError(f"kernel {name} did not compile: {answer}; specification {kernel!r}")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def serve() -> None:
    """The child's end: answer requests until the parent closes the pipe."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the compiler prints goes to standard error, not into the answers
    while True:
        request = _receive(requests)
        if request is None:
            return
        try:
            answer: object = compile_kernel(*request)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        _send(answers, answer)


def _send(stream: IO[bytes], message: object) -> None:
    data = pickle.dumps(message)
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return pickle.loads(stream.read(LENGTH.unpack(header)[0]))
