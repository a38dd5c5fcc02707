"""What the search of designs is worth: fronts, speed beside its peers, and a better machine of SDA's size.

    python benchmarks/explore.py [--only fronts --only speed --only sda] [--json out/explore.json]

fronts    a small space over SD-1.5 is walked whole, and its true front's hypervolume set beside those that each method
          finds with a tenth of the designs, over several seeds
speed     designs a second: a grid of 20,736 over SD-1.5, and, in one run on one set of GEMMs, fick, ZigZag and
          SCALE-Sim, each in an environment of its own in --venvs, made if it is not there
sda       the fastest design with no more DSPs and block RAMs than SDA at SDA's clock, and pieces of its layers against
          the simulation that looks at every cycle (tests/hwmodel/tile_reference.py)

Minutes; the 20,736 designs are kept in --folder, and are not timed again unless it is removed.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from json_file import JsonFile, write_json
from rich.console import Console
from rich.table import Table
from scalesim_speed import GEMMS
from scalesim_speed import environment as scalesim
from scalesim_speed import theirs as scalesim_runs

from fick.compiler.explore import Stated, explore, state
from fick.compiler.progress import Silent, terminal
from fick.hwmodel.area import resources
from fick.hwmodel.cores import core
from fick.hwmodel.explore.front import hypervolume
from fick.hwmodel.explore.search import Found, Method, search
from fick.hwmodel.explore.workers import processes
from fick.hwmodel.fitting import Misfit
from fick.hwmodel.hardware import load
from fick.hwmodel.nonlinear import Task
from fick.hwmodel.points import Points
from fick.hwmodel.specs import HybridSystolic
from fick.hwmodel.tiled import TiledCore
from fick.hwmodel.workload import Gemm, Operation

HERE = Path(__file__).resolve().parent
SPACES = HERE.parent / "examples" / "spaces"
JOBS, STEPS, SEEDS, SHARE = 2, 50, 5, 0.1
METHODS: tuple[Method, ...] = ("nsga2", "nsga3", "tpe", "random")

SMALL = """
[parameters]
clock_hz = [150e6, 200e6, 250e6]
array.sub_array_rows = [2, 4, 6, 8]
array.sub_array_columns = [1, 2, 3]
nonlinear.elements_per_cycle = [5, 10, 20]
buffers.matmul_weights = [160, 204_800, 819_200]
buffers.vectors = [1_310_720, 5_242_880]
buffers.lines = [983_040, 1_966_080]
"""
"""1,296 designs."""

ZIGZAG = """
import json, logging, pathlib, sys, tempfile, time
from importlib.resources import files
import zigzag
from zigzag.api import get_hardware_performance_zigzag
logging.disable(logging.CRITICAL)
inputs = pathlib.Path(str(files(zigzag))) / "inputs"
layers = [
    {"id": place, "operator_type": "Gemm", "equation": "O[d0][d2]+=I[d0][d1]*W[d1][d2]", "dimension_relations": [],
     "loop_dims": ["D0", "D1", "D2"], "loop_sizes": [m, k, n],
     "operand_precision": {"W": 8, "I": 8, "O": 32, "O_final": 8}, "operand_source": {"I": place, "W": place}}
    for place, (m, n, k) in enumerate(json.loads(sys.argv[1]))
]
with tempfile.TemporaryDirectory() as scratch:
    started = time.process_time()
    energy, cycles, _ = get_hardware_performance_zigzag(
        layers, str(inputs / "hardware" / "gemm_l1_l3.yaml"), str(inputs / "mapping" / "gemm_l1_l3.yaml"),
        opt="latency", dump_folder=scratch, loma_show_progress_bar=False,
    )
    print(json.dumps([cycles, time.process_time() - started]))
"""
"""One design, the one for GEMMs that it comes with; of every layer the best temporal mapping of its search."""


def main(
    only: Annotated[list[str] | None, typer.Option(help="fronts, speed, sda.")] = None,
    folder: Annotated[Path, typer.Option(help="Results of the searches.")] = Path("out/explore"),
    venvs: Annotated[Path, typer.Option(help="Environments of the peers.")] = Path("out/venvs"),
    json_file: JsonFile = None,
) -> None:
    """Measure, print, and keep what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    with terminal() as reporter:
        if not only or "fronts" in only:
            facts["fronts"] = fronts(folder, reporter)
        if not only or "speed" in only:
            facts["speed"] = speed(folder, venvs, reporter)
        if not only or "sda" in only:
            facts["sda"] = sda(folder, reporter)
        reporter.finish()
    show(facts)
    write_json(json_file, facts)


def stated(space: str, folder: Path, name: str, model: str = "sd-1.5") -> Stated:
    place = folder / f"{name}.toml"
    place.write_text(space)
    return state(model, place, steps=STEPS)


