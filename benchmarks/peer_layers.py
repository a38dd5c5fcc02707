"""Layers that a peer takes less time for than fick, module by module.

    python benchmarks/peer_layers.py [--model sd-1.5] [--peer openvino] [--precision bfloat16] [--rounds 9]

Peers time their own nodes, ONNX Runtime by its profiler, OpenVINO by its performance counters, in rounds of their own
after fick's: a layer is theirs only if it takes less than --share of fick's time. Nodes are joined by the module of the
source that they come from, and only modules with products are compared, with all that either system does in them: what
fick does on the way out of a product, a peer may do in another module.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import onnx_ir as ir
import onnxruntime
import typer
from json_file import JsonFile, write_json

from fick.compiler.bench.compare import bench, example_inputs
from fick.compiler.bench.peers import Task, exported
from fick.compiler.compile import compile
from fick.compiler.frontends import import_model
from fick.compiler.progress import terminal
from fick.ir.errors import UserError
from fick.ir.modules import module_path
from fick.runtime import Model

PRODUCTS = ("convolution", "matmul", "attention")
Seconds = Mapping[str, float]


def main(
    model: Annotated[str, typer.Option(help="As `fick compile` takes it.")] = "sd-1.5",
    peer: Annotated[Literal["onnxruntime", "openvino"], typer.Option()] = "openvino",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    share: Annotated[
        float, typer.Option(help="Of fick's time, at most, for a layer to be the peer's.")
    ] = 0.95,
    json_file: JsonFile = None,
) -> None:
    """Print the layers that the peer wins, those that it wins most by first."""
    try:
        with terminal() as reporter, tempfile.TemporaryDirectory(prefix="fick-layers-") as scratch:
            reporter.stage("compile")
            bundle = Path(scratch) / "model.fick"
            compile(model, output=bundle, precision=precision)
            reporter.stage("fick")
            ours = bench(bundle, rounds=rounds, layers=True, progress=reporter.update)
            with Model(bundle) as opened:
                task = Task(model, example_inputs(opened, 0), 0, precision)
            reporter.stage(peer)
            theirs = PEERS[peer](task, Path(scratch), rounds)
            reporter.finish()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    found = compared(ours["layers"], theirs)
    won = [one for one in found if one["theirs_s"] < share * one["ours_s"]]
    won.sort(key=lambda one: one["theirs_s"] - one["ours_s"])
    show(peer, found, won, sum(theirs.values()))
    write_json(json_file, {"peer": peer, "layers": found})


def compared(ours: Iterable[Mapping[str, Any]], theirs: Seconds) -> list[dict[str, Any]]:
    """Modules that both have, with what each takes in them."""
    modules: dict[str, dict[str, Any]] = {}
    for layer in ours:
        if layer["kind"] in PRODUCTS and theirs.get(layer["name"]):
            one = modules.setdefault(layer["name"], {**layer, "ours_s": 0.0, "least_s": 0.0})
            one["ours_s"] += layer["seconds"]
            one["least_s"] += layer["bound_s"]
    return [
        {key: one[key] for key in ("name", "kind", "shape", "bound_by", "ours_s", "least_s")}
        | {"theirs_s": theirs[name]}
        for name, one in modules.items()
    ]


def show(peer: str, found: list[dict[str, Any]], won: list[dict[str, Any]], whole: float) -> None:
    """Of the layers that the peer wins, those of one shape and place in a block together."""
    ours, theirs = (sum(one[key] for one in found) for key in ("ours_s", "theirs_s"))
    print(
        f"{len(found)} modules with products: fick {ours * 1e3:,.0f} ms, {peer} {theirs * 1e3:,.0f} ms "
        f"({theirs / whole:.0%} of its call); {len(won)} are {peer}'s"
    )
    alike: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in won:
        place = re.sub(r"\.\d+(?=\.|$)", "", one["name"].partition("attentions.")[2] or one["name"])
        alike[one["shape"], place, one["bound_by"]].append(one)
    print(f"\n| layers | shape | how many | fick | {peer} | least possible | bound by |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (shape, place, bound_by), ones in alike.items():
        sums = (f"{sum(one[key] for one in ones) * 1e3:.2f} ms" for key in ("ours_s", "theirs_s", "least_s"))
        print(f"| {place} | {shape} | {len(ones)} | {' | '.join(sums)} | {bound_by} |")


def onnxruntime_modules(task: Task, folder: Path, rounds: int) -> Seconds:
    """Medians of what its profiler says, by module."""
    model = import_model(task.source, shapes=task.sizes).model
    path = folder / "canonical.onnx"
    ir.save(model, os.fspath(path), external_data="canonical.data")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.workers
    options.enable_profiling = True
    options.profile_file_prefix = os.fspath(folder / "profile")
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    for _ in range(rounds + 1):
        session.run(None, dict(task.feeds))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name, is_kernel, _ = event["name"].rpartition("_kernel_time")
        if is_kernel:
            times[name].append(event["dur"] * 1e-6)
    # The first round warms up.
    medians = {
        name: statistics.median(one[len(one) // (rounds + 1) :]) * max(1, len(one) // (rounds + 1))
        for name, one in times.items()
    }
    return by_module(medians, names_of(model), lambda name: [name])


def openvino_modules(task: Task, folder: Path, rounds: int) -> Seconds:
    """Medians of its performance counters, by module."""
    import openvino  # pyright: ignore[reportMissingImports] - the extra "peers" brings it

    path = task.file or exported(task, folder)
    hints = {"float32": "f32", "bfloat16": "bf16"}
    options = {
        "INFERENCE_NUM_THREADS": str(task.workers), "ENABLE_CPU_PINNING": "NO", "PERF_COUNT": "YES",
        "INFERENCE_PRECISION_HINT": hints[task.precision],
    }  # fmt: skip
    core = openvino.Core()
    model = core.read_model(os.fspath(path))
    model.reshape(task.sizes)
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        request.infer(dict(task.feeds))
        if number:  # the first round warms up
            for one in request.profiling_info:
                times[one.node_name].append(one.real_time.total_seconds())
    medians = {name: statistics.median(one) for name, one in times.items()}
    # A node of its own graph says which of the source's it was made of.
    made_of = {
        node.get_friendly_name(): str(node.get_rt_info()["originalLayersNames"].astype(str)).split(",")
        for node in compiled.get_runtime_model().get_ordered_ops()
    }
    return by_module(medians, names_of(ir.load(path)), lambda name: made_of.get(name, [name]))


def names_of(model: ir.Model) -> dict[str, str]:
    """The module of every node, by the node's name and those of its outputs; products have the last word."""
    found: dict[str, str] = {}
    for node in sorted(model.graph, key=lambda one: one.op_type in ("Conv", "Gemm", "MatMul", "Attention")):
        if path := module_path(node):
            found |= {str(name): path for name in (node.name, *(value.name for value in node.outputs))}
    return found


def by_module(seconds: Seconds, modules: Mapping[str, str], sources: Callable[[str], list[str]]) -> Seconds:
    """Sums by module; what came of nodes that are not known is under "". Optimisers prolong names."""
    found: dict[str, float] = defaultdict(float)
    for name, one in seconds.items():
        paths = [path for source in sources(name) for path in candidates(source, modules)]
        found[paths[0] if paths else ""] += one
    return found


def candidates(name: str, modules: Mapping[str, str]) -> Iterator[str]:
    while name:
        if name in modules:
            yield modules[name]
            return
        shorter = name.rstrip("0123456789").rstrip("_/.")
        name = shorter if shorter != name else name.rpartition("_")[0]


PEERS: Mapping[str, Callable[[Task, Path, int], Seconds]] = {
    "onnxruntime": onnxruntime_modules,
    "openvino": openvino_modules,
}

if __name__ == "__main__":
    typer.run(main)
