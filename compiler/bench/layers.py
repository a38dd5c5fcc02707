"""What each layer of a bundle takes, and what it would take at the limit of the machine.

The roofline model (Williams, Waterman and Patterson, Communications of the ACM 52.4, 2009): a layer takes no less
than its products at the peak rate, and no less than its bytes at the rate at which they arrive. Weights come from
memory, for the whole model passes before they are wanted again; activations have just been written, and come from
whichever cache holds them: both at the rate measured for a buffer as large as what is read in between.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from ...hwmodel.extract import extract
from ...hwmodel.specs import Bits
from ...hwmodel.workload import Convolution, Gemm, Operation, TensorClass, Vectors
from ...ir.groups import groups
from ...ir.modules import module_path
from ...ir.program import Program
from ...runtime.model import CallTime
from ..costs.joining import owned
from .limits import Peaks

VARIANT = "full"
"""What runs at every step."""

NATIVE = Bits(weights=32, activations=32, scores=32)
FORMATS = {32: "float32", 16: "bfloat16", 8: "int8"}
"""Number format by the width of the widest factor, in a program that stores no float16."""

ATTENTION = "attention"


@dataclass(frozen=True)
class Work:
    """A fusion group. ``macs`` are those of the definition: a method that needs fewer products may beat the bound."""

    name: str
    kind: str
    stage: str
    shape: str
    format: str
    macs: int
    weight_bytes: int
    activation_bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True)
class Layer:
    """``seconds`` is the median of the rounds; ``bound_s`` the least that the machine could take, by ``bound_by``."""

    work: Work
    kernels: tuple[str, ...]
    seconds: float
    bound_s: float
    bound_by: str

    @property
    def lost_s(self) -> float:
        return self.seconds - self.bound_s

    @property
    def share(self) -> float:
        """Of the limit that is reached."""
        return self.bound_s / self.seconds

    def summary(self) -> dict[str, Any]:
        moved = self.work.weight_bytes + self.work.activation_bytes
        return asdict(self.work) | {
            "kernels": list(self.kernels),
            "seconds": self.seconds,
            "flops_per_s": self.work.flops / self.seconds,
            "flops_per_byte": self.work.flops / moved,
            "bound_s": self.bound_s,
            "bound_by": self.bound_by,
            "share": self.share,
            "lost_s": self.lost_s,
        }


class Profiler:
    """Joins the calls of a bundle's runs with the operators of its program."""

    def __init__(self, program: Program) -> None:
        model = program.variants[VARIANT]
        operations: dict[str, list[Operation]] = defaultdict(list)
        halves = any(value.dtype is ir.DataType.FLOAT16 for node in model.graph for value in node.outputs)
        formats = {**FORMATS, 16: "float16"} if halves else FORMATS
        for operation in extract(program, NATIVE).variants[VARIANT]:
            operations[operation.group].append(operation)
        self._work: dict[str, Work] = {}
        self._group: dict[str, str] = {}
        for group in groups(model):
            if group.id in operations:
                name = module_path(group.anchor) or str(group.anchor.name)
                self._work[group.id] = _work(name, operations[group.id], formats)
                self._group |= {str(node.name): group.id for node in group.nodes}
        self._rounds: dict[str, list[float]] = defaultdict(list)
        self._kernels: dict[str, dict[str, None]] = defaultdict(dict)

    def record(self, calls: Iterable[CallTime]) -> None:
        """The calls of one run."""
        seconds: dict[str, float] = defaultdict(float)
        for group, call in owned([call for call in calls if call.variant == VARIANT], self._group):
            seconds[group] += call.seconds
            self._kernels[group][call.kernel.partition("_")[0]] = None
        for group, one in seconds.items():
            self._rounds[group].append(one)

    def layers(self, peaks: Peaks, model_bytes: int) -> list[Layer]:
        """All that ran, that which loses most time first. ``model_bytes`` is what a step passes over."""
        found = [
            Layer(
                self._work[group],
                tuple(self._kernels[group]),
                statistics.median(rounds),
                *_bound(self._work[group], peaks, model_bytes),
            )
            for group, rounds in self._rounds.items()
        ]
        return sorted(found, key=lambda layer: -layer.lost_s)


def _bound(work: Work, peaks: Peaks, model_bytes: int) -> tuple[float, str]:
    peak = peaks.flops_per_s.get(work.format, peaks.flops_per_s["float32"])
    limits = {
        "products": work.flops / peak,
        "weights": work.weight_bytes / peaks.read_bytes_per_s(model_bytes),
        "activations": work.activation_bytes / peaks.read_bytes_per_s(work.activation_bytes),
    }
    by = max(limits, key=lambda name: limits[name])
    return limits[by], by


def by_kind(layers: Iterable[Layer]) -> dict[str, dict[str, float]]:
    """Totals by kind of layer, the longest first."""
    kinds: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        kinds[layer.work.kind].append(layer)
    totals = {kind: total(members) for kind, members in kinds.items()}
    return dict(sorted(totals.items(), key=lambda item: -item[1]["seconds"]))


def total(layers: Sequence[Layer]) -> dict[str, float]:
    """Sums over layers, and the share of the limit that they reach together."""
    seconds, bound = sum(one.seconds for one in layers), sum(one.bound_s for one in layers)
    flops = sum(one.work.flops for one in layers)
    return {
        "layers": len(layers),
        "seconds": seconds,
        "bound_s": bound,
        "share": bound / seconds,
        "flops": flops,
        "flops_per_s": flops / seconds,
    }


def _work(name: str, operations: Sequence[Operation], formats: Mapping[int, str]) -> Work:
    kinds = {str(operation.kind) for operation in operations}
    products = [operation for operation in operations if operation.macs]
    main = max(operations, key=lambda operation: operation.macs)
    made = {operation.result.value: operation.result for operation in operations}
    read = {operand.value: operand for operation in operations for operand in operation.read()}
    # What one operation of a group leaves to the next never leaves the core.
    moved = [operand for value, operand in {**made, **read}.items() if not (value in made and value in read)]
    weights = [operand for operand in moved if operand.tensor_class is TensorClass.WEIGHTS]
    factors = (operand for one in products for operand in one.operands if operand.value not in made)
    bits = max((operand.bits for operand in factors), default=NATIVE.activations)
    sizes = [sum(operand.size_bits for operand in part) // 8 for part in (moved, weights)]
    return Work(
        name=name,
        kind=kinds.pop() if len(kinds) == 1 else ATTENTION,
        stage=main.stage,
        shape=_shape(main.bounds),
        format=formats.get(bits, formats[32]),
        macs=sum(operation.macs for operation in operations),
        weight_bytes=sizes[1],
        activation_bytes=sizes[0] - sizes[1],
    )


def _shape(bounds: Convolution | Gemm | Vectors) -> str:
    match bounds:
        case Convolution():
            window = "x".join(map(str, bounds.kernel))
            stride = f"/{max(bounds.stride)}" if max(bounds.stride) > 1 else ""
            return f"{bounds.rows}x{bounds.columns} {bounds.inputs}->{bounds.outputs} {window}{stride}"
        case Gemm():
            batch = f"{bounds.batch} x " if bounds.batch > 1 else ""
            return f"{batch}{bounds.rows}x{bounds.reduction}x{bounds.columns}"
        case Vectors():
            return f"{bounds.count} x {bounds.length}"
