"""A peer in a process of its own: it may run out of memory, crash, or keep its threads spinning, and hurts nobody."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from .peers import Task, peer
from .rounds import Here


class Child:
    """The parent's end, and a ``System``. Also a context manager: leaving it ends the process.

    Raises UserError if the peer cannot run the task, or when its process dies.
    """

    def __init__(self, name: str, task: Task) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
            # What a peer prints, on whichever stream, is not part of a result.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        self.name, self._link = name, Connection(ours.detach())
        try:
            self._ask((name, task))
        except BaseException:
            self.close()
            raise

    def output(self) -> NDArray[Any]:
        return self._ask("output")

    def seconds(self) -> float:
        return self._ask("seconds")

    def resident_bytes(self) -> int:
        """Memory that the process has in use, its interpreter and the libraries included."""
        return self._ask("resident_bytes")

    def _ask(self, question: Any) -> Any:
        try:
            self._link.send(question)
            answer, error = self._link.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            killed = f"killed by signal {-code}: out of memory?" if code < 0 else f"exit code {code}"
            raise UserError(f"peer {self.name} ended before it answered ({killed})") from None
        if error is not None:
            raise UserError(error)
        return answer

    def close(self) -> None:
        self._link.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Served(Here):
    def resident_bytes(self) -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(descriptor: int) -> None:
    """The child's end: starts what it is sent first and then answers, until the parent hangs up.

    An answer is (result, None) or (None, a sentence that says what went wrong).
    """
    with Connection(descriptor) as link, suppress(EOFError):
        system: _Served | None = None
        while True:
            question = link.recv()
            try:
                if system is None:
                    system = _Served(peer(*question))
                    link.send((None, None))
                else:
                    link.send((getattr(system, question)(), None))
            except Exception as error:
                link.send((None, first_line(error)))
