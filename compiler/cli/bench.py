"""fick bench: seconds of a call, beside peers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from .arguments import BundleArgument, JsonOption
from .output import megabytes, milliseconds, out, write_json

EXAMPLE = "Example: `fick bench terrain.fick --model terrain.onnx --against onnxruntime --json -`"


def command(
    bundle: BundleArgument,
    model: Annotated[str | None, typer.Option(help="The bundle's source, for the peers to run.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="PEER,...", help="Peers: onnxruntime, openvino.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=10000, help="Interleaved rounds.")] = 10,
    threads: Annotated[int, typer.Option(min=0, help="0 takes all.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Time one call of BUNDLE, in turn with peers running the same model."""
    from ..bench import bench as measure
    from ..progress import terminal

    with terminal() as reporter:
        reporter.stage("measure")
        peers = [name for name in (against or "").split(",") if name]
        result = measure(
            bundle, model=model, peers=peers, rounds=rounds, threads=threads, progress=reporter.update
        )
        reporter.finish()
    if json_file and str(json_file) == "-":
        return write_json(json_file, result)
    table = Table("system", "a call (median)", "spread", "fick / it", "largest difference", box=None)
    ours = result["step_s"]
    table.add_row(
        "fick",
        milliseconds(ours["median"]),
        f"{milliseconds(ours['min'])} .. {milliseconds(ours['max'])}",
        "",
        "",
    )
    for name, peer in result["peers"].items():
        step = peer["step_s"]
        spread = f"{milliseconds(step['min'])} .. {milliseconds(step['max'])}"
        table.add_row(
            name, milliseconds(step["median"]), spread, f"{peer['ratio']:.2f}", f"{peer['max_abs_diff']:.1e}"
        )
    out.print(table)
    random = " (random)" if result["random_weights"] else ""
    out.print(
        f"weights {megabytes(result['weight_bytes'])}{random}, peak memory {megabytes(result['peak_bytes'])}"
    )
    if json_file:
        write_json(json_file, result)
