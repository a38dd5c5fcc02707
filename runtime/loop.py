"""The denoising loop, whatever it denoises."""

from __future__ import annotations

from collections.abc import Callable

from .errors import CANCELLED, Cancelled
from .samplers import Sampler
from .samplers.base import Array, Random

Progress = Callable[[int, int], bool | None]
"""Called with (done, total); returning True cancels."""

EachStep = Callable[[int, Array], None]
"""Called after each step with its number and the sample so far."""


def denoise(
    sampler: Sampler,
    predict: Callable[[Array, int], Array],
    x: Array,
    rng: Random,
    *,
    first: int = 0,
    progress: Progress | None = None,
    each_step: EachStep | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Array:
    """From the sample ``x`` at call ``first`` of the sampler to the last one.

    ``predict(x, index)`` is the model's output at call ``index``. Raises Cancelled.
    """
    total = len(sampler.steps) - first
    for done in range(total):
        if (progress is not None and progress(done, total)) or cancelled():
            raise Cancelled("the generation was cancelled", CANCELLED)
        index = first + done
        x = sampler.step(predict(sampler.scale_input(x, index), index), index, x, rng)
        if each_step is not None:
            each_step(done + 1, x)
    if progress is not None:
        progress(total, total)
    return x


def of_sample(output: Array, sample: Array) -> Array:
    """What a model says of the sample, [batch, channels, ...], without a variance that it may have learned to say in
    channels after these (Nichol and Dhariwal, arXiv 2102.09672): no sampler here asks for it.
    """
    return output[:, : sample.shape[1]] if sample.ndim > 1 else output


def guided(conditional: Array, unconditional: Array, scale: float) -> Array:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598, eq. 6)."""
    return (unconditional + scale * (conditional - unconditional)).astype("float32")
