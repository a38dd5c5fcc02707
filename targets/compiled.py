"""What lowering a program gives: machine code, the calls that make up each variant, and the memory they use.

This is all that the bundle writer needs to know. Every address is a space and a byte offset into it:

``weights``  the data section of the bundle's ``weights.safetensors``, read-only and mapped from the file
``arena``    scratch for the values of one variant's run, packed by lifetime
``state``    what outlives a run: graph inputs, graph outputs and values carried between variants
``kept``     what one step leaves for the next; there is a copy for each branch of guidance that is called by itself
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..ir.program import PROLOGUE
from .packing import Packing

ITEM_BYTES = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

Space = Literal["weights", "arena", "state", "kept"]


@dataclass(frozen=True)
class Operand:
    """The address of a kernel's argument."""

    space: Space
    offset_bytes: int


@dataclass(frozen=True)
class Launch:
    """The work-items of a kernel along three axes, and those of a work-group, which divide them."""

    items: tuple[int, int, int]
    group: tuple[int, int, int]


@dataclass(frozen=True)
class Call:
    """One kernel launch. ``operands`` are passed as pointers, in order; ``node`` names what it computes."""

    kernel: str
    operands: tuple[Operand, ...]
    node: str


@dataclass(frozen=True)
class Result:
    """Where, after call number ``call`` of its variant, an element of the program's ``value`` lies."""

    value: str
    dtype: str
    shape: tuple[int, ...]
    call: int
    space: Space
    offset_bytes: int
    strides_bytes: tuple[int, ...]


@dataclass(frozen=True)
class StateTensor:
    """A dense row-major tensor in the state space, read or written from outside the kernels."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    rate: Literal["prompt", "step", "sample"]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Kept:
    """A state value of the program, in the kept space, and the alternatives that read and leave it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    readers: tuple[str, ...]
    writers: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


Texels = Literal["float32", "float16", "uint16", "int8", "uint8", "uint32"]
"""The format of each of a texel's four channels."""


@dataclass(frozen=True)
class Texture:
    """A matrix as an image: ``rows`` of ``width`` texels of four channels, in strips of ``strip`` rows side by side."""

    texels: Texels
    width: int
    rows: int
    strip: int

    @property
    def size(self) -> tuple[int, int]:
        """Texels across and down."""
        return self.width * math.ceil(self.rows / self.strip), min(self.rows, self.strip)


@dataclass(frozen=True)
class PackedWeight:
    """A tensor of the weights space: the constant ``source`` of the program, rearranged by ``packing``.

    What kernels read as a ``texture`` is in no buffer: the runtime makes an image of it.
    """

    name: str
    source: str
    packing: Packing
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    texture: Texture | None = None


@dataclass(frozen=True)
class Compiled:
    """A program lowered for one device.

    ``variants`` are "prompt" and "step", where there are any, and the alternatives, "full" first. ``kernels`` maps a
    symbol to the object file that defines ``__tvm_ffi_<symbol>``, or of a GPU to its source, with how many work-items
    run it in ``launches``; there, weights are a buffer from each of ``chunks`` on, and what has a texture lies behind
    those. ``carried`` gives for each variant the byte range (offset, size) of the state space that it fills for
    others: of "step", one row of the table that the runtime keeps. ``results`` are the program's values that calls of
    a variant end in.
    """

    arch: str
    triple: str
    cpu_features: tuple[str, ...]
    kernels: dict[str, bytes]
    variants: dict[str, tuple[Call, ...]]
    inputs: tuple[StateTensor, ...]
    outputs: tuple[StateTensor, ...]
    weights: tuple[PackedWeight, ...]
    weights_bytes: int
    arena_bytes: int
    state_bytes: int
    carried: dict[str, tuple[int, int]]
    kept_bytes: int = 0
    kept: tuple[Kept, ...] = ()
    launches: Mapping[str, Launch] = field(default_factory=dict[str, Launch])
    chunks: tuple[int, ...] = ()
    results: dict[str, tuple[Result, ...]] = field(default_factory=dict[str, tuple[Result, ...]])

    @property
    def alternatives(self) -> list[str]:
        return [name for name in self.variants if name not in PROLOGUE]
