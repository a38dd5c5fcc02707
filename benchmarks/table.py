"""The README's table: one call of a UNet, fick beside its peers, in interleaved rounds on this machine.

    python benchmarks/table.py [--rounds 15] [--sd] [--busy]

``--sd`` adds SD-1.5 with random weights (several minutes to compile, 14 GB of memory). ``--busy``
has another process keep one core for itself all the while. Differences are the
largest between outputs, in standard deviations of the output.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1] / "examples"))

from terrain_model import fetch

from fick.compiler.bench import bench
from fick.compiler.compile import compile


def small_unet(folder: Path) -> Path:
    """A 34 M-parameter UNet shaped like Stable Diffusion's, random weights, as .onnx for every peer."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(64, 128, 256, 256),
        cross_attention_dim=256,
        attention_head_dim=8,
        norm_num_groups=32,
    ).eval()
    path = folder / "unet-34m.onnx"
    inputs = (torch.zeros(1, 4, 32, 32), torch.zeros(1), torch.zeros(1, 77, 256))
    names = ["sample", "timestep", "encoder_hidden_states"]
    # Opset 18: the newest that OpenVINO reads without trouble.
    torch.onnx.export(
        model, inputs, os.fspath(path), dynamo=True, opset_version=18, input_names=names, verbose=False
    )
    return path


def row(name: str, source: Any, peers: list[str], rounds: int, folder: Path) -> str:
    """Compile, measure, and give one line of the table."""
    bundle = folder / f"{name}.fick"
    compile(source, output=bundle)
    result = bench(bundle, model=source, peers=peers, rounds=rounds)
    cells = [f"{name}", f"{result['step_s']['median'] * 1e3:.0f} ms"]
    for peer in ("onnxruntime", "openvino"):
        if peer not in result["peers"]:
            cells.append("-")
            continue
        facts = result["peers"][peer]
        cells.append(
            f"{facts['step_s']['median'] * 1e3:.0f} ms ({facts['ratio']:.2f}x, {facts['relative_diff']:.0e})"
        )
    cells.append(f"{result['peak_bytes'] / 1e6:,.0f} MB")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sd", action="store_true")
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if options.busy else None
    try:
        print_table(options)
    finally:
        if spinner:
            spinner.kill()


def print_table(options: argparse.Namespace) -> None:
    both = ["onnxruntime"]
    try:
        import openvino  # noqa: F401

        both.append("openvino")
    except ImportError:
        print(
            "openvino is not installed (pip install 'fick[peers]'): its column stays empty", file=sys.stderr
        )
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {options.rounds} rounds\n")
    print(
        "| UNet, float32, batch 1 | fick | ONNX Runtime (fick/it, difference) | OpenVINO (likewise) | peak memory |"
    )
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        print(row("terrain, 10.5 M, trained", str(fetch()), both, options.rounds, folder), flush=True)
        print(
            row("SD-shaped, 34 M, random", str(small_unet(folder)), both, options.rounds, folder), flush=True
        )
        if options.sd:
            print(
                row("SD-1.5, 860 M, random", "sd-1.5", ["onnxruntime"], min(options.rounds, 5), folder),
                flush=True,
            )


if __name__ == "__main__":
    main()