def run(one: Stated, method: Method, count: int, seed: int, reporter: Silent) -> tuple[Found, float]:
    """What is found without a storage, and the seconds that it took."""
    started = time.perf_counter()
    with processes(one.problem, JOBS) as walk:
        found = search(
            one.problem, walk, None, method=method, count=count, seed=seed,
            progress=lambda _, done, total: reporter.update(done, total),
        )  # fmt: skip
    return found, time.perf_counter() - started


def fronts(folder: Path, reporter: Silent) -> dict[str, Any]:
    one = stated(SMALL, folder, "small")
    reporter.stage("fronts: grid")
    whole, seconds = run(one, "grid", 0, 0, reporter)
    costs = list(whole.front.costs.values())
    worst, best = (tuple(map(pick, zip(*costs, strict=True))) for pick in (max, min))
    reference = tuple(1.1 * each for each in worst)
    true = hypervolume(costs, reference, best)
    count = round(SHARE * one.problem.space.size)
    shares: dict[str, list[float]] = {}
    for method in METHODS:
        for seed in range(SEEDS):
            reporter.stage(f"fronts: {method}, seed {seed}")
            found, _ = run(one, method, count, seed, reporter)
            shares.setdefault(method, []).append(
                hypervolume(found.front.costs.values(), reference, best) / true
            )
    return {
        "designs": one.problem.space.size,
        "counts": whole.counts(),
        "grid_s": seconds,
        "front": len(whole.front),
        "asked": count,
        "share_of_true_hypervolume": shares,
    }


def speed(folder: Path, venvs: Path, reporter: Silent) -> dict[str, Any]:
    one = state("sd-1.5", SPACES / "zcu102.toml", steps=STEPS)
    spec = one.problem.space.hardware.spec
    points = Points(one.problem.workloads["plain", spec.bits], STEPS)
    points.totals(spec)
    warm: list[float] = []
    for _ in range(50):
        started = time.perf_counter()
        points.totals(spec)
        warm.append(time.perf_counter() - started)
    reporter.stage("speed: grid over SD-1.5")
    started = time.perf_counter()
    facts = explore(one, folder / "zcu102", method="grid", jobs=JOBS, reporter=reporter)
    seconds = time.perf_counter() - started
    return {
        "warm_point_ms": statistics.median(warm) * 1e3,
        "grid": {"designs": facts["size"], "counts": facts["counts"], "s": seconds},
        "gemms": peers(folder, venvs, reporter),
    }


