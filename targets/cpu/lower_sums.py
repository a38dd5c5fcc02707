"""How the sums of products of a convolution or a matrix product are divided: over registers, caches and cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ..expressions import Expression, Value
from ..packing import TILE_ROWS, Packing, Panels, Quads, TilePanels
from ..profile import Profile
from .contraction import Contraction, choose_tile, panel_starts
from .dots import DOTS, TOGETHER
from .kernel import Kernel
from .tiles import FORMATS, ROW_BYTES, WIDTH, Format, TileContraction

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

    def in_words(self) -> Sums | None:
        """The same, four reduction indices at a time, if those of the left operand lie next to each other."""
        sizes = (*self.a_rows, *self.a_reduce[:-1], self.reduce[-1])
        if self.a_reduce[-1] != 1 or any(size % TOGETHER for size in sizes):
            return None
        return replace(
            self,
            a_rows=tuple(stride // TOGETHER for stride in self.a_rows),
            reduce=(*self.reduce[:-1], self.reduce[-1] // TOGETHER),
            a_reduce=(*(stride // TOGETHER for stride in self.a_reduce[:-1]), 1),
        )


@dataclass(frozen=True)
class Plan:
    """The packing of the weights, and the kernel for given formats of its operands and an epilogue.

    ``scratch`` is how many sums it keeps in memory, in ``sums_dtype``.
    """

    packing: Packing
    packed_shape: tuple[int, ...]
    scratch: int
    sums_dtype: str
    kernel: Callable[[tuple[str, ...], Expression], Kernel]


def plan(sums: Sums, order: tuple[int, ...], formats: tuple[str, ...], profile: Profile) -> Plan:
    """How to sum the products of operands of two ``formats``; ``order`` is that of ``Panels``."""
    alike = formats[0] == formats[1]
    if alike and formats[0] in profile.tile_formats and _fits_tiles(sums, FORMATS[formats[0]]):
        return _on_tiles(sums, order, formats[0], profile)
    if formats == ("int8", "int8") and (words := sums.in_words()) is not None:
        return _on_vectors(words, order, formats, profile, profile.int8_dot)
    return _on_vectors(sums, order, formats, profile)


def _on_vectors(
    sums: Sums, order: tuple[int, ...], formats: tuple[str, ...], profile: Profile, dot: str | None = None
) -> Plan:
    """Sums in vector registers, of products one by one or of dot products by the instruction ``dot``."""
    held = 1 if dot is None else DOTS[dot].held
    tile = choose_tile(sums.rows[-1], sums.columns, sums.parts, profile, held)
    starts = panel_starts(sums.columns, tile.width // sums.parts)
    tiles = sums.tiles(tile.rows)
    room = profile.l2_bytes // 2 // (4 * tile.width)
    reduce, a_reduce, splits = _split(sums.reduce, sums.a_reduce, room, tiles)
    facts = {**asdict(sums), "reduce": reduce, "a_reduce": a_reduce}
    blocks = min(_row_blocks(sums, len(starts), 4, profile), tiles)
    pieces = _pieces(len(starts) * blocks, math.ceil(tiles / blocks), profile.cores)

    def kernel(dtypes: tuple[str, ...], epilogue: Expression) -> Contraction:
        return Contraction(
            dtypes,
            **facts,
            tile=tile,
            epilogue=epilogue,
            splits=splits,
            blocks=blocks,
            pieces=pieces,
            dot=dot,
        )

    panels = Panels(order=order, width=tile.width, starts=starts, parts=sums.parts)
    shape = (len(starts), math.prod(reduce), tile.width)
    if dot is not None:
        panels = Quads(**panels.model_dump(exclude={"kind"}), bias=DOTS[dot].bias)
        shape = (shape[0], 1 + shape[1], shape[2], TOGETHER)
    like = kernel(formats, Value())
    return Plan(panels, shape, like.scratch_floats, like.sums_dtype, kernel)


def _fits_tiles(sums: Sums, format: Format) -> bool:
    """Whether a matrix unit can take the left operand as it lies."""
    return sums.a_reduce[-1] == 1 and sums.reduce[-1] % format.step == 0


def _on_tiles(sums: Sums, order: tuple[int, ...], name: str, profile: Profile) -> Plan:
    """Sums in the registers of a matrix unit, of products of numbers in the format called ``name``."""
    format = FORMATS[name]
    height = math.ceil(sums.rows[-1] / math.ceil(sums.rows[-1] / TILE_ROWS))
    starts = panel_starts(sums.columns, WIDTH // sums.parts)
    pairs = math.ceil(sums.tiles(height) / 2)
    steps = (*sums.reduce[:-1], sums.reduce[-1] // format.step)
    room = profile.l1_bytes // 2 // (WIDTH * ROW_BYTES)
    reduce, a_reduce, splits = _split(steps, (*sums.a_reduce[:-1], format.step), room, pairs)
    facts = {**asdict(sums), "reduce": reduce, "a_reduce": a_reduce}
    blocks = min(_row_blocks(sums, len(starts), format.item_bytes, profile), pairs)
    groups = min(math.ceil(TASKS_A_CORE * profile.cores / blocks), len(starts))

    def kernel(dtypes: tuple[str, ...], epilogue: Expression) -> TileContraction:
        return TileContraction(
            dtypes, **facts, tile_rows=height, epilogue=epilogue, splits=splits, blocks=blocks,
            groups=groups, lanes=profile.vector_lanes,
        )  # fmt: skip

    return Plan(
        TilePanels(order=order, width=WIDTH, starts=starts, parts=sums.parts, together=format.together),
        (len(starts), math.prod(reduce), 2, TILE_ROWS, TILE_ROWS, format.together),
        kernel((name, name), Value()).scratch_floats,
        format.sums_dtype,
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
