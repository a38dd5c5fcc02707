"""One call of UNets, fick beside its peers and beside the limit of this machine, in interleaved rounds.

    python benchmarks/unet.py [--models terrain,34m,sd-1.5,bk-sdm-tiny] [--peers onnxruntime,openvino,torch,iree]
                              [--precision bfloat16] [--recipe FILE] [--rounds 11] [--json FILE] [--chart FILE.png]

Prints a row a model: the median of a call and half of the range in which the middle half of the rounds lies; for fick
the share of the machine's limit that all layers together reach; for each peer fick's time over the peer's, and the root
mean square of the difference between their outputs in standard deviations of the output. With ``--precision int8``
peers have integers for their products; so does fick, by the recipe w8a8-noise unless another is given, and stores the
rest in bfloat16 where this machine multiplies that, as OpenVINO does. A model is compiled, measured and forgotten
before the next: SD-1.5 takes a few minutes to compile and 8 GB of memory, its integers for peers 15 GB.
"""

from __future__ import annotations

import math
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from json_file import JsonFile, write_json

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.fspath(HERE.parent / "examples"))

from terrain_model import fetch  # noqa: E402

from fick.compiler.bench.compare import bench  # noqa: E402
from fick.compiler.bench.peers import PEERS  # noqa: E402
from fick.compiler.bench.roofline import draw  # noqa: E402
from fick.compiler.bundle.skeleton import manifest_of  # noqa: E402
from fick.compiler.compile import compile  # noqa: E402
from fick.ir.errors import UserError  # noqa: E402
from fick.ir.files import write_whole  # noqa: E402
from fick.targets.profile import processor  # noqa: E402

INTEGERS = HERE.parent / "examples" / "recipes" / "w8a8-noise.toml"

MODELS: dict[str, Callable[[], str]] = {
    "terrain": lambda: str(fetch()),
    # Shaped like Stable Diffusion's, small enough to be measured often.
    "34m": lambda: str(HERE / "unet-34m.json"),
}
"""What is not named here is a source by itself: sd-1.5, bk-sdm-tiny, the path of a model."""


def main(
    models: Annotated[str, typer.Option(help="Names or paths, with commas.")] = "terrain,34m",
    peers: Annotated[str, typer.Option(help=f"Of {', '.join(PEERS)}, with commas.")] = "onnxruntime,openvino",
    precision: Annotated[
        Literal["float32", "bfloat16", "int8"],
        typer.Option(help="What fick and its peers store and multiply."),
    ] = "float32",
    recipe: Annotated[Path | None, typer.Option(help="A recipe that fick compiles with.")] = None,
    cores: Annotated[str, typer.Option(help="Cores to keep to, such as 0,1. [default: all]")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds with each peer.")] = 11,
    json_file: JsonFile = None,
    chart: Annotated[Path | None, typer.Option(help="The rooflines, as a PNG.")] = None,
) -> None:
    """Print a table, and below it why a peer has no place in it."""
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    pinned = sorted(os.sched_getaffinity(0))
    columns = [name for name in peers.split(",") if name]
    print(f"{platform.machine()}, cores {', '.join(map(str, pinned))}, {rounds} rounds, {precision}\n")
    print("| " + " | ".join(["UNet, batch 1", "fick", "of the limit", *columns, "peak memory"]) + " |")
    print("| " + " | ".join(["---"] * (4 + len(columns))) + " |")
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="fick-bench-") as folder:
        for name in models.split(","):
            source = MODELS.get(name, lambda name=name: name)()
            bundle = Path(folder) / "model.fick"
            try:
                compile(source, output=bundle, **ways(precision, recipe))
                label = described(name, bundle)
                beside: dict[str, Any] = (
                    {"model": source, "peers": columns, "precision": precision} if columns else {}
                )
                found[label] = bench(bundle, **beside, rounds=rounds, layers=True)
            except UserError as error:
                print(f"{name}: {error}", file=sys.stderr)
                raise SystemExit(2) from None
            print(row(label, found[label]), flush=True)
    for label, facts in found.items():
        for one in facts["peers"].values():
            if "failed" in one:
                print(f"\n{label}: {one['failed']}")
    write_json(json_file, {"cores": pinned, "models": found})
    if chart is not None:
        write_whole(chart, draw(found))


def ways(precision: str, recipe: Path | None) -> dict[str, Any]:
    """How fick compiles for a row."""
    if precision != "int8":
        return {"precision": precision, "recipe": recipe}
    host = processor("host")
    narrow = "bfloat16" in host.tile_formats or host.bfloat16_dot is not None
    return {"precision": "bfloat16" if narrow else "float32", "recipe": recipe or INTEGERS}


def described(name: str, bundle: Path) -> str:
    manifest = manifest_of(bundle)
    component = next(iter(manifest["components"].values()))
    count = sum(math.prod(shape) for shape in component["source_weights"].values())
    kind = "random weights" if manifest.get("random_weights") else "trained"
    return f"{Path(name).stem if name.endswith('.onnx') else name}, {count / 1e6:.3g} M, {kind}"


def row(label: str, facts: Mapping[str, Any]) -> str:
    cells = [label, seconds(facts["step_s"]), f"{facts['total']['share']:.0%}"]
    for one in facts["peers"].values():
        measured = f"{one['ratio']:.2f}x, {one['rms_diff']:.0e}" if "ratio" in one else ""
        cells.append(f"{seconds(one['step_s'])} ({measured})" if measured else "-")
    return "| " + " | ".join([*cells, f"{facts['peak_bytes'] / 1e6:,.0f} MB"]) + " |"


def seconds(step: Mapping[str, float]) -> str:
    spread = (step["quartile_3"] - step["quartile_1"]) / 2
    return f"{step['median'] * 1e3:,.0f} ± {spread * 1e3:,.0f} ms"


if __name__ == "__main__":
    typer.run(main)