def peers(folder: Path, venvs: Path, reporter: Silent) -> dict[str, Any]:
    """Designs a second of CPU time on one core, on one set of GEMMs."""
    layers = folder / "gemms.csv"
    lines = (f"{name.replace(',', '')}, {', '.join(map(str, shape))},\n" for name, shape in GEMMS.items())
    layers.write_text("Layer, M, N, K,\n" + "".join(lines))
    reporter.stage("speed: fick on GEMMs")
    found: dict[str, Any] = {}
    small = SMALL.replace("\nclock_hz", "\nclock_hz")
    for name, space in (
        ("fick, tiled array", small),
        ("fick, plain array", 'hardware = "systolic-32x32"\n[parameters]\nrows = { from = 8, to = 80, step = 2 }\n'
         "cols = { from = 8, to = 80, step = 2 }\n"),
    ):  # fmt: skip
        objectives = "latency,ema" if "plain" in name else "latency,dsp,bram"
        place = folder / f"{name.rpartition(' ')[0].replace(', ', '-')}.toml"
        place.write_text(space)
        one = state(str(layers), place, objectives=objectives, steps=1)
        points = Points(next(iter(one.problem.workloads.values())), 1)
        specs = [one.problem.space.spec(number) for number in range(one.problem.space.size)]
        started = time.process_time()
        for spec in specs:
            points.totals(spec)
        found[name] = {"designs": len(specs), "s": time.process_time() - started}
    reporter.stage("speed: SCALE-Sim on GEMMs")
    _, seconds = scalesim_runs(scalesim(venvs / "scalesim"))
    found["SCALE-Sim"] = {"designs": 1, "s": seconds}
    reporter.stage("speed: ZigZag on GEMMs")
    done = subprocess.run(
        [zigzag(venvs / "zigzag"), "-c", ZIGZAG, json.dumps(list(GEMMS.values()))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found["ZigZag"] = {"designs": 1, "s": json.loads(done.stdout.splitlines()[-1])[1]}
    for facts in found.values():
        facts["designs_per_s"] = facts["designs"] / facts["s"]
    return found


def zigzag(folder: Path) -> Path:
    """The interpreter of an environment with ZigZag in ``folder``."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # It imports six and does not ask for it.
    wanted = ("zigzag-dse==3.9.1", "six==1.17.0")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True, stdout=sys.stderr)
    return python


def sda(folder: Path, reporter: Silent) -> dict[str, Any]:
    """The fastest design of SDA's size, and how many pieces of its layers took what the slow simulation says."""
    shipped = load("sda").spec
    sizes = {name: sum(parts.values()) for name, parts in resources(shipped).items()}
    space = (SPACES / "sda-sized.toml").read_text()
    space += f"\n[constraints]\ndsp = {sizes['dsp']}\nbram36 = {sizes['bram36']}\n"
    one = stated(space, folder, "sda-sized")
    reporter.stage("sda: grid")
    found, _ = run(one, "grid", 0, 0, reporter)
    number = min(found.front.costs, key=lambda each: (found.front.costs[each][0], each))
    spec = one.problem.space.spec(number)
    assert isinstance(spec, HybridSystolic)
    before = Points(one.problem.workloads["plain", shipped.bits], STEPS).totals(shipped).step.cycles
    reporter.stage("sda: cycle by cycle")
    return {
        "design": one.problem.space.labels(number),
        "measures": dict(found.outcomes[number].measures),
        "sda": {"step_latency_s": before / shipped.clock_hz, **sizes},
        "checked": checked(spec, one, reporter),
    }


def checked(spec: HybridSystolic, one: Stated, reporter: Silent, count: int = 40) -> dict[str, int]:
    """Pieces of the model's products, a few tiles each, in every way that they can be cut.

    Raises AssertionError where a piece takes another number of cycles than the simulation that looks at each.
    """
    sys.path.insert(0, str(HERE.parent))
    from tests.hwmodel.tile_reference import Reference

    machine = core(spec)
    assert isinstance(machine, TiledCore)
    operations = one.problem.workloads["plain", spec.bits].variants["full"]
    products = [each for each in operations if isinstance(each.bounds, Gemm) and not each.fused]
    ways = 0
    for place, operation in enumerate(random.Random(0).sample(products, min(count, len(products)))):
        reporter.update(place, count)
        task = Task(piece(operation))
        choices, planned = machine.ways(task)
        for choice in choices:
            try:
                cycles = machine.interface.time(planned(choice)).cycles
            except Misfit:
                continue
            slow = Reference(spec, task, choice).cycles()
            assert cycles == slow, (operation.name, choice, cycles, slow)
            ways += 1
    return {"pieces": min(count, len(products)), "ways": ways}


def piece(operation: Operation) -> Operation:
    """Some rows, columns and steps of a product, so that each of its cycles can be looked at."""
    whole = operation.bounds
    assert isinstance(whole, Gemm)
    bounds = Gemm(1, min(whole.rows, 90), min(whole.reduction, 24), min(whole.columns, 50))
    first, second = operation.operands[:2]
    return replace(
        operation,
        bounds=bounds,
        operands=(
            replace(first, elements=bounds.rows * bounds.reduction),
            replace(second, elements=bounds.reduction * bounds.columns),
        ),
        result=replace(operation.result, elements=bounds.rows * bounds.columns),
    )


def show(facts: dict[str, Any]) -> None:
    out = Console(width=120)
    for title, rows in lines(facts):
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        for row in rows:
            table.add_row(*row)
        out.print(table)


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    if known := facts.get("fronts"):
        title = f"share of the true front's hypervolume, {known['asked']} of {known['designs']:,} designs asked for"
        yield (
            title,
            [
                (method, f"{statistics.mean(shares):.4f} ({min(shares):.4f} to {max(shares):.4f})")
                for method, shares in known["share_of_true_hypervolume"].items()
            ],
        )
    if known := facts.get("speed"):
        grid = known["grid"]
        yield (
            "SD-1.5",
            [
                ("a warm design", f"{known['warm_point_ms']:.2f} ms"),
                (
                    f"grid of {grid['designs']:,}",
                    f"{grid['s']:.1f} s, {grid['designs'] / grid['s']:,.0f} designs a second",
                ),
                ("of them timed", f"{grid['counts']['evaluated']:,}"),
            ],
        )
        yield (
            "the same GEMMs, one core",
            [
                (name, f"{each['designs_per_s']:,.3g} designs a second")
                for name, each in known["gemms"].items()
            ],
        )
    if known := facts.get("sda"):
        mine, theirs = known["measures"], known["sda"]
        yield (
            "SDA's size, SDA's clock",
            [(name, f"{mine[name]:,.5g} against {theirs[name]:,.5g}") for name in theirs]
            + [
                ("design", ", ".join(f"{name} {label}" for name, label in known["design"].items())),
                (
                    "cycle by cycle",
                    f"{known['checked']['ways']} ways of {known['checked']['pieces']} pieces agree",
                ),
            ],
        )


if __name__ == "__main__":
    typer.run(main)
