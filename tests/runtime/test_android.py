"""What fick package --android writes: a library that Android's linker takes, and Java that draws with it.

No phone is at hand. The library for apps is loaded by this machine's Java instead: what Android calls libc.so and libm.so
are libraries here that lead to this system's own, which agree with Android's in all that is used. That for 32-bit Arm
is loaded under qemu by a program that calls it as Android's Java does (draw_soft.c), and its libc.so and libm.so hand
floats over as Android's do (soft_system.c).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fick.compiler.bundle.link import native_folder
from fick.compiler.cache import cache_folder
from fick.compiler.deploy.android import package
from fick.compiler.runner import android, program
from fick.ir.errors import UserError

from ..emulated import run_program
from . import tiny_pipeline
from .test_library import dynamic_entries, dynamic_tables

HERE = Path(__file__).parent
MACHINES = {"aarch64": 183, "armv7l": 40, "x86_64": 62}
"""e_machine of the ELF header."""

LOAD, SONAME, TEXTREL, RELRO = 1, 14, 22, 0x6474E552
PROMPT, STEPS, SEED = "Cat \U0001f600 & dog", 4, 7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, core_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("tiny-pipeline")
    return tiny_pipeline.write(folder / "tiny.fick", folder, core_cache)


@pytest.fixture(scope="module")
def packaged(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(bundle, tmp_path_factory.mktemp("packaged") / "app").folder


@pytest.mark.parametrize("arch", MACHINES)
def test_androids_linker_takes_the_library(arch: str) -> None:
    data = android.library(arch, cache_folder() / "core")
    needed, undefined, defined = dynamic_tables(data)
    assert needed == {"libc.so", "libm.so"}
    assert undefined - {""} <= set(" ".join(android.ABIS[arch].functions.values()).split())
    assert "__errno_location" not in undefined and "__errno" in undefined
    natives = re.findall(
        r" native \S+ (\w+)\(", (HERE.parents[1] / "runtime/android/Pipeline.java").read_text()
    )
    header = (native_folder() / "pipeline" / "fick_pipeline.h").read_text()
    declared = set(re.findall(r"^FICK_API [^;(]*?(fick_\w+)\(", header, re.MULTILINE))
    assert {f"Java_fick_Pipeline_{name}" for name in natives} | declared <= defined
    assert {name for name in defined if not name.startswith(("fick_", "Java_fick_"))} == set()
    segments, tags = _segments(data), {tag for tag, _ in dynamic_entries(data)}
    (machine,) = struct.unpack_from("<H", data, 18)
    assert machine == MACHINES[arch]
    for kind, offset, address, alignment in segments:
        # Two segments of one page could not have rights of their own.
        if kind == LOAD:
            assert alignment % 16384 == 0 and (address - offset) % 16384 == 0
    assert RELRO in {one[0] for one in segments}
    assert SONAME in tags and TEXTREL not in tags


def _segments(data: bytes) -> list[tuple[int, int, int, int]]:
    """Kind, offset, address and alignment of each."""
    wide = data[4] == 2
    start, head, form = (32, 54, "<I4xQQ24xQ") if wide else (28, 42, "<IIIxxxxxxxxxxxxxxxxI")
    (at,) = struct.unpack_from("<Q" if wide else "<I", data, start)
    size, count = struct.unpack_from("<HH", data, head)
    found = (struct.unpack_from(form, data, at + size * index) for index in range(count))
    return [(kind, offset, address, alignment) for kind, offset, address, alignment in found]


def test_floats_take_the_detour_on_32_bit_arm() -> None:
    """All functions of libm that Android is asked for there, or else they would be handed over wrongly."""
    header = (native_folder() / "android" / "soft_floats.h").read_text()
    detours = set(re.findall(r"(?:ONE|TWO)\((?:float|double), (\w+)\)", header))
    assert detours == set(android.SOFT.split())
    _, undefined, _ = dynamic_tables(android.library("armv7l", cache_folder() / "core"))
    # What zig brings itself is of the same kind as the callers.
    assert undefined & set(android.FUNCTIONS["libm.so"].split()) == detours


def test_functions_are_in_the_places_of_the_interface(tmp_path: Path) -> None:
    """Those of the JDK's jni.h, which also takes our calls as they are."""
    theirs = Path(_program("javac")).resolve().parents[1] / "include"
    ours = native_folder() / "jni"
    names = re.findall(r"\(\*(\w+)\)", (ours / "jni.h").read_text())
    lines = "".join(
        f'  printf("{name} %zu\\n", offsetof(struct JNINativeInterface_, {name}));\n' for name in names
    )
    (tmp_path / "places.c").write_text(
        f"#include <jni.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n{lines}}}\n"
    )
    said: list[str] = []
    for index, folders in enumerate(([ours], [theirs, theirs / "linux"])):
        flags = [f"-I{folder}" for folder in folders]
        _compile([*flags, "places.c", "-o", f"places{index}"], tmp_path)
        said.append(
            subprocess.run([tmp_path / f"places{index}"], capture_output=True, text=True, check=True).stdout
        )
        pipeline = [f"-I{native_folder()}", f"-I{native_folder() / 'pipeline'}"]
        strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-c", "-o", "methods.o"]
        _compile([*flags, *pipeline, *strict, str(ours / "fick_jni.c")], tmp_path)
    assert len(names) == 10 and said[0] == said[1] and "GetByteArrayElements" in said[0]


