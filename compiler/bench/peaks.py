"""What this machine can do at most, measured through the path of every bundle: TIR, LLVM, linker, pool, profile.

The best of many runs counts, each so short that on a busy machine too some are not interrupted.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...runtime import Model
from ...targets import profile as profiles
from ...targets.compiled import Call, Compiled, Operand, StateTensor
from ...targets.cpu.dots import DOTS
from ...targets.cpu.worker import compile_kernel
from ...targets.profile import Profile
from ..bundle.file import FORMAT_VERSION, Entry, weights_entry, write_bundle
from ..bundle.link import link
from ..cache import cache_folder
from .gauges import Fill, Multiply, MultiplyDots, MultiplyTiles, Read
from .limits import Peaks

TASKS = 64
"""Divided evenly among any usual number of threads."""

MULTIPLY_SWEEPS, TILE_SWEEPS = 1 << 10, 1 << 7
"""A tenth of a millisecond on a fast core, beside which a launch is little."""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = (256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, 2 * GIB)
"""Of the buffers that are read over and over: from one that caches hold to one that none does."""

READ_BYTES = 32 * MIB
"""What one call reads at most."""

MULTIPLY_CALLS = 64
LEAST_READ_BYTES = 4 * MIB
LEAST_CALLS = 8
ROUNDS = 5
UNROLLED = 8
OPERANDS = ("float32", "float32")

Gauge = Multiply | MultiplyTiles | Fill | Read


def _multiply(profile: Profile) -> Multiply:
    return Multiply(OPERANDS, TASKS, _chains(profile), profile.vector_lanes, MULTIPLY_SWEEPS)


def _multiply_halves(profile: Profile) -> Multiply | None:
    """Where kernels do."""
    if not profile.half_run:
        return None
    return Multiply(OPERANDS, TASKS, _chains(profile), 2 * profile.vector_lanes, MULTIPLY_SWEEPS, "float16")


def _multiply_narrow(format: str, profile: Profile) -> MultiplyTiles | MultiplyDots | None:
    """On the matrix unit, else by dot products; without an instruction for either, the rate is that of float32."""
    if format in profile.tile_formats:
        return MultiplyTiles(OPERANDS, format, TASKS, TILE_SWEEPS)
    dot = {"int8": profile.int8_dot, "bfloat16": profile.bfloat16_dot}[format]
    if dot is None or DOTS[dot].held > 1:  # several instructions
        return None
    return MultiplyDots(OPERANDS, TASKS, _chains(profile), profile.vector_lanes, MULTIPLY_SWEEPS, dot=dot)


def _chains(profile: Profile) -> int:
    """Latency times units is at most 16 on the cores we know; what is left holds the factors."""
    return profile.vector_registers * 3 // 4


FORMATS: dict[str, Callable[[Profile], Gauge | None]] = {
    "float32": _multiply,
    "float16": _multiply_halves,
    "bfloat16": partial(_multiply_narrow, "bfloat16"),
    "int8": partial(_multiply_narrow, "int8"),
}
"""The fastest way to multiply and add that the targets have for each number format, where they have one."""

FACTORS, SUMS = Operand("state", 0), Operand("state", 4096)


def measure_peaks(threads: int = 0, *, sizes: Sequence[int] = SIZES) -> Peaks:
    """Compile a few kernels for this machine and run them on all threads (0: as many as there are cores).

    ``sizes`` are those of the buffers that are read, in bytes, each a power of two from 256 KiB. Takes as much memory
    as the largest for some seconds; any that would take more than a quarter of what is free are left out.
    """
    profile = profiles.processor("host")
    threads = threads or profile.cores
    sizes = [size for size in sizes if size <= max(_available_bytes() // 4, min(sizes))]
    gauges = _gauges(profile, sizes)
    best = dict.fromkeys(gauges, math.inf)
    with tempfile.TemporaryDirectory(prefix="fick-peaks-") as folder:
        path = Path(folder) / "peaks.fick"
        _write(path, profile, gauges, _calls(gauges, sizes), max(sizes))
        with Model(path, threads=threads) as model:
            for _ in range(ROUNDS):
                model.run(factors=np.array([0.5, 1.0], np.float32))
                for call in model.profile():
                    best[call.node] = min(call.seconds, best[call.node])
    rates = {name: gauge.work / best[name] for name, gauge in gauges.items()}
    read: dict[int, float] = {}
    for size in sorted(sizes, reverse=True):
        # A smaller buffer is in no slower memory: where it was read more slowly, something disturbed it.
        read[size] = max(rates[f"read_{size}"], *read.values(), 0.0)
    flops = {name: rates[name] for name in FORMATS if name in rates}
    return Peaks(threads, flops, dict(sorted(read.items())))


def _gauges(profile: Profile, sizes: Sequence[int]) -> dict[str, Gauge]:
    lanes = profile.vector_lanes
    found: dict[str, Gauge] = {"fill": Fill(("float32",), TASKS, max(sizes) // 4 // TASKS, lanes)}
    found |= {name: gauge for name, make in FORMATS.items() if (gauge := make(profile))}
    for size in sizes:
        piece = min(size, READ_BYTES)
        sweeps = max(1, LEAST_READ_BYTES // piece)
        found[f"read_{size}"] = Read(("float32",) * 2, TASKS, piece // 4 // TASKS, UNROLLED, lanes, sweeps)
    return found


def _calls(gauges: Mapping[str, Gauge], sizes: Sequence[int]) -> list[Call]:
    """What a run does, in order; each call is named after its gauge."""
    calls = [Call("fill", (Operand("arena", 0),), "fill")]
    for name in (name for name in FORMATS if name in gauges):
        calls += [Call(name, (SUMS, FACTORS), name)] * MULTIPLY_CALLS
    for size in sizes:
        pieces = max(1, size // READ_BYTES)
        # Twice round at least: the second time finds in the caches what they hold.
        for index in range(max(LEAST_CALLS, 2 * pieces)):
            start = Operand("arena", index % pieces * READ_BYTES)
            calls.append(Call(f"read_{size}", (SUMS, start), f"read_{size}"))
    return calls


def _write(
    path: Path, profile: Profile, gauges: Mapping[str, Gauge], calls: Sequence[Call], arena_bytes: int
) -> None:
    """The gauges as a bundle: they are launched and timed as the kernels of any model are."""
    # As many lanes as there are of the narrowest numbers.
    sums = StateTensor("sums", "float32", (TASKS, 2 * profile.vector_lanes), SUMS.offset_bytes, "sample")
    program = Compiled(
        arch=profile.arch,
        triple=profile.triple,
        cpu_features=profile.requires,
        kernels={name: compile_kernel(gauge, name, profile.llvm_target()) for name, gauge in gauges.items()},
        variants={"full": tuple(calls)},
        inputs=(StateTensor("factors", "float32", (2,), FACTORS.offset_bytes, "sample"),),
        outputs=(sums,),
        weights=(),
        weights_bytes=0,
        arena_bytes=arena_bytes,
        state_bytes=SUMS.offset_bytes + sums.size_bytes,
        carried={},
    )
    identity = "0" * 64
    library = Entry.of("code/libmodel.so", link({"peaks": program}, identity, cache_folder() / "core"))
    target = {"name": profile.name, "arch": profile.arch, "cpu_features": list(profile.requires)}
    manifest = {
        "format": "fick-bundle", "format_version": FORMAT_VERSION, "name": "peaks", "program_id": identity,
        "target": target,
    }  # fmt: skip
    write_bundle(path, [weights_entry((), 0, {}.__getitem__), library], manifest)


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return 0
