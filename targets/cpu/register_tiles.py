"""How many sums of products a core's registers hold at a time, and in which shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..profile import Profile
from .unpack import codes_together

VECTORS = (2, 3, 4, 1, 6, 8)
"""A row of a tile is as many; of tiles that are as fast the first is taken."""


@dataclass(frozen=True)
class Tile:
    """A register tile: ``rows`` x ``width`` sums in vectors of ``lanes``.

    With ``by_lane``, the elements of A of several reduction steps are loaded as a vector.
    """

    rows: int
    width: int
    lanes: int
    by_lane: bool = False


@dataclass(frozen=True)
class Step:
    """What a step of the reduction asks of registers.

    ``held``     how many a vector of factors takes
    ``codes``    the format that factors open from, if they are not numbers as they lie
    ``shared``   rows whose sums share a register
    ``in_half``  whether sums are added up in float16: a vector has twice as many
    """

    held: int = 1
    codes: str | None = None
    shared: int = 1
    in_half: bool = False


SINGLE = Step()
"""A product a sum, of float32 numbers."""


def tiles(rows: int, columns: int, parts: int, profile: Profile, step: Step = SINGLE) -> dict[str, Tile]:
    """Register tiles for ``rows`` x ``columns`` sums by name, that with the least predicted cycles first.

    Per reduction step a core issues multiply-adds and loads at its rates, and needs some cycles before a sum can be
    added to again; a vector of the panel comes from the second-level cache and costs about half a cycle that is not
    hidden, a word of A about an eighth. Where words of A are taken from lanes, each row has a register of them; those
    of rows that share a register of sums are put side by side by an instruction a step.
    """
    lanes, shared = profile.vector_lanes * (1 + step.in_half), step.shared
    found: list[tuple[float, Tile]] = []
    for vectors in VECTORS:
        if vectors % parts or vectors % codes_together(step.codes):
            continue
        width = vectors * lanes // shared
        # Of the narrowest that codes open into there is a row, though registers spill.
        least = shared if vectors == max(parts, codes_together(step.codes)) else 0
        most = min(max(most_rows(vectors, profile, step), least), rows)
        panels = math.ceil(columns * parts / width)
        for limit in range(shared, most + 1, shared):
            bands = math.ceil(rows / limit)
            height = math.ceil(rows / (bands * shared)) * shared
            words = height * shared
            loads = words / (lanes if profile.by_lane else 1) + vectors
            vector_work = height // shared * (vectors + shared - 1)
            busy = max(vector_work / profile.fma_rate, loads / profile.load_rate, profile.fma_latency)
            cycles = bands * panels * (busy + vectors / 2 + words / 8)
            found.append((cycles, Tile(height, width, lanes, profile.by_lane)))
    return {f"tile {tile.rows}x{tile.width}": tile for _, tile in sorted(found, key=lambda one: one[0])}


def choose_tile(rows: int, columns: int, parts: int, profile: Profile, step: Step = SINGLE) -> Tile:
    """The first of ``tiles``."""
    return next(iter(tiles(rows, columns, parts, profile, step).values()))


def most_rows(vectors: int, profile: Profile, step: Step = SINGLE, rows_a_factor: int = 1) -> int:
    """Rows of sums, ``vectors`` wide, that registers hold beside one row of the other operand and the factors.

    Of those it is one at a time, or where they are taken from lanes, a register for each ``rows_a_factor`` rows. Where
    each takes more registers than one, so does what is made of them on the way.
    """
    free = profile.vector_registers - step.held * vectors - (step.held - 1)
    if profile.by_lane:
        return free * rows_a_factor // (vectors * rows_a_factor + step.held * step.shared) * step.shared
    return (free - step.held) // vectors * step.shared


def panel_starts(columns: int, width: int) -> tuple[int, ...]:
    """First columns of the panels: the last panel ends with the last column, overlapping its neighbour."""
    return tuple(min(start, max(columns - width, 0)) for start in range(0, columns, width))
