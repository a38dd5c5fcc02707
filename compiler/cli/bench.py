"""fick bench: seconds of a call, beside peers and beside the limit of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from .arguments import BundleArgument, JsonOption, ThreadsOption, place
from .output import megabytes, milliseconds, out, write_json, write_result

EXAMPLE = (
    "Example: `fick bench terrain.fick --model terrain.onnx --against onnxruntime --json -` or "
    "`fick bench terrain.fick --layers --chart roofline.png`"
)

MOST_SHOWN = 20
LONGEST_NAME = 19
"""On the terminal; the end tells one layer from another."""


def command(
    bundle: BundleArgument,
    model: Annotated[str | None, typer.Option(help="The bundle's source, for the peers to run.")] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="PEER,...", help="Peers: onnxruntime, openvino, torch, torch-eager, iree."),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16", "int8"] | None,
        typer.Option(help="What the peers compute in; int8 is products of integers. [default: float32]"),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=10000, help="Interleaved rounds, as many with each peer.")
    ] = 10,
    threads: ThreadsOption = 0,
    layers: Annotated[
        bool, typer.Option("--layers", help="Measure what the machine can do, and every layer beside it.")
    ] = False,
    chart: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="The roofline as a picture; implies --layers.", callback=place),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Time one call of BUNDLE, in turn with peers running the same model, and its layers beside the machine's limit."""
    from ..bench.compare import bench as measure
    from ..progress import terminal

    with terminal() as reporter:
        reporter.stage("measure")
        peers = [name for name in (against or "").split(",") if name]
        result = measure(
            bundle,
            model=model,
            peers=peers,
            precision=precision,
            rounds=rounds,
            threads=threads,
            layers=layers or chart is not None,
            progress=reporter.update,
        )
        reporter.finish()
    if chart is not None:
        from ..bench.roofline import draw

        write_result(chart, draw({bundle.name: result}))
    if json_file and str(json_file) == "-":
        return write_json(json_file, result)
    out.print(_systems(result))
    if "alternatives" in result:
        out.print(_alternatives(result["alternatives"]))
    random = " (random)" if result["random_weights"] else ""
    out.print(
        f"weights {megabytes(result['weight_bytes'])}{random}, peak memory {megabytes(result['peak_bytes'])}, "
        f"{result['threads']} threads on cores {', '.join(map(str, result['cores']))}"
    )
    for name, peer in result["peers"].items():
        if "failed" in peer:
            out.print(f"{name}: {escape(peer['failed'])}", soft_wrap=True)
    if "layers" in result:
        out.print(_limits(result["peaks"]))
        out.print(_kinds(result))
        out.print(_furthest(result))
    if json_file:
        write_json(json_file, result)


def _systems(result: Mapping[str, Any]) -> Table:
    table = Table("system", "a call (median)", "spread", "fick / it", "difference", "at most", box=None)
    table.add_row("fick", *_seconds(result["step_s"]), "", "", "")
    for name, peer in result["peers"].items():
        if "failed" not in peer:
            apart = (f"{peer[key]:.1e}" for key in ("rms_diff", "relative_diff"))
            table.add_row(name, *_seconds(peer["step_s"]), f"{peer['ratio']:.2f}", *apart)
    return table


def _alternatives(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """What steps of a schedule may run, and what the times of the layers in "full" would have each take."""
    table = Table("alternative", "a call (median)", "spread", "of full", "by its layers", box=None)
    for name, one in found.items():
        table.add_row(name, *_seconds(one["step_s"]), f"{one['ratio']:.2f}", milliseconds(one["predicted_s"]))
    return table


def _seconds(step: Mapping[str, float]) -> tuple[str, str]:
    return milliseconds(step["median"]), f"{milliseconds(step['min'])} .. {milliseconds(step['max'])}"


def _limits(peaks: Mapping[str, Any]) -> str:
    multiplied = [f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in peaks["flops_per_s"].items()]
    read = [
        f"{one['bytes_per_s'] / 1e9:,.0f} GB/s from {one['buffer_bytes'] / (1 << 20):g} MiB" for one in peaks["read"]
    ]  # fmt: skip
    return f"\nthe machine's limit: {', '.join(multiplied)}; it reads {', '.join(read)}"


def _kinds(result: Mapping[str, Any]) -> Table:
    table = _table("By kind of layer", "kind", "layers", "time", "at the limit", "share", "GFLOP/s")
    for kind, one in {**result["kinds"], "all": result["total"]}.items():
        table.add_row(kind, str(one["layers"]), *_figures(one))
    return table


def _furthest(result: Mapping[str, Any]) -> Table:
    title = f"Of {len(result['layers'])} layers those that lose most to the limit"
    table = _table(title, "layer", "shape", "time", "share", "GFLOP/s", "bound by")
    for one in result["layers"][:MOST_SHOWN]:
        name = one["name"]
        if len(name) > LONGEST_NAME:
            name = "…" + name[1 - LONGEST_NAME :]
        time, _, share, rate = _figures(one)
        table.add_row(escape(name), one["shape"], time, share, rate, one["bound_by"])
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, title=f"\n{title}", title_justify="left")
    for name in columns:
        numbers = name in ("layers", "time", "at the limit", "share", "GFLOP/s")
        table.add_column(name, no_wrap=True, justify="right" if numbers else "left")
    return table


def _figures(one: Mapping[str, float]) -> tuple[str, str, str, str]:
    return (
        f"{one['seconds'] * 1e3:,.2f} ms",
        f"{one['bound_s'] * 1e3:,.2f} ms",
        f"{one['share']:.0%}",
        f"{one['flops_per_s'] / 1e9:,.0f}",
    )
