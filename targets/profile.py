"""Device profiles: what a target is, as data."""

from __future__ import annotations

import os
import platform
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..ir.errors import UserError
from ..ir.files import read_text


class Target(BaseModel):
    """What every device family's profile says. The files are ``targets/profiles/*.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="The name given to --target.")
    description: str = Field(description="One line for `fick targets`.")
    base: str | None = Field(
        default=None, description="The profile that gives what this one does not say: that of a board's core."
    )
    kind: Literal["cpu", "opencl"] = Field(description="Which lowering applies.")
    arch: Literal["x86_64", "aarch64", "armv7l"] = Field(
        description="Instruction set of the processor that runs the core."
    )
    triple: str = Field(description="Triple of the code generator and the linker.")
    requires: tuple[str, ...] = Field(
        description="CPU features that the runtime checks before it runs a kernel."
    )
    cores: int = Field(ge=1, le=1024, description="Cores that a run is divided among by default.")
    enlarge_weights: bool = Field(
        default=True, description="Whether a layer may take more memory for weights to be faster."
    )
    formats: tuple[str, ...] = Field(description="Number formats with kernels.")
    half_run: int = Field(
        default=0,
        ge=0,
        le=256,
        multiple_of=4,
        description="Products of half floats that are added up as such, before float sums take them; 0: none.",
    )
    memory_bytes: int = Field(
        gt=0, description="Memory a model may use, in bytes: the default --memory-limit."
    )
    tuned: Mapping[str, str] = Field(
        default={}, description="What was measured to be fastest on such a device, by problem: `fick tune`."
    )

    @property
    def adds_in_half(self) -> int:
        """Most products that kernels add up in float16."""
        return self.half_run


class Profile(Target):
    """A processor's instruction set and sizes."""

    kind: Literal["cpu"] = "cpu"
    llvm_cpu: str = Field(description="LLVM's name for the core.")
    llvm_features: tuple[str, ...] = Field(default=(), description="LLVM features on top of the core's own.")
    vector_lanes: int = Field(gt=0, le=64, description="float32 lanes of one vector register.")
    vector_registers: int = Field(ge=8, le=64, description="Architectural vector registers.")
    clock_hz: float = Field(
        gt=0, description="Cycles a second of a core under load, of a chip of the family."
    )
    fma_rate: float = Field(gt=0, description="Vector multiply-adds that a core starts in a cycle.")
    fma_latency: int = Field(gt=0, description="Cycles before a sum can be added to again.")
    load_rate: float = Field(gt=0, description="Vector loads that a core starts in a cycle.")
    by_lane: bool = Field(
        default=False, description="Whether a multiply-add takes one factor from a lane of a vector register."
    )
    l1_bytes: int = Field(gt=0, description="First-level data cache of one core, in bytes.")
    l2_bytes: int = Field(gt=0, description="Second-level cache of one core, in bytes.")
    macs_per_byte: float = Field(
        gt=0, description="Float32 multiply-accumulates of all cores while a byte of memory arrives."
    )
    int8_dot: Literal["vpdpbusd", "pmaddwd", "sdot", "smmla", "shifts"] = Field(
        default="shifts", description="How a vector unit adds products of int8 numbers, several a sum."
    )
    bfloat16_dot: Literal["vdpbf16ps", "bfdot"] | None = Field(
        default=None,
        description="How a vector unit adds products of bfloat16 numbers, two a sum, if it does.",
    )
    tile_formats: tuple[str, ...] = Field(
        default=(), description="Number formats that a matrix unit multiplies."
    )

    def llvm_target(self) -> dict[str, object]:
        """The target as TVM's LLVM code generator takes it."""
        target: dict[str, object] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.llvm_cpu}
        if self.llvm_features:
            target["mattr"] = list(self.llvm_features)
        return target


