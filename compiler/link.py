"""From kernel objects and the C core to the library inside a bundle: self-contained and byte for byte the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
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

SPACES = {"weights": 0, "arena": 1, "state": 2, "kept": 3}


def link(components: Mapping[str, Compiled], program_id: str, cache_folder: Path) -> bytes:
    """The shared library of compiled programs for one target, the main one first.

    Raises RuntimeError with the linker's words if it fails. The core's objects are kept in ``cache_folder`` by content.
    """
    first = next(iter(components.values()))
    kernels = {name: code for compiled in components.values() for name, code in compiled.kernels.items()}
    target = f"{first.triple}.{OLDEST_LIBC}"
    core = core_objects(first.arch, target, cache_folder)
    with tempfile.TemporaryDirectory(prefix="fick-link-") as scratch:
        folder = Path(scratch)
        (folder / "model.c").write_text(plan_source(components, program_id), encoding="utf-8")
        names = sorted(kernels)
        for name in names:
            (folder / f"{name}.o").write_bytes(kernels[name])
        headers = os.fspath(native_folder())
        zig(
            folder,
            cache_folder,
            ["-target", target, f"-mcpu={BASELINE[first.arch]}", *FLAGS, f"-I{headers}", "-c", "model.c"],
        )
        for path in core:
            (folder / path.name).write_bytes(path.read_bytes())
        objects = ["model.o", *(path.name for path in core), *(f"{name}.o" for name in names)]
        (folder / "objects").write_text("\n".join(objects), encoding="utf-8")
        # Kernels export their entry points; only the core's interface is to be seen from outside.
        (folder / "exports").write_text("{ global: fick_*; local: *; };\n", encoding="utf-8")
        zig(
            folder,
            cache_folder,
            [
                "-target", target, "-shared", "-Wl,-z,defs", "-s", "-Wl,--gc-sections", "-Wl,--build-id=none",
                # Where a runner finds the plan that has no dynamic linker (native/pipeline/loader.c).
                "-Wl,-e,fick_attach", "-Wl,--version-script=exports", "-o", "libmodel.so", "@objects", "-lm",
                "-lpthread",
            ],
        )  # fmt: skip
        return (folder / "libmodel.so").read_bytes()


def native_folder() -> Path:
    """The C sources."""
    return Path(str(files("fick.runtime").joinpath("native")))


def core_objects(arch: str, target: str, cache_folder: Path) -> list[Path]:
    """The core compiled for ``target``: from the cache where its sources have not changed."""
    sources = sorted(native_folder().glob("*.c"))
    digest = hashlib.sha256(repr((target, FLAGS, BASELINE[arch])).encode())
    for path in sorted([*sources, *native_folder().glob("*.h")]):
        digest.update(path.read_bytes())
    folder = cache_folder / f"core-{digest.hexdigest()[:16]}"
    objects = [folder / f"core_{path.stem}.o" for path in sources]
    if not folder.exists():
        cache_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder) as scratch:
            built = Path(scratch) / "core"
            built.mkdir()
            for path, made in zip(sources, objects, strict=True):
                flags = ["-target", target, f"-mcpu={BASELINE[arch]}", *FLAGS, f"-I{native_folder()}"]
                zig(built, cache_folder, [*flags, "-c", os.fspath(path), "-o", made.name])
            try:
                built.rename(folder)
            except OSError:
                if not folder.exists():  # another process was not first
                    raise
    return objects


LONGEST_LINK_S = 600


def zig(folder: Path, cache_folder: Path, arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", *arguments]
    own = os.fspath((cache_folder / "zig").absolute())
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": own, "ZIG_LOCAL_CACHE_DIR": own}
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env=environment,
            timeout=LONGEST_LINK_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"zig cc did not end within {LONGEST_LINK_S} s") from None
    if result.returncode != 0:
        raise RuntimeError(f"zig cc failed ({result.returncode}): {result.stderr.strip()}")


def weights_offsets(components: Mapping[str, Compiled]) -> dict[str, int]:
    """Where in the bundle's weights those of each component begin."""
    offsets, size = {}, 0
    for name, compiled in components.items():
        offsets[name] = size
        size += compiled.weights_bytes
    return offsets


