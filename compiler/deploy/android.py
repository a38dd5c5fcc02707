"""fick package --android: a bundle and what draws from it, laid out as an app's sources and libraries are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ...ir.errors import UserError
from ...ir.files import check_new_folder
from ...runtime.loader import check_bundle
from ..bundle.link import native_folder
from ..cache import cache_folder
from ..runner import android

PLACES = {
    "AndroidManifest.xml": "AndroidManifest.xml",
    "README.md": "README.md",
    "Pipeline.java": "java/fick/Pipeline.java",
    "Fick.kt": "java/fick/Fick.kt",
}
"""Where files of runtime/android go."""

SOURCES = {
    "fick.h": "include/fick.h",
    "pipeline/fick_pipeline.h": "include/fick_pipeline.h",
    "jni/fick_jni.c": "cpp/fick_jni.c",
}
"""Where files of runtime/native go."""


@dataclass(frozen=True)
class Package:
    folder: Path
    abi: str
    library_bytes: int
    bundle_bytes: int


def package(bundle: Path, output: Path, progress: Callable[[str], None] = lambda stage: None) -> Package:
    """Write the folder ``output``, which must not exist: whole or not at all, and the same bytes from the same bundle.

    Raises UserError for a bundle that no Android device runs, and where the folder cannot be written.
    """
    checked = check_bundle(bundle)
    target = checked.manifest["target"]
    arch = str(target.get("arch"))
    if not checked.manifest.get("pipeline"):
        raise UserError(f"{bundle} holds a model alone; an app draws with whole pipelines")
    if arch not in android.ABIS:
        raise UserError(
            f"{bundle} is compiled for {arch}, and apps run on {', '.join(android.ABIS)}; compile it with "
            "--target android-arm64 or android-arm32"
        )
    if target.get("kind") == "opencl" and "spare" not in target:
        raise UserError(f"{bundle} is for a GPU alone; compile it with --fallback android-arm64")
    check_new_folder(output)
    progress("build")
    library = android.library(arch, cache_folder() / "core")
    progress("write")
    try:
        made = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".part"))
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from None
    try:
        _fill(made, bundle, android.ABIS[arch].name, library)
        made.chmod(0o755)
        os.rename(made, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return Package(output, android.ABIS[arch].name, len(library), bundle.stat().st_size)


def _fill(folder: Path, bundle: Path, abi: str, library: bytes) -> None:
    texts = files("fick.runtime").joinpath("android")
    written = {place: texts.joinpath(name).read_bytes() for name, place in PLACES.items()}
    written |= {place: (native_folder() / name).read_bytes() for name, place in SOURCES.items()}
    written["README.md"] = written["README.md"].replace(b"BUNDLE.fick", bundle.name.encode())
    written[f"jniLibs/{abi}/libfick.so"] = library
    for place, data in written.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "assets").mkdir()
    shutil.copyfile(bundle, folder / "assets" / bundle.name)
