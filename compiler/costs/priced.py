"""What a program costs on hardware that does not exist yet: seconds, bytes and joules by the hardware model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass

from ...hwmodel.estimate import rows
from ...hwmodel.extract import extract
from ...hwmodel.hardware import Hardware
from ...hwmodel.workload import TensorClass
from ...ir.groups import groups
from ...ir.program import Program
from ...passes.base import Context, apply
from ...passes.costs import Cost
from ..pipeline import pipeline
from .joining import named


@dataclass(frozen=True)
class Priced:
    """Program -> its cost on ``hardware``, with ``dram`` in place of the spec's. Raises UserError as `rows` does."""

    hardware: Hardware
    dram: str | None = None

    def __call__(self, program: Program) -> Cost:
        fused = apply(pipeline(), named(program), Context())
        spec = self.hardware.spec
        seconds: dict[str, float] = defaultdict(float)
        joules: dict[str, float] = defaultdict(float)
        weights: dict[str, float] = defaultdict(float)
        counted = set[str]()
        for variant, tasks in rows(extract(fused, spec.bits), self.hardware, self.dram).items():
            if variant == "constant":
                continue  # done when compiling
            anchors = {group.id: str(group.anchor.name) for group in groups(fused.variants[variant])}
            for row in tasks:
                node = anchors[row.task.operation.group]
                if variant == "full":
                    seconds[node] += row.timing.cycles / spec.clock_hz
                    joules[node] += sum(astuple(row.cost.energy)) / 1e3
                for operand in row.task.operation.read():
                    if operand.tensor_class is TensorClass.WEIGHTS and operand.value not in counted:
                        counted.add(operand.value)
                        weights[node] += operand.size_bits / 8
        return Cost({"latency": dict(seconds), "bytes": dict(weights), "energy": dict(joules)})