def plan_source(components: Mapping[str, Compiled], program_id: str) -> str:
    """model.c: the compiled programs as constant tables for the core."""
    first = next(iter(components.values()))
    lines = ['#include "fick_plan.h"', ""]
    for name in sorted({name for compiled in components.values() for name in compiled.kernels}):
        lines.append(
            f"int32_t __tvm_ffi_{name}(void *self, const fick_argument *arguments, int32_t count, "
            "fick_argument *result);"
        )
    for index, compiled in enumerate(components.values()):
        lines += _tables_source(f"c{index}", compiled)
    features = "".join(f"{_text(feature)}, " for feature in first.cpu_features)
    lines += [
        f"static const char *const features[] = {{{features}0}};",
        "static const fick_plan components[] = {",
    ]
    starts = weights_offsets(components)
    for index, (name, compiled) in enumerate(components.items()):
        lines += _plan_source(f"c{index}", name, starts[name], compiled)
    total = sum(compiled.weights_bytes for compiled in components.values())
    lines += [
        "};",
        "const fick_program fick_model_program = {",
        f"  {_text(program_id)}, features, {total}u, components, {len(components)}",
    ]
    return "\n".join([*lines, "};", ""])


BEFORE = ("prompt", "step")


def _tables_source(prefix: str, compiled: Compiled) -> list[str]:
    names = [*BEFORE, *compiled.alternatives]
    lines: list[str] = []
    for index, variant in enumerate(names):
        lines += _calls_source(f"{prefix}_{index}", compiled.variants.get(variant, ()))
        lines += _indices_source(f"{prefix}_{index}_reads", [variant in one.readers for one in compiled.kept])
        lines += _indices_source(
            f"{prefix}_{index}_leaves", [variant in one.writers for one in compiled.kept]
        )
    lines.append(f"static const fick_variant {prefix}_alternatives[] = {{")
    lines += [
        f"  {_variant_source(prefix, index, variant, compiled)},"
        for index, variant in enumerate(names)
        if variant not in BEFORE
    ]
    kept = "".join(f"{_text(one.name)}, " for one in compiled.kept)
    lines += ["};", f"static const char *const {prefix}_kept[] = {{{kept}0}};"]
    inputs = _slots_source(f"{prefix}_inputs", compiled.inputs)
    return [*lines, *inputs, *_slots_source(f"{prefix}_outputs", compiled.outputs)]


def _plan_source(prefix: str, name: str, weights_offset: int, compiled: Compiled) -> list[str]:
    return [
        f"  {{{_text(name)}, {{{weights_offset}u, {compiled.weights_bytes}u}}, {compiled.arena_bytes}u, "
        f"{compiled.state_bytes}u, {compiled.kept_bytes}u, {prefix}_inputs, {prefix}_outputs, "
        f"{len(compiled.inputs)}, {len(compiled.outputs)},",
        *(f"    {_variant_source(prefix, index, one, compiled)}," for index, one in enumerate(BEFORE)),
        f"    {prefix}_alternatives, {prefix}_kept, {len(compiled.alternatives)}, {len(compiled.kept)}}},",
    ]


def _variant_source(prefix: str, index: int, name: str, compiled: Compiled) -> str:
    offset, size = compiled.carried.get(name, (0, 0))
    reads = sum(name in one.readers for one in compiled.kept)
    leaves = sum(name in one.writers for one in compiled.kept)
    return (
        f"{{{_text(name)}, {prefix}_{index}_calls, {len(compiled.variants.get(name, ()))}u, {{{offset}u, {size}u}}, "
        f"{prefix}_{index}_reads, {prefix}_{index}_leaves, {reads}, {leaves}}}"
    )


def _indices_source(name: str, chosen: Sequence[bool]) -> list[str]:
    places = "".join(f"{index}, " for index, one in enumerate(chosen) if one)
    return [f"static const int32_t {name}[] = {{{places}-1}};"]  # C has no empty arrays


def _calls_source(prefix: str, calls: Sequence[Call]) -> list[str]:
    lines: list[str] = []
    for index, call in enumerate(calls):
        if len(call.operands) > MOST_OPERANDS:
            raise UserError(
                f"node {call.node} needs a kernel of {len(call.operands)} tensors and a kernel takes at most "
                f"{MOST_OPERANDS}; split the node"
            )
        operands = ", ".join(f"{{{SPACES[one.space]}, {one.offset_bytes}u}}" for one in call.operands)
        lines.append(f"static const fick_operand {prefix}_{index}[] = {{{operands}}};")
    lines.append(f"static const fick_call {prefix}_calls[] = {{")
    for index, call in enumerate(calls):
        lines.append(
            f"  {{__tvm_ffi_{call.kernel}, {prefix}_{index}, {len(call.operands)}u, {_text(call.kernel)}, "
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
    """A C string literal, whatever the name: all but plain ASCII as octal bytes of UTF-8."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
