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

from ...ir.errors import UserError
from ...targets.compiled import Call, Compiled, Launch, StateTensor, Texture
from ...targets.opencl.text import PREAMBLE

OLDEST_LIBC = "2.17"
BASELINE = {"x86_64": "x86_64", "aarch64": "generic", "armv7l": "generic+v7a+neon+vfp4"}
"""The core runs on any core of the architecture: it checks for special instructions before kernels use them."""

FLAGS = (
    "-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-ident", "-g0", "-Wall", "-Wextra", "-Werror",
)  # fmt: skip
RATES = {"prompt": "FICK_PROMPT", "step": "FICK_STEP", "sample": "FICK_SAMPLE"}
DTYPES = {"float32": "FICK_FLOAT32", "int64": "FICK_INT64", "int32": "FICK_INT32", "bool": "FICK_BOOL"}
MOST_OPERANDS = 64
"""FICK_MAX_OPERANDS of fick_plan.h: the core keeps a call's arguments in an array of this length."""

KERNELS = "code/kernels.cl"

GPU_SOURCES = "cl_"
"""How what only a GPU's bundle has of the core begins."""

SPARE = " on a processor"
"""After the name of a component in whose place it is."""

SPACES = {"weights": 0, "arena": 1, "state": 2, "kept": 3}


def link(
    components: Mapping[str, Compiled],
    program_id: str,
    cache_folder: Path,
    spare: Mapping[str, Compiled] | None = None,
) -> bytes:
    """The shared library of compiled programs for one target, the main one first. Where that is a GPU, ``spare`` are
    the same for a processor that takes its place.

    Raises RuntimeError with the linker's words if it fails. The core's objects are kept in ``cache_folder`` by content.
    """
    first = next(iter(components.values()))
    kernels = all_kernels(_on_processors(components, spare))
    target = f"{system_of(first.triple)}.{OLDEST_LIBC}"
    core = core_objects(first.arch, target, cache_folder)
    if not first.launches:
        core = [path for path in core if not path.name.startswith(f"core_{GPU_SOURCES}")]
    with tempfile.TemporaryDirectory(prefix="fick-link-") as scratch:
        folder = Path(scratch)
        (folder / "model.c").write_text(plan_source(components, program_id, spare), encoding="utf-8")
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
        libraries = ["-lm", "-lpthread", *(["-ldl"] if first.launches else [])]
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
                "-Wl,-e,fick_attach", "-Wl,--version-script=exports", "-o", "libmodel.so", "@objects", *libraries,
            ],
        )  # fmt: skip
        return (folder / "libmodel.so").read_bytes()


def all_kernels(components: Mapping[str, Compiled]) -> dict[str, bytes]:
    """The code of every kernel by its symbol."""
    return {name: code for compiled in components.values() for name, code in compiled.kernels.items()}


def kernels_source(components: Mapping[str, Compiled]) -> dict[str, bytes]:
    """What the bundle of a GPU has beside the library: the source of all kernels, by the entry's name."""
    if not any(compiled.launches for compiled in components.values()):
        return {}
    marked = [
        b"\n// kernel " + name.encode() + b"\n" + code
        for name, code in sorted(all_kernels(components).items())
    ]
    return {KERNELS: b"".join([PREAMBLE.encode(), *marked])}


def system_of(triple: str) -> str:
    """A triple as zig has it, which knows no vendors."""
    return triple.replace("-unknown-", "-")


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


def plan_source(
    components: Mapping[str, Compiled], program_id: str, spare: Mapping[str, Compiled] | None = None
) -> str:
    """model.c: the compiled programs as constant tables for the core."""
    whole = interleaved(components, spare)
    lines = ['#include "fick_plan.h"', ""]
    for name in sorted(all_kernels(_on_processors(components, spare))):
        lines.append(
            f"int32_t __tvm_ffi_{name}(void *self, const fick_argument *arguments, int32_t count, "
            "fick_argument *result);"
        )
    starts = weights_offsets(whole)
    facts = program_id, sum(compiled.weights_bytes for compiled in whole.values())
    if spare:
        spares = {name: starts[name + SPARE] for name in spare}
        lines += _program_source("static const fick_program processor", "s", spare, spares, facts, "0")
    fallback = "&processor" if spare else "0"
    lines += _program_source(
        "const fick_program fick_model_program", "c", components, starts, facts, fallback
    )
    return "\n".join([*lines, ""])


def interleaved(
    components: Mapping[str, Compiled], spare: Mapping[str, Compiled] | None
) -> dict[str, Compiled]:
    """Each component, and after it what a processor runs in its place."""
    both = ((name, one, (spare or {}).get(name)) for name, one in components.items())
    return {
        key: compiled
        for name, one, other in both
        for key, compiled in ((name, one), (name + SPARE, other))
        if compiled is not None
    }


