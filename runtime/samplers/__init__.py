"""Samplers: what happens between two calls of the model. Plain NumPy, checked against diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from ..errors import FickError
from .base import Sampler
from .consistency import Consistency, spaced_levels
from .ddim import DDIM
from .ddpm import DDPM
from .dpm_solver import DPMSolver
from .euler import Euler
from .noise_schedule import NoiseSchedule
from .plms import PLMS

__all__ = ["KINDS", "Sampler", "create"]

DEFAULT_STEPS = 20

Config = Mapping[str, Any]


def _count(steps: int | None) -> int:
    return DEFAULT_STEPS if steps is None else steps


def _consistency(spec: Config, steps: int | None) -> Sampler:
    sigmas, least = spec.get("sigmas"), float(spec.get("sigma_min", 0.002))
    if steps is not None and (sigmas is None or steps != len(sigmas)):
        sigmas = spaced_levels(steps, float((sigmas or [80.0])[0]), least)
    return Consistency(sigmas or [80.0], least)


def _dpm(spec: Config, steps: int | None) -> Sampler:
    if spec.get("algorithm_type", "dpmsolver++") != "dpmsolver++" or spec.get("solver_order", 2) != 2:
        raise FickError("of the DPM solvers only dpmsolver++ of order 2 is supported")
    schedule = NoiseSchedule.of(spec, timestep_spacing="linspace")
    final = str(spec.get("final_sigmas_type", "zero"))
    return DPMSolver(schedule, _count(steps), final, bool(spec.get("lower_order_final", True)))


KINDS: dict[str, Callable[[Config, int | None], Sampler]] = {
    "consistency": _consistency,
    "ddim": lambda spec, steps: DDIM(
        NoiseSchedule.of(spec, clip_sample=True), _count(steps), float(spec.get("eta", 0.0))
    ),
    "ddpm": lambda spec, steps: DDPM(
        NoiseSchedule.of(spec, clip_sample=True), _count(steps), str(spec.get("variance_type", "fixed_small"))
    ),
    "dpm-solver++": _dpm,
    "euler": lambda spec, steps: Euler(NoiseSchedule.of(spec, timestep_spacing="linspace"), _count(steps)),
    "plms": lambda spec, steps: PLMS(NoiseSchedule.of(spec, set_alpha_to_one=False), _count(steps)),
}
"""Samplers by name. Defaults of the noise schedule are those of the diffusers class of that name."""

DIFFUSERS_CLASSES = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DPMSolverMultistepScheduler": "dpm-solver++",
    "EulerDiscreteScheduler": "euler",
    "PNDMScheduler": "plms",
}


def create(spec: Config, steps: int | None = None) -> Sampler:
    """A sampler from its description.

    ``spec`` is {"kind": NAME, ...} with the fields of the noise schedule beside it, or {"kind": "diffusers",
    "config": ...} with a ``scheduler_config.json``. ``steps`` is how often the model is called (20 by default;
    a consistency model has its own list of noise levels). Raises FickError for what is not known.
    """
    kind = spec.get("kind")
    if kind == "diffusers":
        config = cast(Config, spec.get("config") or {})
        name = config.get("_class_name")
        if name not in DIFFUSERS_CLASSES:
            known = ", ".join(DIFFUSERS_CLASSES)
            raise FickError(f"the pipeline's scheduler {name} is not known; name another sampler, or use {known}")
        kind, spec = DIFFUSERS_CLASSES[name], config
    if kind not in KINDS:
        raise FickError(f"sampler {kind!r} is not known; the samplers are {', '.join(KINDS)}")
    return KINDS[cast(str, kind)](spec, steps)
