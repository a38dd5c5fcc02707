"""The device family of a profile."""

from __future__ import annotations

from .cpu.device import Processor
from .opencl.device import Gpu
from .planning.device import Device
from .profile import GpuProfile, Profile, Target


def device_for(profile: Target) -> Device:
    if isinstance(profile, GpuProfile):
        return Gpu(profile)
    assert isinstance(profile, Profile)
    return Processor(profile)
