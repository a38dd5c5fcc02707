"""How the sums of products of a convolution or a matrix product are divided: over registers, caches and cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..expressions import Expression, Value
from ..packing import TILE_ROWS, Packing, Panels, TilePanels
from ..profile import Profile
from .contraction import Contraction, choose_tile, panel_starts
from .kernel import Kernel
from .tiles import STEP, WIDTH, TileContraction

TASKS_A_CORE = 4


@dataclass(frozen=True)
class Sums:
    """What is to be summed, in the words of ``Contraction``."""

    rows: tuple[int, ...]
    a_rows: tuple[int, ...]
    reduce: tuple[int, ...]
    a_reduce: tuple[int, ...]
    columns: int
    parts: int
    out_strides: tuple[int, ...]

    def tiles(self, height: int) -> int:
        return math.prod(self.rows[:-1]) * math.ceil(self.rows[-1] / height)


@dataclass(frozen=True)
class Plan:
    """The packing of the weights, and the kernel for given formats of its operands and an epilogue."""

    packing: Packing
    packed_shape: tuple[int, ...]
    scratch_floats: int
    kernel: Callable[[tuple[str, ...], Expression], Kernel]


def on_vectors(sums: Sums, order: tuple[int, ...], profile: Profile) -> Plan:
    """Sums in vector registers."""
    tile = choose_tile(sums.rows[-1], sums.columns, sums.parts, profile)
    starts = panel_starts(sums.columns, tile.width // sums.parts)
    tiles = sums.tiles(tile.rows)
    room = profile.l2_bytes // 2 // (4 * tile.width)
    reduce, a_reduce, splits = _split(sums.reduce, sums.a_reduce, room, tiles)
    facts = {**asdict(sums), "reduce": reduce, "a_reduce": a_reduce}
    blocks = min(_row_blocks(sums, len(starts), 4, profile), tiles)
    pieces = _pieces(len(starts) * blocks, math.ceil(tiles / blocks), profile.cores)

    def kernel(dtypes: tuple[str, ...], epilogue: Expression) -> Contraction:
        return Contraction(
            dtypes, **facts, tile=tile, epilogue=epilogue, splits=splits, blocks=blocks, pieces=pieces
        )

    return Plan(
        Panels(order=order, width=tile.width, starts=starts, parts=sums.parts),
        (len(starts), math.prod(reduce), tile.width),
        kernel(("float32",) * 4, Value()).scratch_floats,
        kernel,
    )


def fits_tiles(sums: Sums, formats: set[str], profile: Profile) -> bool:
    """Whether a matrix unit can take both operands as they lie."""
    known = len(formats) == 1 and formats <= set(profile.tile_formats)
    return known and sums.a_reduce[-1] == 1 and sums.reduce[-1] % STEP == 0


def on_tiles(sums: Sums, order: tuple[int, ...], profile: Profile) -> Plan:
    """Sums in the registers of a matrix unit."""
    height = math.ceil(sums.rows[-1] / math.ceil(sums.rows[-1] / TILE_ROWS))
    starts = panel_starts(sums.columns, WIDTH // sums.parts)
    pairs = math.ceil(sums.tiles(height) / 2)
    steps = (*sums.reduce[:-1], sums.reduce[-1] // STEP)
    room = profile.l1_bytes // 2 // (2 * WIDTH * STEP)
    reduce, a_reduce, splits = _split(steps, (*sums.a_reduce[:-1], STEP), room, pairs)
    facts = {**asdict(sums), "reduce": reduce, "a_reduce": a_reduce}
    blocks = min(_row_blocks(sums, len(starts), 2, profile), pairs)
    groups = min(math.ceil(TASKS_A_CORE * profile.cores / blocks), len(starts))

    def kernel(dtypes: tuple[str, ...], epilogue: Expression) -> TileContraction:
        return TileContraction(
            dtypes, **facts, tile_rows=height, epilogue=epilogue, splits=splits, blocks=blocks,
            groups=groups, lanes=profile.vector_lanes,
        )  # fmt: skip

    return Plan(
        TilePanels(order=order, width=WIDTH, starts=starts, parts=sums.parts),
        (len(starts), math.prod(reduce), 2, TILE_ROWS, TILE_ROWS, 2),
        kernel(("bfloat16", "bfloat16"), Value()).scratch_floats,
        kernel,
    )


def _row_blocks(sums: Sums, panels: int, item_bytes: int, profile: Profile) -> int:
    """Into how many blocks rows are cut: those of a block stay in the second-level cache while panels pass by.

    Every block reads all panels. Neighbouring rows of a convolution share what they read.
    """
    row_bytes = item_bytes * math.prod(sums.rows) * sums.reduce[-1]
    panel_bytes = item_bytes * math.prod(sums.reduce) * sums.columns * sums.parts
    blocks = math.ceil(row_bytes / (profile.l2_bytes // 2))
    if 4 * row_bytes <= 3 * profile.l2_bytes or panels * row_bytes <= (blocks - 1) * panel_bytes:
        return 1
    return blocks


def _split(
    reduce: tuple[int, ...], a_reduce: tuple[int, ...], room: int, tiles: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Cut the reduction so that a slice of a panel stays in the cache, which has ``room``, between tiles."""
    if tiles <= 2 or math.prod(reduce) <= room:
        return reduce, a_reduce, 0
    for splits in range(1, len(reduce)):
        if math.prod(reduce[splits:]) <= room:
            return reduce, a_reduce, splits
    last = reduce[-1]
    piece = max(size for size in range(1, min(last, room) + 1) if last % size == 0)
    cut = (*reduce[:-1], last // piece, piece)
    return cut, (*a_reduce[:-1], a_reduce[-1] * piece, a_reduce[-1]), len(cut) - 1


def _pieces(panels: int, tiles: int, cores: int) -> int:
    """Pieces of the rows of a panel so that cores finish together: the fewest within 3 % of an even share."""
    best, best_waste = 1, math.inf
    for pieces in range(1, min(tiles, 4 * cores) + 1):
        rounds = math.ceil(panels * pieces / cores)
        waste = rounds * math.ceil(tiles / pieces) * cores / (panels * tiles)
        if waste < best_waste - 0.03:
            best, best_waste = pieces, waste
    return best
