"""A bundle so small that every number it gives can be worked out by hand. Its kernels are a few lines of C.

prompt   carried_p = 2 p
step     carried_t = t + 1
full     scratch = x * w[panel order]; y = scratch + sum(carried_p) + carried_t; tasks[i] counts runs of task i
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fick.compiler.bundle.file import Entry, weights_entry, write_bundle
from fick.compiler.bundle.link import link
from fick.targets.compiled import Call, Compiled, Operand, PackedWeight, StateTensor
from fick.targets.packing import Dense, Panels
from fick.targets.profile import load

PROGRAM_ID = "ab" * 32
MOST_TASKS = 256

SOURCE = r"""
#include <stdint.h>
typedef struct { int32_t type; uint32_t zero; void *pointer; } argument;
typedef struct { void *sync; int32_t num_task; } environment;
typedef int (*lambda)(int, environment *, void *);
__attribute__((weak)) int (*__TVMBackendParallelLaunch)(lambda, void *, int);
#define KERNEL(name) int32_t __tvm_ffi_##name(void *self, const argument *a, int32_t n, argument *result); \
  int32_t __tvm_ffi_##name(void *self, const argument *a, int32_t n, argument *result)
#define FLOATS(i) ((float *)a[i].pointer)

KERNEL(twice) { FLOATS(1)[0] = 2 * FLOATS(0)[0]; FLOATS(1)[1] = 2 * FLOATS(0)[1]; return 0; }
KERNEL(next) { FLOATS(1)[0] = FLOATS(0)[0] + 1; return 0; }
KERNEL(scale) { for (int i = 0; i < 4; i++) FLOATS(2)[i] = FLOATS(0)[i] * FLOATS(1)[i]; return FLOATS(0)[0] < -1e9f; }
KERNEL(combine) {
  for (int i = 0; i < 4; i++) FLOATS(3)[i] = FLOATS(0)[i] + FLOATS(1)[0] + FLOATS(1)[1] + FLOATS(2)[0];
  return 0;
}
static int count(int task, environment *e, void *tasks) {
  ((int32_t *)tasks)[task] += 1;
  ((int32_t *)tasks)[255] = e->num_task;
  return 0;
}
KERNEL(launch) {
  for (int i = 0; i < 256; i++) ((int32_t *)a[0].pointer)[i] = 0;
  return __TVMBackendParallelLaunch(count, a[0].pointer, 0);
}
"""


@cache
def kernels(folder: Path) -> dict[str, bytes]:
    names = ("twice", "next", "scale", "combine", "launch")
    (folder / "tiny.c").write_text(SOURCE)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", load("host").triple, "-O2", "-fPIC", "-c"]
    made: dict[str, bytes] = {}
    for name in names:
        # One object a kernel, as the compiler makes them: the others are renamed out of sight.
        hidden = [f"-D__tvm_ffi_{other}=hidden_{other}_in_{name}" for other in names if other != name]
        subprocess.run([*command, *hidden, "tiny.c", "-o", f"{name}.o"], cwd=folder, check=True)
        made[name] = (folder / f"{name}.o").read_bytes()
    return made


SCALES = np.array([[1.0], [2.0], [4.0], [8.0]], np.float32)
SPARE = np.array([7.0, 9.0, 11.0], np.float32)
CONSTANTS = {"scales": SCALES, "spare": SPARE}
WEIGHTS = (
    PackedWeight("spare.dense", "spare", Dense(), "float32", (3,), 0),
    # Two panels of two columns: with one reduction row, the scales in order.
    PackedWeight(
        "scales.panels", "scales", Panels(order=(0, 1), width=2, starts=(0, 2)), "float32", (2, 1, 2), 64
    ),
)


def compiled(folder: Path) -> Compiled:
    profile = load("host")
    state = {"x": 0, "t": 64, "p": 128, "carried_p": 192, "carried_t": 256, "y": 320, "tasks": 384}

    def at(name: str) -> Operand:
        return Operand("state", state[name])

    scratch, scales = Operand("arena", 0), Operand("weights", 64)
    return Compiled(
        arch=profile.arch,
        triple=profile.triple,
        cpu_features=(),
        kernels=kernels(folder),
        variants={
            "prompt": (Call("twice", (at("p"), at("carried_p")), "prompt/double"),),
            "step": (Call("next", (at("t"), at("carried_t")), "time/next"),),
            "full": (
                Call("scale", (at("x"), scales, scratch), "unet/scale"),
                Call("combine", (scratch, at("carried_p"), at("carried_t"), at("y")), "unet/combine"),
                Call("launch", (at("tasks"),), "unet/launch"),
            ),
        },
        inputs=(
            StateTensor("x", "float32", (4,), 0, "sample"),
            StateTensor("t", "float32", (1,), 64, "step"),
            StateTensor("p", "float32", (1, 2), 128, "prompt"),
        ),
        outputs=(
            StateTensor("y", "float32", (4,), 320, "sample"),
            StateTensor("tasks", "int32", (MOST_TASKS,), 384, "sample"),
        ),
        weights=WEIGHTS,
        weights_bytes=128,
        arena_bytes=64,
        state_bytes=1408,
        carried={"prompt": (192, 8), "step": (256, 4)},
    )


def manifest(program: Compiled, program_id: str = PROGRAM_ID) -> dict[str, object]:
    return {
        "format": "fick-bundle",
        "format_version": 1,
        "name": "tiny",
        "program_id": program_id,
        "target": {"name": "host", "arch": program.arch, "cpu_features": list(program.cpu_features)},
        "sampler": {"kind": "consistency", "sigma_min": 0.002, "sigmas": [80.0, 24.0, 6.0, 1.2]},
    }


def entries(program: Compiled, library: bytes, scales: np.ndarray = SCALES) -> list[Entry]:
    constants = {**CONSTANTS, "scales": scales}
    return [
        weights_entry(program.weights, program.weights_bytes, constants.__getitem__),
        Entry.of("code/libmodel.so", library),
        Entry.of("constants.onnx", b""),
    ]


def write(
    path: Path, program: Compiled, cache_folder: Path, program_id: str = PROGRAM_ID, **changed: object
) -> Path:
    """A bundle of ``program``; ``changed`` are manifest fields in place of the right ones."""
    library = link({"tiny": program}, program_id, cache_folder)
    write_bundle(path, entries(program, library), {**manifest(program, program_id), **changed})
    return path


def requiring(program: Compiled, *features: str) -> Compiled:
    return replace(program, cpu_features=features)


def expected(x: np.ndarray, t: float, p: np.ndarray) -> np.ndarray:
    return x * SCALES[:, 0] + 2 * p.sum() + t + 1


def offsets(data: bytes) -> dict[str, tuple[int, int]]:
    """Where each entry's bytes start and how many they are, read independently of both readers."""
    found: dict[str, tuple[int, int]] = {}
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        size, name_size, extra_size = (
            int.from_bytes(data[at + start : at + stop], "little")
            for start, stop in ((18, 22), (26, 28), (28, 30))
        )
        start = at + 30 + name_size + extra_size
        found[data[at + 30 : at + 30 + name_size].decode()] = (start, size)
        at = start + size
    return found


def read_manifest(data: bytes) -> dict[str, Any]:
    start, size = offsets(data)["manifest.json"]
    return json.loads(data[start : start + size])
