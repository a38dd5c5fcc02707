"""The static memory plan: every scratch value's place in one arena, packed by lifetime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector."""


@dataclass(frozen=True)
class Lifetime:
    """A buffer that must hold its bytes from call ``first`` to call ``last``, both included."""

    name: str
    size_bytes: int
    first: int
    last: int


def aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def plan(lifetimes: Sequence[Lifetime]) -> tuple[dict[str, int], int]:
    """Offsets in bytes and the arena's size: largest first, each at the lowest place free while it lives.

    Greedy by size, after Pisarchyk and Lee (arXiv 2001.03288), who found it within a few percent of optimal.
    """
    placed: list[tuple[int, Lifetime]] = []
    offsets: dict[str, int] = {}
    for item in sorted(lifetimes, key=lambda one: (-one.size_bytes, one.first, one.name)):
        start = 0
        for offset, other in placed:
            if other.last < item.first or item.last < other.first:
                continue
            if start + item.size_bytes <= offset:
                break
            start = max(start, offset + aligned(other.size_bytes))
        offsets[item.name] = start
        placed.append((start, item))
        placed.sort(key=lambda entry: entry[0])
    return offsets, max((start + aligned(item.size_bytes) for start, item in placed), default=0)
