"""What kernels cost on a GPU, predicted from its profile: the roofline of every call.

A call takes no less than its operations at the device's peak and no less than its operands at the memory's bandwidth
(Williams, Waterman and Patterson, Communications of the ACM 52.4, 2009), and then the next one has to be launched.
Nothing was measured: the figures are the profile's, with its labels, and good for comparing layers with each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ir.errors import UserError
from ...ir.program import Program
from ...targets.devices import device_for
from ...targets.lower import planned_calls
from ...targets.lowering import PendingCall
from ...targets.opencl.kernel import Kernel
from ...targets.profile import GpuProfile
from ..bundle.skeleton import manifest_of


@dataclass(frozen=True)
class KernelCost:
    """One kernel over all of its calls in a run. ``registers`` is an estimate of a work-item's, in 32-bit words, and
    ``occupancy`` the share of threads that they leave room for.
    """

    kernel: str
    calls: int
    node: str
    items: tuple[int, int, int]
    group: tuple[int, int, int]
    registers: int
    occupancy: float
    flops: float
    moved_bytes: int
    seconds: float
    bound: str

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.moved_bytes

    def facts(self) -> dict[str, Any]:
        return {**vars(self), "intensity": self.intensity}


def call_seconds(call: PendingCall, profile: GpuProfile) -> float:
    return profile.launch_seconds.value + max(_shares(call, profile).values())


def _shares(call: PendingCall, profile: GpuProfile) -> dict[str, float]:
    kernel = call.kernel
    assert isinstance(kernel, Kernel)
    return {
        "compute": kernel.flops / (kernel.rate * profile.peak_flops.value),
        "memory": sum(call.moved_bytes) / profile.bandwidth.value,
    }


def costs(calls: Iterable[PendingCall], profile: GpuProfile) -> list[KernelCost]:
    """By kernel, those that take longest first."""
    of: dict[Kernel, list[PendingCall]] = {}
    for call in calls:
        assert isinstance(call.kernel, Kernel)
        of.setdefault(call.kernel, []).append(call)
    device = device_for(profile)
    found = [_cost(device.symbol(kernel), kernel, same, profile) for kernel, same in of.items()]
    return sorted(found, key=lambda one: (-one.seconds, one.kernel))


def _cost(name: str, kernel: Kernel, calls: list[PendingCall], profile: GpuProfile) -> KernelCost:
    shares = _shares(calls[0], profile)
    bound = max(shares, key=shares.__getitem__)
    return KernelCost(
        kernel=name,
        calls=len(calls),
        node=calls[0].node,
        items=kernel.launch.items,
        group=kernel.launch.group,
        registers=kernel.registers,
        occupancy=min(1.0, profile.registers / kernel.registers),
        flops=kernel.flops * len(calls),
        moved_bytes=sum(sum(call.moved_bytes) for call in calls),
        seconds=sum(call_seconds(call, profile) for call in calls),
        bound=bound if shares[bound] > profile.launch_seconds.value else "launch",
    )


def kernel_facts(program: Program, profile: GpuProfile) -> dict[str, list[dict[str, Any]]]:
    """By variant, what its kernels do and how long that is predicted to take."""
    planned, _ = planned_calls(program, profile)
    return {variant: [one.facts() for one in costs(calls, profile)] for variant, calls in planned.items()}


def figures(profile: GpuProfile) -> dict[str, Any]:
    """What predictions rest on."""
    return {
        name: getattr(profile, name).model_dump() for name in ("bandwidth", "peak_flops", "launch_seconds")
    }


def inspect_kernels(path: Path) -> dict[str, Any]:
    """The kernels of a GPU's bundle, by component and variant, and the figures that their times come from.

    Raises UserError for the bundle of another device.
    """
    manifest = manifest_of(path)
    target, components = manifest["target"], manifest["components"]
    if target.get("kind") != "opencl":
        raise UserError(
            f"{path} is for {target.get('name')}; --kernels is for bundles of GPUs, such as adreno's"
        )
    kernels = {
        f"{component}/{variant}": found
        for component, facts in components.items()
        for variant, found in facts["kernels"].items()
    }
    return {
        "target": target["name"],
        "source_bytes": manifest["entries"]["code/kernels.cl"]["bytes"],
        "figures": target["figures"],
        "kernels": kernels,
        "predicted_seconds": {name: sum(one["seconds"] for one in found) for name, found in kernels.items()},
    }
