"""How near a picture is to the one that the float model draws from the same prompt and seed.

These show change, not harm: a picture can differ in every pixel and be as good. They are what to hold a pass to
that claims to leave the function as it is; one that does not claim that needs the distribution measures too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

PEAK = 255.0
HIGHEST_PSNR_DB = 100.0
"""Given for equal pictures too, so that means stay finite."""


def psnr_db(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of [height, width, 3] bytes, in dB, at most 100.

    Sees every pixel alike: a shift by one pixel counts as much as a lost eye.
    """
    error = np.mean(np.square(reference.astype(np.float64) - candidate.astype(np.float64)))
    return HIGHEST_PSNR_DB if error == 0 else min(HIGHEST_PSNR_DB, 10 * float(np.log10(PEAK**2 / error)))


def ssim(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> float:
    """Structural similarity (Wang et al., 2004, eq. 13) over Gaussian windows of deviation 1.5, mean of channels.

    1 for equal pictures. Sees contrast and structure before brightness; says nothing of meaning.
    """
    windows: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    found: Any = structural_similarity(reference, candidate, channel_axis=2, data_range=PEAK, **windows)
    return float(found)


def relative_error(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> NDArray[np.float64]:
    """|candidate - reference| / |reference| at each step, of latents [steps, ...].

    Shows where in the loop an error enters; errors of early steps grow or are forgiven by later ones.
    """
    steps = len(reference)
    wanted, got = (one.reshape(steps, -1).astype(np.float64) for one in (reference, candidate))
    return np.linalg.norm(got - wanted, axis=1) / np.maximum(np.linalg.norm(wanted, axis=1), 1e-12)
