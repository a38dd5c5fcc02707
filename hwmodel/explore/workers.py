"""Who walks through designs: this process, several on this machine, or the workers of a Dask cluster.

A chunk of designs goes to one worker, and its outcomes follow from the chunk alone: who walks it, and when, and
whether for the first time, makes no difference.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import loads
from typing import Any
from zlib import decompress

from ...ir.errors import UserError
from .front import Front
from .problem import Evaluator, Outcome, Problem
from .version import version

CONNECT_S = 10
"""How long a scheduler may take to answer."""


@dataclass(frozen=True)
class Chunk:
    """Designs for one worker, what is known of them already, and the front that they begin with."""

    numbers: tuple[int, ...]
    known: Mapping[int, Outcome]
    front: Front


Walk = Callable[[Iterable[Chunk]], Iterator[list[Outcome]]]
"""Outcomes of chunks, each in the order of its numbers; the chunks in whatever order they are done."""

_current: tuple[bytes, Evaluator] | None = None
"""The problem that this process worked on last, packed, and what it knows of it."""


def work(packed: bytes, of: str, chunk: Chunk) -> list[Outcome] | str:
    """The outcomes of a chunk, in any process; only this one's version if that is not ``of``."""
    global _current
    if version() != of:
        return version()
    if _current is None or _current[0] != packed:
        _current = packed, Evaluator(loads(decompress(packed)))
    return list(_current[1].walk(chunk.numbers, chunk.known, chunk.front))


@contextmanager
def here(problem: Problem) -> Iterator[Walk]:
    evaluator = Evaluator(problem)

    def walk(chunks: Iterable[Chunk]) -> Iterator[list[Outcome]]:
        for chunk in chunks:
            yield list(evaluator.walk(chunk.numbers, chunk.known, chunk.front))

    yield walk


@contextmanager
def processes(problem: Problem, count: int) -> Iterator[Walk]:
    """So many processes of this machine."""
    packed = problem.pack()
    # Threads of this process hold locks that a fork would copy.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:

        def walk(chunks: Iterable[Chunk]) -> Iterator[list[Outcome]]:
            waiting: set[Future[list[Outcome] | str]] = {
                pool.submit(work, packed, version(), chunk) for chunk in chunks
            }
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (_checked(one.result()) for one in done)

        try:
            yield walk
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def cluster(problem: Problem, address: str) -> Iterator[Walk]:
    """The workers of a Dask scheduler. What a lost worker had not finished another one does again.

    Raises UserError if the scheduler does not answer, has no workers, or one of them is of another version.
    """
    from distributed import Client, as_completed

    packed = problem.pack()
    try:
        client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}); start one with `dask scheduler` and "
            "give its address, such as tcp://127.0.0.1:8786."
        ) from None

    def walk(chunks: Iterable[Chunk]) -> Iterator[list[Outcome]]:
        # Impure: two chunks of the same designs are two pieces of work.
        futures = [client.submit(work, packed, version(), chunk, pure=False) for chunk in chunks]
        for _, outcomes in as_completed(futures, loop=client.loop, with_results=True):
            yield _checked(outcomes)

    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise UserError(
                f"the scheduler at {address} has no workers; start some with `dask worker {address}`."
            )
        try:
            versions: Mapping[str, str] = client.run(version)
        except Exception as error:
            # A worker without fick cannot even read what it is asked.
            raise _stranger(type(error).__name__) from None
        for other in versions.values():
            if other != version():
                raise _stranger(other)
        yield walk


def _checked(outcomes: list[Outcome] | str) -> list[Outcome]:
    if isinstance(outcomes, str):
        raise _stranger(outcomes)
    return outcomes


def _stranger(other: str) -> UserError:
    return UserError(
        f"a worker of the cluster has another fick ({other}, and this is {version()}); install the same on every "
        "machine, or leave that worker out."
    )


def walker(problem: Problem, jobs: int, address: str | None) -> Any:
    """A context with what walks through chunks, as was asked for."""
    if address is not None:
        return cluster(problem, address)
    return here(problem) if jobs == 1 else processes(problem, jobs)