def _on_processors(
    components: Mapping[str, Compiled], spare: Mapping[str, Compiled] | None
) -> dict[str, Compiled]:
    return {name: one for name, one in interleaved(components, spare).items() if not one.launches}


def _program_source(
    declared: str,
    prefix: str,
    components: Mapping[str, Compiled],
    starts: Mapping[str, int],
    facts: tuple[str, int],
    fallback: str,
) -> list[str]:
    first = next(iter(components.values()))
    launches = {
        name: one for compiled in components.values() for name, one in sorted(compiled.launches.items())
    }
    places = {name: place for place, name in enumerate(launches)}
    lines = _launches_source(f"{prefix}_launches", launches)
    for index, compiled in enumerate(components.values()):
        lines += _tables_source(f"{prefix}{index}", compiled, places)
    features = "".join(f"{_text(feature)}, " for feature in first.cpu_features)
    lines += [
        f"static const char *const {prefix}_features[] = {{{features}0}};",
        f"static const fick_plan {prefix}_components[] = {{",
    ]
    for index, (name, compiled) in enumerate(components.items()):
        lines += _plan_source(f"{prefix}{index}", name, starts[name], compiled)
    program_id, total = facts
    return [
        *lines,
        "};",
        f"{declared} = {{",
        f"  {_text(program_id)}, {prefix}_features, {total}u, {prefix}_components, {len(components)},",
        f"  {'&fick_opencl' if launches else '0'}, {prefix}_launches, {len(launches)}u, {fallback}",
        "};",
    ]


BEFORE = ("prompt", "step")


def _tables_source(prefix: str, compiled: Compiled, launches: Mapping[str, int]) -> list[str]:
    names = [*BEFORE, *compiled.alternatives]
    lines: list[str] = []
    for index, variant in enumerate(names):
        lines += _calls_source(f"{prefix}_{index}", compiled.variants.get(variant, ()), launches)
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
    chunks = "".join(f"{start}u, " for start in compiled.chunks)
    images = "".join(_image_source(*one) for one in _textures(compiled))
    lines += [
        "};",
        f"static const uint64_t {prefix}_chunks[] = {{{chunks}0}};",
        f"static const fick_image {prefix}_images[] = {{{images}{{0, 0, 0, 0, 0}}}};",
        f"static const char *const {prefix}_kept[] = {{{kept}0}};",
    ]
    inputs = _slots_source(f"{prefix}_inputs", compiled.inputs)
    return [*lines, *inputs, *_slots_source(f"{prefix}_outputs", compiled.outputs)]


def _plan_source(prefix: str, name: str, weights_offset: int, compiled: Compiled) -> list[str]:
    return [
        f"  {{{_text(name)}, {{{weights_offset}u, {compiled.weights_bytes}u}}, {compiled.arena_bytes}u, "
        f"{compiled.state_bytes}u, {compiled.kept_bytes}u, {prefix}_inputs, {prefix}_outputs, "
        f"{len(compiled.inputs)}, {len(compiled.outputs)},",
        *(f"    {_variant_source(prefix, index, one, compiled)}," for index, one in enumerate(BEFORE)),
        f"    {prefix}_alternatives, {prefix}_kept, {len(compiled.alternatives)}, {len(compiled.kept)},",
        f"    {prefix}_chunks, {len(compiled.chunks)}, {prefix}_images, {len(_textures(compiled))}}},",
    ]


def _textures(compiled: Compiled) -> list[tuple[int, Texture]]:
    """The weights that are images, by where they lie."""
    return [(one.offset_bytes, one.texture) for one in compiled.weights if one.texture is not None]


def _image_source(offset_bytes: int, texture: Texture) -> str:
    facts = f"{texture.width}u, {texture.rows}u, {texture.strip}u"
    return f"{{{offset_bytes}u, FICK_TEXEL_{texture.texels.upper()}, {facts}}}, "


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


def _calls_source(prefix: str, calls: Sequence[Call], launches: Mapping[str, int]) -> list[str]:
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
        code = "0" if launches else f"__tvm_ffi_{call.kernel}"
        lines.append(
            f"  {{{code}, {launches.get(call.kernel, 0)}u, {prefix}_{index}, {len(call.operands)}u, "
            f"{_text(call.kernel)}, {_text(call.node)}}},"
        )
    if not calls:
        lines.append("  {0, 0, 0, 0, 0, 0},")  # C has no empty arrays
    return [*lines, "};"]


def _launches_source(prefix: str, launches: Mapping[str, Launch]) -> list[str]:
    def three(numbers: Sequence[int]) -> str:
        return "{" + ", ".join(f"{number}u" for number in numbers) + "}"

    rows = [f"  {{{_text(name)}, {three(one.items)}, {three(one.group)}}}," for name, one in launches.items()]
    # C has no empty arrays.
    return [f"static const fick_launch {prefix}[] = {{", *rows, "  {0, {0, 0, 0}, {0, 0, 0}},", "};"]


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
