"""What an accelerator is: frozen models with a unit and a line of documentation for every field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from .array import Dataflow
from .workload import TensorClass


def quantity(
    unit: str, description: str, *, gt: float | None = None, ge: float | None = None, le: float | None = None,
    default: Any = ...,
) -> Any:  # fmt: skip
    """A field: a number of ``unit``, positive unless bounds say otherwise, and nothing that only converts to one."""
    above = 0 if gt is None and ge is None else gt
    return Field(
        default,
        description=description,
        json_schema_extra={"unit": unit},
        strict=True,
        gt=above,
        ge=ge,
        le=le,
    )


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bits(Table):
    """Width of every tensor that the program does not quantise."""

    weights: int = quantity("bits", "Weights in memory.", le=64)
    activations: int = quantity("bits", "Activations in memory.", le=64)
    scores: int = quantity("bits", "Attention scores in memory.", le=64)

    def of(self, tensor_class: TensorClass) -> int:
        match tensor_class:
            case TensorClass.WEIGHTS:
                return self.weights
            case TensorClass.ACTIVATIONS:
                return self.activations
            case TensorClass.SELF_SCORES | TensorClass.CROSS_SCORES:
                return self.scores


class Stream(Table):
    """How one kind of tensor crosses the memory interface."""

    port: str = Field(description="The AXI port it takes; streams of one port take turns.", min_length=1)
    useful_bits: int = quantity("bits", "Payload of one burst word.")
    carried_bits: int = quantity("bits", "Width of that word on the port, padding included.")


class Streams(Table):
    """How the tensors of each kind cross the memory interface."""

    activations: Stream = Field(
        description="First operands of products, and what the array does not work on."
    )
    matmul_weights: Stream = Field(description="Second operands of products.")
    convolution_weights: Stream = Field(description="Filters.")
    shortcut: Stream = Field(description="Residuals in, and results kept besides their normalised form out.")
    output: Stream = Field(description="Results.")


class Memory(Table):
    """Off-chip memory and the ports to it."""

    port_bits: int = quantity("bits", "Width of one AXI port: bits a clock cycle.")
    dram_bytes_per_s: FiniteFloat = quantity(
        "bytes per second", "Bandwidth of the DRAM, shared by all ports."
    )
    dram_latency_s: FiniteFloat = quantity(
        "seconds", "From the first request of an operation to its first data.", ge=0
    )
    streams: Streams = Field(description="Ports and packing by kind of tensor.")


class HybridArray(Table):
    """Sub-arrays of processing elements, each of a few packed DSP multiplies."""

    sub_array_rows: int = quantity("sub-arrays", "Sub-arrays along the inputs.")
    sub_array_columns: int = quantity("sub-arrays", "Sub-arrays along the outputs.")
    pe_rows: int = quantity("PEs", "Processing elements of a sub-array along the inputs.")
    pe_columns: int = quantity("PEs", "Processing elements of a sub-array along the outputs.")
    multiplies_per_pe: int = quantity(
        "DSPs", "Packed multiplies of a PE: one for each slice of an activation."
    )
    weight_slot_bits: int = quantity("bits", "Widest weight that a packed multiply takes in one pass.")
    activation_slot_bits: int = quantity("bits", "Slice of an activation that a packed multiply takes.")
    operand_bits: tuple[Annotated[int, Field(strict=True, gt=0)], ...] = Field(
        description="Widths that operands may have; a narrower one is widened.",
        min_length=1,
        json_schema_extra={"unit": "bits"},
    )
    convolution_taps: int = quantity("products", "Taps of a kernel row that a PE takes in a cycle.")
    convolution_pixels: int = quantity("products", "Neighbouring pixels that a PE takes in a cycle.")
    matmul_rows: int = quantity("products", "Rows of a product that a PE takes in a cycle.")
    matmul_columns: int = quantity("products", "Columns of a product that a PE takes in a cycle.")
    fill_cycles: int = quantity("cycles", "From an operation's first operand to its first result.", ge=0)
    strided_use: FiniteFloat = quantity("1", "Share of streamed pixels that a stride of 2 uses.", le=1)
    accumulator_bits: int = quantity("bits", "Width of a sum.")


class Nonlinear(Table):
    """The unit behind the array: normalisation, softmax, activation functions."""

    elements_per_cycle: int = quantity("elements per cycle", "Elements that each of its stages takes.")


class Buffers(Table):
    """On-chip memory by what it holds. What fits twice is loaded ahead while its other half is worked on."""

    matmul_activations: int = quantity("bits", "Rows of a product's first operand.")
    matmul_weights: int = quantity("bits", "Columns of a product's second operand.")
    convolution_weights: int = quantity("bits", "Filters of a group of outputs.")
    lines: int = quantity("bits", "Lines of a convolution's input.")
    shortcut: int = quantity("bits", "Residuals that wait for the results that they are added to.")
    vectors: int = quantity("bits", "Results that wait for their normalisation or softmax.")
    vector_element_bits: int = quantity("bits", "Width of such a result.")


class BitSliceArray(Table):
    """Processing elements that multiply slices of operands, and hold one operand while the other streams by.

    ``convolution``: filters are held and pixels stream; ``transformer``: tokens are held and weights stream. What a
    cycle takes is lanes x held x streamed products of a slice by a slice, lanes being inputs x taps.
    """

    activation_slice_bits: int = quantity("bits", "Slice of a first operand, its sign apart.")
    weight_slice_bits: int = quantity("bits", "Slice of a second operand.")
    inputs: int = quantity("products", "Input channels that a sum takes in a cycle.")
    taps: int = quantity("products", "Taps of a kernel row that a sum takes in a cycle.")
    held: int = quantity("columns", "Filters, or tokens, that the array holds.")
    streamed: int = quantity("columns", "Pixels, or columns of a weight matrix, that pass in a cycle.")
    accumulator_bits: int = quantity("bits", "Width of a sum.")
    fill_cycles: int = quantity("cycles", "From an operation's first operand to its first result.", ge=0)
    strided_use: FiniteFloat = quantity("1", "Share of streamed pixels that a stride of 2 uses.", le=1)


class Energy(Table):
    """What joules are counted with: tables of costs by action, and power that is drawn whatever happens."""

    technology: str = Field(description="Costs of actions on the chip, by name in tables/technology.toml.")
    node_nm: FiniteFloat = quantity("nm", "Process node that they are scaled to.")
    supply_v: FiniteFloat = quantity("volts", "Supply that they are scaled to.")
    bank_bytes: int = quantity(
        "bytes", "SRAM is made of banks of this size; an access costs what one bank's does."
    )
    wire_mm: FiniteFloat = quantity("mm", "Way of an operand from its buffer to the array.", ge=0)
    combine_products: FiniteFloat = quantity(
        "products", "Cost of joining the products of two slices, in products of a slice by a slice.", ge=0
    )
    compute_w: FiniteFloat = quantity("watts", "Power of array and nonlinear unit whatever they do.", ge=0)
    sram_w: FiniteFloat = quantity("watts", "Power of the on-chip memory whatever it does.", ge=0)
    dram: str = Field(
        description="Costs of external accesses unless others are asked for: see tables/dram.toml."
    )


class Accelerator(Table):
    """What every kind of accelerator has."""

    name: str = Field(description="Name given to --hardware.")
    description: str = Field(description="One line.")
    clock_hz: FiniteFloat = quantity("Hz", "Clock of the array.")
    cores: int = quantity("cores", "Equal cores, which divide every operation.", le=256, default=1)
    bits: Bits = Field(description="Native precision.")
    energy: Energy = Field(description="Costs of actions.")


class Tiled(Accelerator):
    """An array with a nonlinear unit behind it, buffers that hold tiles, and ports to a memory.

    Several such cores share the DRAM; everything else is each core's own.
    """

    nonlinear: Nonlinear = Field(description="The unit behind the array.")
    buffers: Buffers = Field(description="On-chip memory.")
    memory: Memory = Field(description="Off-chip memory.")


class HybridSystolic(Tiled):
    """A hybrid systolic array in the manner of SDA (FPL 2024)."""

    kind: Literal["hybrid-systolic"] = Field(description="This kind of accelerator.")
    array: HybridArray = Field(description="The array.")


class BitSlice(Tiled):
    """A bit-slice core in the manner of DBSC (Choi et al., ISCAS 2024)."""

    kind: Literal["bit-slice"] = Field(description="This kind of accelerator.")
    array: BitSliceArray = Field(description="The array.")
    power_w: FiniteFloat = quantity("watts", "Reported power of the core at peak throughput, DRAM apart.")


class Systolic(Accelerator):
    """A plain systolic array in the manner of SCALE-Sim: GEMMs, operands always there; each crosses the pins once."""

    kind: Literal["systolic"] = Field(description="This kind of accelerator.")
    cores: int = quantity("cores", "One, as in SCALE-Sim.", le=1, default=1)
    rows: int = quantity("PEs", "Height of the array.")
    cols: int = quantity("PEs", "Width of the array.")
    dataflow: Dataflow = Field(
        description="What stays in the array: os the results, ws the weights, is the inputs."
    )
    vector_elements_per_cycle: int = quantity(
        "elements per cycle",
        "Elements that a vector unit takes of what is no product; 0: that work is not timed, as in SCALE-Sim.",
        ge=0,
    )


Spec = HybridSystolic | BitSlice | Systolic
