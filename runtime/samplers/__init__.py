"""Samplers: what happens between two calls of the model. Plain NumPy, checked against diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from ..errors import FickError
from .base import Sampler
from .consistency import Consistency, noise_levels, spaced_levels
from .ddim import DDIM
from .ddpm import DDPM
from .dpm_solver import DPMSolver
from .euler import Euler, EulerAncestral
from .noise_schedule import NoiseSchedule
from .options import read, require_honoured
from .plms import PLMS
from .residual import NOTHING, Residual

__all__ = ["KINDS", "NOTHING", "Residual", "Sampler", "create"]

DEFAULT_STEPS = 20

Config = Mapping[str, Any]


def _count(steps: int | None) -> int:
    return DEFAULT_STEPS if steps is None else steps


def _consistency(spec: Config, steps: int | None, residual: Residual) -> Sampler:
    sigmas, least = noise_levels(spec.get("sigmas") or [80.0]), read(spec, "sigma_min", 0.002)
    if steps is not None and (spec.get("sigmas") is None or steps != len(sigmas)):
        sigmas = spaced_levels(steps, sigmas[0], least)
    return Consistency(sigmas, least, residual)


def _dpm(spec: Config, steps: int | None, residual: Residual) -> Sampler:
    schedule = NoiseSchedule.of(spec, timestep_spacing="linspace")
    final = read(spec, "final_sigmas_type", "zero")
    return DPMSolver(schedule, _count(steps), final, read(spec, "lower_order_final", True))


KINDS: dict[str, Callable[[Config, int | None, Residual], Sampler]] = {
    "consistency": _consistency,
    "ddim": lambda spec, steps, residual: DDIM(
        NoiseSchedule.of(spec, clip_sample=True), _count(steps), read(spec, "eta", 0.0), residual
    ),
    "ddpm": lambda spec, steps, residual: DDPM(
        NoiseSchedule.of(spec, clip_sample=True),
        _count(steps),
        read(spec, "variance_type", "fixed_small"),
        residual,
    ),
    "dpm-solver++": _dpm,
    "euler": lambda spec, steps, residual: Euler(
        NoiseSchedule.of(spec, timestep_spacing="linspace"), _count(steps)
    ),
    "euler-ancestral": lambda spec, steps, residual: EulerAncestral(
        NoiseSchedule.of(spec, timestep_spacing="linspace"), _count(steps), residual
    ),
    "plms": lambda spec, steps, residual: PLMS(NoiseSchedule.of(spec, set_alpha_to_one=False), _count(steps)),
}
"""Samplers by name. Defaults of the noise schedule are those of the diffusers class of that name."""

DIFFUSERS_CLASSES = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DPMSolverMultistepScheduler": "dpm-solver++",
    "EulerAncestralDiscreteScheduler": "euler-ancestral",
    "EulerDiscreteScheduler": "euler",
    "PNDMScheduler": "plms",
}

DIFFUSERS_DEFAULTS: dict[str, Config] = {"PNDMScheduler": {"skip_prk_steps": False}}
"""Where a class does by default what its sampler here does not."""


def create(spec: Config, steps: int | None = None, residual: Residual = NOTHING) -> Sampler:
    """A sampler from its description.

    ``spec`` is {"kind": NAME, ...} with the fields of the noise schedule beside it, or {"kind": "diffusers",
    "config": ...} with a ``scheduler_config.json``. ``steps`` is the number of steps (20 by default; a
    consistency model has its own list of noise levels). Samplers that add noise add less by what ``residual`` says of
    the model's output; the others ignore it. Raises FickError for what is unknown or not honoured.
    """
    if not isinstance(cast(object, spec), Mapping):
        raise FickError(f"a sampler is described by its kind and options, not by {spec!r}")
    if steps is not None and (not isinstance(cast(object, steps), int) or steps < 1):
        raise FickError(f"{steps} steps are not possible; give a whole number, 1 or more")
    kind = spec.get("kind")
    if kind == "diffusers":
        if not isinstance(spec.get("config"), Mapping):
            raise FickError("a sampler of kind diffusers needs what a scheduler_config.json holds as config")
        config = cast(Config, spec["config"])
        name = str(config.get("_class_name"))
        if name not in DIFFUSERS_CLASSES:
            known = ", ".join(DIFFUSERS_CLASSES)
            raise FickError(f"the scheduler {name} is not known; name another sampler, or use {known}")
        kind, spec = DIFFUSERS_CLASSES[name], {**DIFFUSERS_DEFAULTS.get(name, {}), **config}
    if not isinstance(kind, str) or kind not in KINDS:
        raise FickError(f"sampler {kind!r} is not known; the samplers are diffusers, {', '.join(KINDS)}")
    require_honoured(kind, spec)
    return KINDS[kind](spec, steps, residual)
