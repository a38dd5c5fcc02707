"""Products of few rows, which wait for their weights: the speed of those bytes, beside that at which memory is read.

    python benchmarks/few_bits.py [--rows 1] [--size 4096] [--layers 8] [--rounds 15]

A chain of square matrices, too many for the caches, with weights of each format. A row is the median of a call, what
its weights come to in bytes a second, and which share that is of what this machine reads from memory at most.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx_ir as ir
import typer

import fick
from fick.compiler.bench.peaks import measure_peaks
from fick.ir.canonical import OPSET
from fick.runtime import Model

RECIPE = """
[calibration]
steps = 1

[[pass]]
name = "quantise"
weights = "{format}"
activations = "float32"
"""


def main(
    rows: Annotated[int, typer.Option(min=1)] = 1,
    size: Annotated[int, typer.Option(min=64)] = 4096,
    layers: Annotated[int, typer.Option(min=1)] = 8,
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    formats: Annotated[str, typer.Option(help="With commas.")] = "float32,int8,int4,int2,e4m3,e2m1",
) -> None:
    """Print a row a format."""
    memory = min(measure_peaks().bytes_per_s.values())
    print(
        f"memory is read at {memory / 1e9:.0f} GB/s; {layers} products of {rows} x {size} by {size} x {size}\n"
    )
    print("| weights | a call | weights, MB | GB/s | of memory's | of float32's time |")
    print("| --- | --- | --- | --- | --- | --- |")
    first = None
    with tempfile.TemporaryDirectory(prefix="fick-bits-") as scratch:
        folder = Path(scratch)
        ir.save(chain(rows, size, layers), folder / "chain.onnx")
        for format in formats.split(","):
            seconds, weight_bytes = timed(folder, format, rows, size, rounds)
            first = first or seconds
            rate = weight_bytes / seconds
            cells = (
                format, f"{seconds * 1e3:.2f} ms", f"{weight_bytes / 1e6:.1f}", f"{rate / 1e9:.1f}",
                f"{rate / memory:.0%}", f"{seconds / first:.2f}x",
            )  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


def chain(rows: int, size: int, layers: int) -> ir.Model:
    """Each product's result is the next one's left operand: convolutions of one tap, for rows are pixels."""
    draw, shape = np.random.default_rng(0), [1, size, 1, rows]
    x = ir.val("x", ir.DataType.FLOAT, shape)
    nodes, weights, value = [], [], x
    for index in range(layers):
        numbers = draw.standard_normal((size, size, 1, 1), dtype=np.float32) / np.sqrt(size, dtype=np.float32)
        weights.append(ir.val(f"w{index}", const_value=ir.tensor(numbers, name=f"w{index}")))
        nodes.append(ir.node("Conv", [value, weights[-1]], name=f"product{index}"))
        value = nodes[-1].outputs[0]
        value.name = f"y{index}"
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(shape)
    graph = ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": OPSET}, name="chain")
    return ir.Model(graph, ir_version=11)


def timed(folder: Path, format: str, rows: int, size: int, rounds: int) -> tuple[float, int]:
    """Seconds of a call, the median, and bytes of weights."""
    recipe = None
    if format != "float32":
        recipe = folder / f"{format}.toml"
        recipe.write_text(RECIPE.format(format=format), encoding="utf-8")
    made = fick.compile(folder / "chain.onnx", output=folder / f"{format}.fick", recipe=recipe)
    x = np.random.default_rng(1).standard_normal((1, size, 1, rows)).astype(np.float32)
    with fick.load(made.bundle) as loaded:
        assert isinstance(loaded, Model)
        taken = []
        for _ in range(rounds + 1):
            loaded.run(x=x)
            taken.append(sum(call.seconds for call in loaded.profile()))
    return statistics.median(taken[1:]), made.weight_bytes


if __name__ == "__main__":
    typer.run(main)