def test_java_draws_what_fick_run_draws(packaged: Path, bundle: Path, tmp_path: Path) -> None:
    """To the bit, with a prompt that Java writes otherwise than the rest of the world."""
    runner = tmp_path / "fick-run"
    runner.write_bytes(program(platform.machine(), cache_folder() / "core", "gnu"))
    runner.chmod(0o755)
    asked = [
        "--steps",
        str(STEPS),
        "--seed",
        str(SEED),
        "--guidance",
        "3",
        "--sampler",
        "ddim",
        "--negative",
        "dog",
    ]
    place = ["--quiet", "-o", str(tmp_path / "x.png")]
    subprocess.run([runner, bundle, "--prompt", PROMPT, *asked, *place], check=True)
    (tmp_path / "prompt").write_text(PROMPT, encoding="utf-8")
    sources = [packaged / "java/fick/Pipeline.java", HERE / "Draw.java"]
    subprocess.run([_program("javac"), "-Xlint:all", "-Werror", "-d", tmp_path, *sources], check=True)
    [asset] = (packaged / "assets").iterdir()
    [library] = (packaged / "jniLibs").rglob("libfick.so")
    command = [
        _program("java"),
        "-Xcheck:jni",
        f"-Djava.library.path={library.parent}",
        "-cp",
        tmp_path,
        "Draw",
    ]
    ran = subprocess.run(
        [*command, asset, tmp_path / "x.rgb", tmp_path / "prompt", str(STEPS), str(SEED)],
        env={**os.environ, "LD_LIBRARY_PATH": os.fspath(_androids_libraries(tmp_path / "system"))},
        capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    with Image.open(tmp_path / "x.png") as image:
        wanted = np.asarray(image)
    drawn = np.fromfile(tmp_path / "x.rgb", np.uint8).reshape(wanted.shape)
    assert np.ptp(wanted) > 20 and np.array_equal(drawn, wanted)
    said = dict(line.split(": ", 1) for line in ran.stdout.decode("utf-8").splitlines())
    assert said.pop("no file").startswith("IllegalStateException, cannot open none-\U0001f600.fick: ")
    assert said.pop("sampler").startswith("IllegalStateException, sampler best is not known")
    assert said == {
        "size": "6 x 6",
        "no prompt": "IllegalStateException, the pipeline does not know what to draw; give it a prompt or a class",
        "a class": "IllegalStateException, the bundle draws prompts; give it one",
        "dropped": "cat cat \U0001f600",
        "steps": str([f"{done}/{STEPS}" for done in range(STEPS + 1)]).replace("'", ""),
        "stopped": "cancelled",
        "cancelled": "cancelled",
        "thrown": "ArithmeticException, at 0",
        "closed": "IllegalStateException, the pipeline is closed",
    }


def test_32_bit_arm_draws_what_fick_run_draws(core_cache: Path, tmp_path: Path) -> None:
    """To one of 255: sines are another library's. Called as Android's Java calls, guidance in an integer register."""
    core, zig = "cortex-a7", [sys.executable, "-m", "ziglang", "cc", "-target", "arm-linux-gnueabihf.2.17"]
    bundle = tiny_pipeline.write(tmp_path / "tiny.fick", tmp_path, core_cache, core)
    folder = package(bundle, tmp_path / "app").folder
    library = folder / "jniLibs" / "armeabi-v7a" / "libfick.so"
    shared = ["-shared", "-fPIC", "-fno-builtin", "-mcpu=generic+v7a+neon+vfp4"]
    for name in ("c", "m"):
        made = [f"-DLIB{name.upper()}", f"-Wl,-soname,lib{name}.so", "-o", str(tmp_path / f"lib{name}.so")]
        subprocess.run([*zig, *shared, str(HERE / "soft_system.c"), *made, "-ldl"], check=True)
    program_file = tmp_path / "draw"
    headers = [f"-I{native_folder() / 'jni'}", "-mcpu=generic+v7a+neon+vfp4"]
    subprocess.run([*zig, *headers, str(HERE / "draw_soft.c"), "-o", str(program_file), "-ldl"], check=True)
    places = (tmp_path / "libc.so", tmp_path / "libm.so", library, bundle, tmp_path / "x.rgb")
    ran = run_program(program_file, core, *map(str, places), PROMPT, str(STEPS), str(SEED))
    assert (ran.returncode, ran.stderr) == (0, "")
    runner = tmp_path / "fick-run"
    runner.write_bytes(program("armv7l", core_cache, "gnu"))
    runner.chmod(0o755)
    asked = ["--prompt", PROMPT, "--steps", str(STEPS), "--seed", str(SEED), "--guidance", "3", "--quiet"]
    ran = run_program(runner, core, str(bundle), *asked, "-o", str(tmp_path / "x.png"))
    assert (ran.returncode, ran.stderr) == (0, "")
    with Image.open(tmp_path / "x.png") as image:
        wanted = np.asarray(image)
    drawn = np.fromfile(tmp_path / "x.rgb", np.uint8).reshape(wanted.shape)
    assert np.ptp(wanted) > 20 and np.abs(drawn.astype(int) - wanted).max() <= 1


def test_the_folder_is_the_same_every_time(packaged: Path, bundle: Path, tmp_path: Path) -> None:
    again = package(bundle, tmp_path / "again").folder
    with pytest.raises(
        UserError, match=r"cannot write .*again: give the name of a new folder in one that exists"
    ):
        package(bundle, again)
    with pytest.raises(UserError, match=r"cannot write .*none/app: give the name of a new folder"):
        package(bundle, tmp_path / "none" / "app")

    def contents(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    assert contents(again) == contents(packaged)
    assert contents(again)["assets/tiny.fick"] == bundle.read_bytes()
    assert b"BUNDLE" not in contents(again)["README.md"] and b'"tiny.fick"' in contents(again)["README.md"]
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pipeline": {}}, "holds a model alone"),
        ({"target": {"arch": "riscv64"}}, "is compiled for riscv64, and apps run on aarch64, armv7l, x86_64"),
        ({"target": {"arch": "aarch64", "kind": "opencl"}}, "is for a GPU alone; compile it with --fallback"),
    ],
)
def test_a_bundle_that_no_app_runs(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    core_cache: Path,
    changed: dict[str, object],
    said: str,
) -> None:
    folder = tmp_path_factory.mktemp("unfit")
    unfit = tiny_pipeline.write(folder / "x.fick", folder, core_cache, **changed)
    with pytest.raises(UserError, match=said):
        package(unfit, tmp_path / "app")
    assert list(tmp_path.iterdir()) == []


def _androids_libraries(folder: Path) -> Path:
    """A folder with a libc.so and a libm.so that bring this system's under their names."""
    folder.mkdir()
    (folder / "c.c").write_text(
        "int *__errno_location(void);\nint *__errno(void) { return __errno_location(); }\n"
    )
    (folder / "m.c").write_text("typedef int nothing;\n")
    for name in ("c", "m"):
        linking = ["-shared", f"-Wl,-soname,lib{name}.so", "-Wl,--no-as-needed", "-lm"]
        _compile([f"{name}.c", *linking, "-o", f"lib{name}.so"], folder)
    return folder


def _compile(arguments: list[str], folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *arguments], cwd=folder, check=True)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail("Java is compiled and run by a JDK: on Debian, apt-get install default-jdk-headless")
    return found
