"""The front end for ONNX files. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from ...ir.formats import as_float32
from .imported import Imported, assemble
from .onnx_faults import is_empty, require_sound

SHAPED = frozenset({"Expand", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze"})
"""Operators of which a shape follows from the numbers of all inputs but the first."""


@dataclass(frozen=True)
class OnnxFile:
    """An ``.onnx`` file, with external data beside it if it names any."""

    path: Path
    shapes: Mapping[str, Sequence[int]] | None

    @property
    def name(self) -> str:
        return self.path.stem

    def imported(self) -> Imported:
        """Raises UserError if the file is not complete ONNX or is not a UNet."""
        from ...ir.canonical import canonicalise  # slow to load, and a model compiled before does not need it

        model, _ = self._read
        stored = {name: value.const_value for name, value in model.graph.initializers.items()}
        numbers = {
            name: float(tensor.numpy().reshape(()))
            for name, tensor in stored.items()
            if tensor is not None and tensor.size == 1 and tensor.dtype.is_floating_point()
        }
        try:
            canonical = canonicalise(model, self.shapes)
        except UserError:
            raise
        except Exception as error:  # What no exporter writes can stumble anywhere in the rules.
            raise UserError(f"{self.path} is not sound ONNX: {first_line(error)}; export it again") from error
        weights = [name for name in stored if not _shapes(canonical.graph.initializers.get(name))]
        return assemble(canonical, self.name, "onnx", weights=weights, numbers=numbers)

    def contents(self) -> tuple[str, list[Path]]:
        _, beside = self._read
        return f"onnx {self.shapes}", [self.path, *beside]

    def weights(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
        model, _ = self._read
        tensors = {name: model.graph.initializers[name].const_value for name in wanted}
        return {
            name: _numbers(tensor).reshape(wanted[name])
            for name, tensor in tensors.items()
            if tensor is not None
        }

    @cached_property
    def _read(self) -> tuple[ir.Model, list[Path]]:
        return _read(self.path)


def _numbers(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """As the canonical graph has them: floating-point numbers are of float32."""
    return as_float32(tensor) if tensor.dtype.is_floating_point() else tensor.numpy()


def _shapes(value: ir.Value | None) -> bool:
    """Whether any shape follows from an initializer's numbers: they are no checkpoint's, whoever stores them."""
    return value is not None and any(node.op_type in SHAPED and place > 0 for node, place in value.uses())


def _read(path: Path) -> tuple[ir.Model, list[Path]]:
    """The model, and the files beside it that hold its weights."""
    broken = f"{path} is not a complete ONNX file; it may be truncated, so fetch or export it again."
    try:
        proto = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # Protobuf raises its own kinds on damaged bytes.
        raise UserError(broken) from error
    if is_empty(proto.graph):
        raise UserError(broken)
    require_sound(proto, path)
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # Whatever onnx_ir raises on what it does not expect.
        raise UserError(f"{path} is not sound ONNX: {first_line(error)}; export it again.") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    beside = {place for value in model.graph.initializers.values() if (place := _load(value, path))}
    for value in [value for value in model.graph.inputs if value.is_initializer()]:
        model.graph.inputs.remove(value)  # older exporters list weights as inputs too
    if not model.graph.inputs:
        raise UserError(f"{path} is not sound ONNX: every input of it is a weight; export it again.")
    return model, sorted(beside)


def _load(value: ir.Value, path: Path) -> Path | None:
    """Bring an initializer's numbers in, and name the file beside the model that they are in, if they are."""
    tensor = value.const_value
    assert tensor is not None
    place = Path(tensor.path) if isinstance(tensor, ir.ExternalTensor) else None
    try:
        numbers = tensor.numpy()
    except FileNotFoundError as error:
        raise UserError(
            f"{path} keeps its weights in {error.filename}, which is missing; put it there."
        ) from error
    except (
        Exception
    ) as error:  # onnx_ir and numpy raise their own kinds where the bytes are too few or too many.
        raise UserError(
            f"{place or path} does not hold the {tensor.dtype} numbers of {list(tensor.shape)} that initializer "
            f"{value.name} says; fetch or export it again."
        ) from error
    if place is not None:
        # The result no longer names a path.
        value.const_value = ir.Tensor(numbers, dtype=tensor.dtype, name=tensor.name)
    return place