class Figure(BaseModel):
    """A number of a device, and how far it can be trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(gt=0)
    label: Literal["published", "measured", "assumed"]
    source: str


class GpuProfile(Target):
    """A GPU as OpenCL sees it, and what its time is predicted by."""

    kind: Literal["opencl"]
    opencl: Literal["1.2", "2.0", "3.0"] = Field(description="Version of OpenCL that the driver offers.")
    half: bool = Field(description="Whether there is cl_khr_fp16: arithmetic on 16-bit floats.")
    images: bool = Field(description="Whether weights are better read as textures.")
    image_side: int = Field(
        default=16384, ge=64, le=1 << 20, description="Most texels of an image across, and down."
    )
    int8_dot: bool = Field(
        description="Whether there is cl_khr_integer_dot_product or cl_arm_integer_dot_product."
    )
    work_group: int = Field(ge=1, le=4096, description="Most work-items of a group.")
    local_bytes: int = Field(gt=0, description="Local memory of a work-group, in bytes.")
    buffer_bytes: int = Field(
        gt=0, lt=1 << 32, description="Largest buffer, in bytes: kernels find their operands by 32 bits."
    )
    registers: int = Field(ge=8, le=512, description="32-bit registers of a work-item at full occupancy.")
    bandwidth: Figure = Field(description="Of memory, in bytes a second.")
    peak_flops: Figure = Field(description="Operations a second in float32, a multiply-add being two.")
    launch_seconds: Figure = Field(description="From one kernel's end to the next one's begin.")

    @property
    def adds_in_half(self) -> int:
        return self.half_run if self.half else 0


def names() -> list[str]:
    """The profiles that come with fick, ``host`` among them."""
    found = [entry.name[:-5] for entry in files("fick.targets").joinpath("profiles").iterdir()]
    return ["host", *sorted(found)]


def load(name: str) -> Target:
    """A profile by name, by path of a TOML file, or ``host``: the best one that this machine's processor can run.

    Raises UserError for an unknown name or a file that is not a profile.
    """
    if name == "host":
        return _host()
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"target {name!r}: no such file; give the path of a profile or one of {_known()}")
        try:
            text = read_text(path)
        except (OSError, ValueError) as error:
            raise UserError(f"target {name!r} cannot be read: {error}") from None
        return _parse(text, str(path))
    if name not in names():
        raise UserError(f"target {name!r} is not known; the targets are {_known()}, or a .toml file")
    return _parse(
        files("fick.targets").joinpath("profiles", f"{name}.toml").read_text(encoding="utf-8"), name
    )


def fitting() -> list[Profile]:
    """The shipped profiles of kinds of cores whose required features this machine has."""
    shipped = (load(name) for name in names() if name != "host")
    machine = platform.machine()
    return [
        one
        for one in shipped
        if isinstance(one, Profile)
        and one.base is None
        and one.arch == machine
        and _cpu_flags().issuperset(one.requires)
    ]


def processor(name: str) -> Profile:
    """As ``load``, of a processor. Raises UserError for the profile of another device."""
    found = load(name)
    if not isinstance(found, Profile):
        raise UserError(f"target {name!r} is no processor; name one, such as host")
    return found


def _known() -> str:
    return ", ".join(names())


KINDS: dict[Any, type[Target]] = {"cpu": Profile, "opencl": GpuProfile}


def _parse(text: str, where: str) -> Target:
    try:
        facts = tomllib.loads(text)
        if (base := facts.get("base")) is not None:
            if base not in names()[1:]:
                raise UserError(f"target {where}: base {base!r} is not known; it may be one of {_known()}")
            facts = {**load(base).model_dump(), **facts}
        if facts.get("arch") == "host":
            machine = platform.machine()
            facts |= {"arch": machine, "triple": f"{machine}-linux-gnu"}
        return KINDS.get(facts.get("kind"), Target).model_validate(facts)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"target {where}: not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"target {where}: field {field!r}: {first['msg']}") from None


@cache
def _cpu_flags() -> frozenset[str]:
    """Feature names of this machine as Linux gives them."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _host() -> Profile:
    """The most capable of the profiles that fit, with this machine's core count."""
    found = fitting()
    if not found:
        raise UserError(
            f"target 'host': no shipped profile fits this {platform.machine()} machine; name one of {_known()}"
        )
    best = max(found, key=lambda profile: (profile.vector_lanes, len(profile.requires), profile.name))
    return best.model_copy(update={"cores": len(os.sched_getaffinity(0))})
