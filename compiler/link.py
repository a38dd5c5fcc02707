"""From kernel objects and the C core to the library inside a bundle: self-contained and byte for byte the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ..ir.errors import UserError
from ..targets.compiled import Call, Compiled, StateTensor

OLDEST_LIBC = "2.17"
BASELINE = {"x86_64": "x86_64", "aarch64": "generic"}
"""The core runs on any core of the architecture: it checks for special instructions before kernels use them."""

FLAGS = (
    "-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-ident", "-g0", "-Wall", "-Wextra", "-Werror",
)  # fmt: skip
RATES = {"prompt": "FICK_PROMPT", "step": "FICK_STEP", "sample": "FICK_SAMPLE"}
DTYPES = {"float32": "FICK_FLOAT32", "int64": "FICK_INT64", "int32": "FICK_INT32", "bool": "FICK_BOOL"}
MOST_OPERANDS = 64
"""FICK_MAX_OPERANDS of fick_plan.h: the core keeps a call's arguments in an array of this length."""

SPACES = {"weights": 0, "arena": 1, "state": 2}


def link(compiled: Compiled, program_id: str, cache_folder: Path) -> bytes:
    """The shared library of a compiled program. Raises RuntimeError with the linker's words if it fails.

    The core's objects are kept in ``cache_folder`` by content.
    """
    target = f"{compiled.triple}.{OLDEST_LIBC}"
    core = core_objects(compiled.arch, target, cache_folder)
    with tempfile.TemporaryDirectory(prefix="fick-link-") as scratch:
        folder = Path(scratch)
        (folder / "model.c").write_text(plan_source(compiled, program_id), encoding="utf-8")
        names = sorted(compiled.kernels)
        for name in names:
            (folder / f"{name}.o").write_bytes(compiled.kernels[name])
        headers = os.fspath(_native())
        _zig(
            folder,
            ["-target", target, f"-mcpu={BASELINE[compiled.arch]}", *FLAGS, f"-I{headers}", "-c", "model.c"],
        )
        for path in core:
            (folder / path.name).write_bytes(path.read_bytes())
        objects = ["model.o", *(path.name for path in core), *(f"{name}.o" for name in names)]
        (folder / "objects").write_text("\n".join(objects), encoding="utf-8")
        # Kernels export their entry points; only the core's interface is to be seen from outside.
        (folder / "exports").write_text("{ global: fick_*; local: *; };\n", encoding="utf-8")
        _zig(
            folder,
            [
                "-target", target, "-shared", "-s", "-Wl,--gc-sections", "-Wl,--build-id=none",
                "-Wl,--version-script=exports", "-o", "libmodel.so", "@objects", "-lm", "-lpthread",
            ],
        )  # fmt: skip
        return (folder / "libmodel.so").read_bytes()


def _native() -> Path:
    return Path(str(files("fick.runtime").joinpath("native")))


def core_objects(arch: str, target: str, cache_folder: Path) -> list[Path]:
    """The core compiled for ``target``: from the cache where its sources have not changed."""
    sources = sorted(_native().glob("*.c"))
    digest = hashlib.sha256(repr((target, FLAGS, BASELINE[arch])).encode())
    for path in sorted([*sources, *_native().glob("*.h")]):
        digest.update(path.read_bytes())
    folder = cache_folder / f"core-{digest.hexdigest()[:16]}"
    objects = [folder / f"core_{path.stem}.o" for path in sources]
    if not folder.exists():
        cache_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder) as scratch:
            built = Path(scratch) / "core"
            built.mkdir()
            for path, made in zip(sources, objects, strict=True):
                flags = ["-target", target, f"-mcpu={BASELINE[arch]}", *FLAGS, f"-I{_native()}"]
                _zig(built, [*flags, "-c", os.fspath(path), "-o", made.name])
            try:
                built.rename(folder)
            except OSError:
                if not folder.exists():  # another process was not first
                    raise
    return objects


def _zig(folder: Path, arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"zig cc failed: {result.stderr.strip()}")


def plan_source(compiled: Compiled, program_id: str) -> str:
    """model.c: the compiled program as constant tables for the core."""
    lines = ['#include "fick_plan.h"', ""]
    for name in sorted(compiled.kernels):
        lines.append(
            f"int32_t __tvm_ffi_{name}(void *self, const fick_argument *arguments, int32_t count, "
            "fick_argument *result);"
        )
    variants = {name: compiled.variants.get(name, ()) for name in ("prompt", "step", "full")}
    for name, calls in variants.items():
        lines += _calls_source(name, calls)
    lines += _slots_source("inputs", compiled.inputs) + _slots_source("outputs", compiled.outputs)
    features = "".join(f"{_text(feature)}, " for feature in compiled.cpu_features)
    lines += [
        f"static const char *const features[] = {{{features}0}};",
        "const fick_plan fick_model_plan = {",
        f"  {_text(program_id)}, features, {compiled.weights_bytes}u, {compiled.arena_bytes}u, "
        f"{compiled.state_bytes}u,",
        f"  inputs, outputs, {len(compiled.inputs)}, {len(compiled.outputs)},",
    ]
    for name, calls in variants.items():
        offset, size = compiled.carried.get(name, (0, 0)) if name != "full" else (0, 0)
        lines.append(f"  {{{_text(name)}, {name}_calls, {len(calls)}u, {{{offset}u, {size}u}}}},")
    return "\n".join([*lines, "};", ""])


def _calls_source(variant: str, calls: Sequence[Call]) -> list[str]:
    lines: list[str] = []
    for index, call in enumerate(calls):
        if len(call.operands) > MOST_OPERANDS:
            raise UserError(
                f"node {call.node} needs a kernel of {len(call.operands)} tensors and a kernel takes at most "
                f"{MOST_OPERANDS}; split the node"
            )
        operands = ", ".join(f"{{{SPACES[one.space]}, {one.offset_bytes}u}}" for one in call.operands)
        lines.append(f"static const fick_operand {variant}_{index}[] = {{{operands}}};")
    lines.append(f"static const fick_call {variant}_calls[] = {{")
    for index, call in enumerate(calls):
        lines.append(
            f"  {{__tvm_ffi_{call.kernel}, {variant}_{index}, {len(call.operands)}u, {_text(call.kernel)}, "
            f"{_text(call.node)}}},"
        )
    if not calls:
        lines.append("  {0, 0, 0, 0, 0},")  # C has no empty arrays
    return [*lines, "};"]


def _slots_source(name: str, tensors: Sequence[StateTensor]) -> list[str]:
    lines = [f"static const fick_slot {name}[] = {{"]
    for tensor in tensors:
        shape = ", ".join(str(extent) for extent in tensor.shape) or "0"
        lines.append(
            f"  {{{{{_text(tensor.name)}, {DTYPES[tensor.dtype]}, {RATES[tensor.rate]}, {len(tensor.shape)}, "
            f"{{{shape}}}, {tensor.size_bytes}u}}, {tensor.offset_bytes}u}},"
        )
    return [*lines, "};"]


def _text(text: str) -> str:
    """A C string literal; JSON's escapes are C's for what names hold, and non-ASCII is replaced."""
    return json.dumps(text.encode("ascii", "replace").decode().replace("?", "."))
