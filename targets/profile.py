"""Device profiles: what a target is, as data."""

from __future__ import annotations

import os
import platform
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..ir.errors import UserError


class Profile(BaseModel):
    """A device family's instruction set and sizes. The files are ``targets/profiles/*.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="The name given to --target.")
    description: str = Field(description="One line for `fick targets`.")
    base: str | None = Field(
        default=None, description="The profile that gives what this one does not say: that of a board's core."
    )
    kind: Literal["cpu"] = Field(description="Which lowering applies.")
    arch: Literal["x86_64", "aarch64"] = Field(description="Instruction set architecture.")
    triple: str = Field(description="Triple of the code generator and the linker.")
    llvm_cpu: str = Field(description="LLVM's name for the core.")
    llvm_features: tuple[str, ...] = Field(default=(), description="LLVM features on top of the core's own.")
    requires: tuple[str, ...] = Field(
        description="CPU features that the runtime checks before it runs a kernel."
    )
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
    cores: int = Field(ge=1, le=1024, description="Cores that a run is divided among by default.")
    l1_bytes: int = Field(gt=0, description="First-level data cache of one core, in bytes.")
    l2_bytes: int = Field(gt=0, description="Second-level cache of one core, in bytes.")
    macs_per_byte: float = Field(
        gt=0, description="Float32 multiply-accumulates of all cores while a byte of memory arrives."
    )
    enlarge_weights: bool = Field(
        default=True, description="Whether a layer may take more memory for weights to be faster."
    )
    int8_dot: Literal["vpdpbusd", "pmaddwd", "sdot", "shifts"] = Field(
        default="shifts", description="How a vector unit adds products of int8 numbers, four a sum."
    )
    formats: tuple[str, ...] = Field(description="Number formats with kernels.")
    tile_formats: tuple[str, ...] = Field(
        default=(), description="Number formats that a matrix unit multiplies."
    )
    memory_bytes: int = Field(
        gt=0, description="Memory a model may use, in bytes: the default --memory-limit."
    )

    def llvm_target(self) -> dict[str, object]:
        """The target as TVM's LLVM code generator takes it."""
        target: dict[str, object] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.llvm_cpu}
        if self.llvm_features:
            target["mattr"] = list(self.llvm_features)
        return target


def names() -> list[str]:
    """The profiles that come with fick, and ``host``."""
    found = [entry.name[:-5] for entry in files("fick.targets").joinpath("profiles").iterdir()]
    return ["host", *sorted(found)]


def load(name: str) -> Profile:
    """A profile by name, by path of a TOML file, or ``host``: the best one that this machine can run.

    Raises UserError for an unknown name or a file that is not a profile.
    """
    if name == "host":
        return _host()
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"target {name!r}: no such file; give the path of a profile or one of {_known()}")
        try:
            return _parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"target {name!r} cannot be read: {error}") from None
    if name not in names():
        raise UserError(f"target {name!r} is not known; the targets are {_known()}, or a .toml file")
    return _parse(
        files("fick.targets").joinpath("profiles", f"{name}.toml").read_text(encoding="utf-8"), name
    )


def fitting() -> list[Profile]:
    """The shipped profiles of kinds of cores whose required features this machine has."""
    shipped = (load(name) for name in names() if name != "host")
    machine = platform.machine()
    families = [one for one in shipped if one.base is None]
    return [one for one in families if one.arch == machine and _cpu_flags().issuperset(one.requires)]


def _known() -> str:
    return ", ".join(names())


def _parse(text: str, where: str) -> Profile:
    try:
        given = tomllib.loads(text)
        if (base := given.get("base")) is not None:
            if base not in names()[1:]:
                raise UserError(f"target {where}: base {base!r} is not known; it may be one of {_known()}")
            given = {**load(base).model_dump(), **given}
        return Profile.model_validate(given)
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
