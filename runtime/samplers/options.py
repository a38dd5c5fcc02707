"""Reading a sampler's description, which anybody may have written: what cannot be honoured is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ..errors import FickError

Value = TypeVar("Value", bool, int, float, str)

# Options of diffusers' schedulers that change the result, by sampler, with the values that ours honours.
_OFF = (False, None)
_SIGMA_SPACINGS = {f"use_{name}_sigmas": _OFF for name in ("karras", "exponential", "beta")}
_PIXELS = {"trained_betas": (None,), "thresholding": _OFF, "rescale_betas_zero_snr": _OFF}
HONOURED: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "ddim": _PIXELS,
    "ddpm": {**_PIXELS, "variance_type": ("fixed_small", "fixed_large")},
    "dpm-solver++": {
        **_PIXELS,
        **_SIGMA_SPACINGS,
        "algorithm_type": ("dpmsolver++",),
        "solver_order": (2,),
        "solver_type": ("midpoint",),
        "final_sigmas_type": ("zero", "sigma_min"),
        "euler_at_final": _OFF,
        "use_lu_lambdas": _OFF,
        "use_flow_sigmas": _OFF,
        "lambda_min_clipped": (float("-inf"), None),
        "variance_type": (None,),
    },
    "euler": {
        **_PIXELS,
        **_SIGMA_SPACINGS,
        "final_sigmas_type": ("zero",),
        "interpolation_type": ("linear",),
        "timestep_type": ("discrete",),
    },
    "euler-ancestral": {"trained_betas": (None,), "rescale_betas_zero_snr": _OFF},
    "plms": {"trained_betas": (None,), "skip_prk_steps": (True,)},
}


def require_honoured(kind: str, config: Mapping[str, Any]) -> None:
    """Raises FickError if an option asks for what the sampler does not do."""
    for option, values in HONOURED.get(kind, {}).items():
        if option in config and config[option] not in values:
            known = " or ".join(repr(value) for value in values)
            raise FickError(f"{option} of the sampler {kind} is {config[option]!r}; supported is {known}")


def read(config: Mapping[str, Any], option: str, default: Value) -> Value:
    """The option's value, of the default's type; the default where it is absent or null. Raises FickError."""
    value = config.get(option)
    if value is None:
        return default
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise FickError(f"{option} of the sampler is {value!r}; it must be like {default!r}")
    return cast(Value, value)
