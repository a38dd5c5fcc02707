"""What an accelerator is: frozen models with a unit and a line of documentation for every field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from .array import Dataflow
from .workload import TensorClass


def _quantity(
    unit: str, description: str, *, gt: float | None = None, ge: float | None = None, le: float | None = None
) -> Any:
    """A number of ``unit``, positive unless bounds say otherwise, and nothing that only converts to one."""
    above = 0 if gt is None and ge is None else gt
    return Field(
        description=description, json_schema_extra={"unit": unit}, strict=True, gt=above, ge=ge, le=le
    )


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bits(_Table):
    """Width of every tensor that the program does not quantise."""

    weights: int = _quantity("bits", "Weights in memory.", le=64)
    activations: int = _quantity("bits", "Activations in memory.", le=64)
    scores: int = _quantity("bits", "Attention scores in memory.", le=64)

    def of(self, tensor_class: TensorClass) -> int:
        match tensor_class:
            case TensorClass.WEIGHTS:
                return self.weights
            case TensorClass.ACTIVATIONS:
                return self.activations
            case TensorClass.SELF_SCORES | TensorClass.CROSS_SCORES:
                return self.scores


class Stream(_Table):
    """How one kind of tensor crosses the memory interface."""

    port: str = Field(description="The AXI port it takes; streams of one port take turns.", min_length=1)
    useful_bits: int = _quantity("bits", "Payload of one burst word.")
    carried_bits: int = _quantity("bits", "Width of that word on the port, padding included.")


class Streams(_Table):
    """How the tensors of each kind cross the memory interface."""

    activations: Stream = Field(
        description="First operands of products, and what the array does not work on."
    )
    matmul_weights: Stream = Field(description="Second operands of products.")
    convolution_weights: Stream = Field(description="Filters.")
    shortcut: Stream = Field(description="Residuals in, and results kept besides their normalised form out.")
    output: Stream = Field(description="Results.")


class Memory(_Table):
    """Off-chip memory and the ports to it."""

    port_bits: int = _quantity("bits", "Width of one AXI port: bits a clock cycle.")
    dram_bytes_per_s: FiniteFloat = _quantity(
        "bytes per second", "Bandwidth of the DRAM, shared by all ports."
    )
    dram_latency_s: FiniteFloat = _quantity(
        "seconds", "From the first request of an operation to its first data.", ge=0
    )
    streams: Streams = Field(description="Ports and packing by kind of tensor.")


class HybridArray(_Table):
    """Sub-arrays of processing elements, each of a few packed DSP multiplies."""

    sub_array_rows: int = _quantity("sub-arrays", "Sub-arrays along the inputs.")
    sub_array_columns: int = _quantity("sub-arrays", "Sub-arrays along the outputs.")
    pe_rows: int = _quantity("PEs", "Processing elements of a sub-array along the inputs.")
    pe_columns: int = _quantity("PEs", "Processing elements of a sub-array along the outputs.")
    multiplies_per_pe: int = _quantity(
        "DSPs", "Packed multiplies of a PE: one for each slice of an activation."
    )
    weight_slot_bits: int = _quantity("bits", "Widest weight that a packed multiply takes in one pass.")
    activation_slot_bits: int = _quantity("bits", "Slice of an activation that a packed multiply takes.")
    operand_bits: tuple[Annotated[int, Field(strict=True, gt=0)], ...] = Field(
        description="Widths that operands may have; a narrower one is widened.",
        min_length=1,
        json_schema_extra={"unit": "bits"},
    )
    convolution_taps: int = _quantity("products", "Taps of a kernel row that a PE takes in a cycle.")
    convolution_pixels: int = _quantity("products", "Neighbouring pixels that a PE takes in a cycle.")
    matmul_rows: int = _quantity("products", "Rows of a product that a PE takes in a cycle.")
    matmul_columns: int = _quantity("products", "Columns of a product that a PE takes in a cycle.")
    fill_cycles: int = _quantity("cycles", "From an operation's first operand to its first result.", ge=0)
    strided_use: FiniteFloat = _quantity("1", "Share of streamed pixels that a stride of 2 uses.", le=1)


class Nonlinear(_Table):
    """The unit behind the array: normalisation, softmax, activation functions."""

    elements_per_cycle: int = _quantity("elements per cycle", "Elements that each of its stages takes.")


class HybridBuffers(_Table):
    """On-chip memory by what it holds. What fits twice is loaded ahead while its other half is worked on."""

    matmul_activations: int = _quantity("bits", "Rows of a product's first operand.")
    matmul_weights: int = _quantity("bits", "Columns of a product's second operand.")
    convolution_weights: int = _quantity("bits", "Filters of a group of outputs.")
    lines: int = _quantity("bits", "Lines of a convolution's input.")
    shortcut: int = _quantity("bits", "Residuals that wait for the results that they are added to.")
    vectors: int = _quantity("bits", "Results that wait for their normalisation or softmax.")
    vector_element_bits: int = _quantity("bits", "Width of such a result.")


class HybridSystolic(_Table):
    """A hybrid systolic array in the manner of SDA (FPL 2024)."""

    kind: Literal["hybrid-systolic"] = Field(description="This kind of accelerator.")
    name: str = Field(description="Name given to --hardware.")
    description: str = Field(description="One line.")
    clock_hz: FiniteFloat = _quantity("Hz", "Clock of the array.")
    bits: Bits = Field(description="Native precision.")
    array: HybridArray = Field(description="The array.")
    nonlinear: Nonlinear = Field(description="The unit behind it.")
    buffers: HybridBuffers = Field(description="On-chip memory.")
    memory: Memory = Field(description="Off-chip memory.")


class BitSlice(_Table):
    """A bit-slice core in the manner of DBSC (Choi et al., ISCAS 2024)."""

    kind: Literal["bit-slice"] = Field(description="This kind of accelerator.")
    name: str = Field(description="Name given to --hardware.")
    description: str = Field(description="One line.")
    clock_hz: FiniteFloat = _quantity("Hz", "Clock of the core.")
    bits: Bits = Field(description="Native precision.")
    macs_per_cycle: int = _quantity(
        "MAC per cycle", "Most products of one activation slice by one weight slice."
    )
    activation_slice_bits: int = _quantity("bits", "Payload of a slice of an activation, its sign apart.")
    weight_slice_bits: int = _quantity("bits", "Width of a slice of a weight.")
    power_w: FiniteFloat = _quantity("watts", "Average power of the core at its peak throughput, DRAM apart.")


class Systolic(_Table):
    """A plain systolic array in the manner of SCALE-Sim: GEMMs and nothing else, operands always there."""

    kind: Literal["systolic"] = Field(description="This kind of accelerator.")
    name: str = Field(description="Name given to --hardware.")
    description: str = Field(description="One line.")
    clock_hz: FiniteFloat = _quantity("Hz", "Clock of the array.")
    bits: Bits = Field(description="Native precision.")
    rows: int = _quantity("PEs", "Height of the array.")
    cols: int = _quantity("PEs", "Width of the array.")
    dataflow: Dataflow = Field(
        description="What stays in the array: os the results, ws the weights, is the inputs."
    )


Spec = HybridSystolic | BitSlice | Systolic
