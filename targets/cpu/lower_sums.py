"""How the sums of products of a convolution or a matrix product are divided: over registers, caches and cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ..expressions import Expression, Value
from ..lowering import Choose, first
from ..packing import TILE_ROWS, Packing, Panels, TilePanels, WordPanels
from ..profile import Profile
from .contraction import Contraction
from .dots import DOTS, Dot
from .halves import in_runs
from .kernel import Kernel
from .register_tiles import Step, panel_starts, tiles
from .tiles import FORMATS, ROW_BYTES, WIDTH, TileContraction
from .unpack import LOOKUP_LANES, items_of

TASKS_A_CORE = 4

NUMBERS = ("float32", "bfloat16", "float16")
"""Formats that kernels read as they lie."""

INTEGERS = ("int8", "int4", "int2")
"""Formats of the weights that int8 numbers have dot products with."""

OPENED_FROM = 4
"""Tiles that share a panel, at least, for its codes to be opened once for all of them."""

TILED_FROM = 8
"""Rows, at least, for codes to be opened into tiles."""


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

    def described(self, formats: tuple[str, ...]) -> str:
        """What is summed, without where it lies."""
        columns = f"{self.columns}" if self.parts == 1 else f"{self.parts} times {self.columns}"
        return f"{list(self.rows)} rows of {columns} sums of {list(self.reduce)}, {' by '.join(formats)}"

    def in_words(self, dot: Dot) -> Sums | None:
        """The same, as many reduction indices at a time as a dot product has, if those of the left operand lie next to
        each other and there are rows enough.
        """
        together = dot.together
        sizes = (*self.a_rows, *self.a_reduce[:-1], self.reduce[-1])
        if self.a_reduce[-1] != 1 or any(size % together for size in sizes) or self.rows[-1] < dot.rows:
            return None
        return replace(
            self,
            a_rows=tuple(stride // together for stride in self.a_rows),
            reduce=(*self.reduce[:-1], self.reduce[-1] // together),
            a_reduce=(*(stride // together for stride in self.a_reduce[:-1]), 1),
        )


@dataclass(frozen=True)
class Plan:
    """The packing of the weights, and the kernel for given formats of its operands and an epilogue.

    ``scratch`` are the formats and sizes of what it keeps in memory between its operands and those of the epilogue, and
    ``scales`` the packing of the scales of blocks, if weights have those, which follow.
    """

    packing: Packing
    packed_shape: tuple[int, ...]
    scratch: tuple[tuple[str, int], ...]
    kernel: Callable[[tuple[str, ...], Expression], Kernel]
    scales: Panels | None = None
    scales_shape: tuple[int, ...] = ()


def plan(
    sums: Sums, order: tuple[int, ...], formats: tuple[str, ...], profile: Profile, group: int = 0,
    choose: Choose = first,
) -> Plan:  # fmt: skip
    """How to sum the products of operands of two ``formats``; ``order`` is that of ``Panels``.

    ``group`` is how many neighbouring indices of the reduction share a row of scales, if there are such.
    """
    left, right = formats
    if _takes_tiles(sums, left, right, profile) and not group:
        return _on_tiles(sums, order, left, right, profile, choose)
    dot = None if group else _dot(left, right, profile)
    while dot is not None:
        if (words := sums.in_words(DOTS[dot])) is not None:
            return _on_vectors(words, order, formats, profile, choose, dot=dot)
        dot = DOTS[dot].otherwise
    return _on_vectors(sums, order, formats, profile, choose, group=group)


def _dot(left: str, right: str, profile: Profile) -> str | None:
    """The instruction for dot products of numbers of two formats."""
    if left == "int8" and right in INTEGERS:
        return profile.int8_dot
    return profile.bfloat16_dot if left == right == "bfloat16" else None


def _on_vectors(
    sums: Sums,
    order: tuple[int, ...],
    formats: tuple[str, ...],
    profile: Profile,
    choose: Choose,
    dot: str | None = None,
    group: int = 0,
) -> Plan:
    """Sums in vector registers, of products one by one or of dot products by the instruction ``dot``."""
    held, shared = (1, 1) if dot is None else (DOTS[dot].held, DOTS[dot].rows)
    runs = sums.reduce, sums.a_reduce, 0
    if formats == ("float16", "float16"):
        runs = in_runs(sums.reduce, sums.a_reduce, profile.half_run)
    in_half = runs[2] > 0
    codes = None if formats[1] in (*NUMBERS, *(() if dot is None else ("int8",))) else formats[1]
    problem = sums.described(formats)
    sizes = sums.rows[-1], sums.columns, sums.parts, profile
    step = Step(held, codes, shared, in_half)
    tile = choose(problem, tiles(*sizes, step))
    opened = codes is not None and sums.tiles(tile.rows) >= OPENED_FROM
    if codes is not None and not opened and profile.vector_lanes != LOOKUP_LANES:
        tile = choose(f"{problem} opened in registers", tiles(*sizes, replace(step, held=held + 1)))
    starts = panel_starts(sums.columns, tile.width // sums.parts)
    count = sums.tiles(tile.rows)
    item_bytes = 2 if in_half else 4 * shared
    blocks = min(_row_blocks(sums, len(starts), item_bytes, profile), count)
    pieces = _pieces(len(starts) * blocks, math.ceil(count / blocks), profile.cores)
    factor_bytes = item_bytes if codes is None or opened else shared
    room = profile.l2_bytes // 2 // (factor_bytes * tile.width)
    reduce, a_reduce, splits = _split(*runs[:2], room, count)
    facts = {**asdict(sums), "reduce": reduce, "a_reduce": a_reduce}
    workers = min(TASKS_A_CORE * profile.cores, len(starts) * blocks * pieces) if opened else 0

    def kernel(dtypes: tuple[str, ...], epilogue: Expression) -> Contraction:
        return Contraction(
            dtypes, **facts, tile=tile, epilogue=epilogue, splits=splits, blocks=blocks, pieces=pieces, dot=dot,
            codes=codes, group=group, opened=opened, workers=workers, run_axes=runs[2],
        )  # fmt: skip

    panels = Panels(order=order, width=tile.width, starts=starts, parts=sums.parts)
    depth = math.prod(reduce)
    shape = (len(starts), depth, items_of(codes, tile.width))
    like = kernel((formats[0], "uint8" if codes else formats[1]), Value())
    scratch = ((like.sums_dtype, like.scratch_floats), (like.sums_dtype, like.opened_factors))
    packing = panels
    if dot is not None:
        together, bias = DOTS[dot].together, DOTS[dot].bias
        packing = WordPanels(**panels.model_dump(exclude={"kind"}), together=together, bias=bias)
        shape = (*shape, together)
        if bias:
            shape = (shape[0], 4 * tile.width + math.prod(shape[1:]))
    return Plan(
        packing.model_copy(update={"format": codes if codes != "int8" else None}),
        shape,
        tuple((dtype, count) for dtype, count in scratch if count),
        kernel,
        panels if group else None,
        (len(starts), math.ceil(depth / group), tile.width) if group else (),
    )


def _takes_tiles(sums: Sums, left: str, right: str, profile: Profile) -> bool:
    """Whether a matrix unit can take the left operand as it lies, and the right one as it opens."""
    if left not in profile.tile_formats or sums.a_reduce[-1] != 1 or sums.reduce[-1] % FORMATS[left].step:
        return False
    if left == right:
        return True
    if right == "int2":  # a byte has a code for each of four tiles, and a panel is two
        return False
    return right == "int4" if left == "int8" else right not in NUMBERS and math.prod(sums.rows) >= TILED_FROM


def _on_tiles(
    sums: Sums, order: tuple[int, ...], left: str, right: str, profile: Profile, choose: Choose
) -> Plan:
    """Sums in the registers of a matrix unit, of products of numbers in the format of the ``left`` ones."""
    format = FORMATS[left]
    codes = None if right == left else right
    height = math.ceil(sums.rows[-1] / math.ceil(sums.rows[-1] / TILE_ROWS))
    starts = panel_starts(sums.columns, WIDTH // sums.parts)
    pairs = math.ceil(sums.tiles(height) / 2)
    steps = (*sums.reduce[:-1], sums.reduce[-1] // format.step)
    room = profile.l1_bytes // 2 // (WIDTH * ROW_BYTES)
    reduce, a_reduce, splits = _split(steps, (*sums.a_reduce[:-1], format.step), room, pairs)
    facts = {**asdict(sums), "reduce": reduce, "a_reduce": a_reduce}
    blocks = min(_row_blocks(sums, len(starts), format.item_bytes, profile), pairs)
    tasks = (TASKS_A_CORE, 2 * TASKS_A_CORE, 1, 4 * TASKS_A_CORE)
    divisions = (min(math.ceil(count * profile.cores / blocks), len(starts)) for count in tasks)
    groups = choose(
        sums.described((left, right)), {f"{count} groups of panels": count for count in divisions}
    )

    def kernel(dtypes: tuple[str, ...], epilogue: Expression) -> TileContraction:
        return TileContraction(
            dtypes, **facts, tile_rows=height, epilogue=epilogue, splits=splits, blocks=blocks,
            groups=groups, lanes=profile.vector_lanes, codes=codes,
        )  # fmt: skip

    packing = TilePanels(
        order=order, width=WIDTH, starts=starts, parts=sums.parts, together=format.together,
        format=codes if codes != "int8" else None,
    )  # fmt: skip
    like = kernel((left, left), Value())
    scratch = ((format.sums_dtype, like.scratch_floats), (left, like.opened_factors))
    return Plan(
        packing,
        (len(starts), math.prod(reduce), items_of(codes, 2), TILE_ROWS, TILE_ROWS, format.together),
        tuple((dtype, count) for dtype, count in scratch if count),
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
