"""The front end for ONNX files. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from .imported import Imported, assemble


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
        return assemble(canonical, self.name, "onnx", weights=list(stored), numbers=numbers)

    def contents(self) -> tuple[str, list[Path]]:
        _, beside = self._read
        return "onnx", [self.path, *beside]

    def weights(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
        model, _ = self._read
        stored = model.graph.initializers
        return {name: stored[name].const_value.numpy().reshape(shape) for name, shape in wanted.items()}  # type: ignore[union-attr]

    @cached_property
    def _read(self) -> tuple[ir.Model, list[Path]]:
        return _read(self.path)


def _read(path: Path) -> tuple[ir.Model, list[Path]]:
    """The model, and the files beside it that hold its weights."""
    beside: set[Path] = set()
    broken = f"{path} is not a complete ONNX file; it may be truncated, so fetch or export it again."
    if path.stat().st_size == 0:
        raise UserError(broken)
    try:
        model = ir.load(os.fspath(path))  # pyright: ignore[reportUnknownMemberType]
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                beside.add(Path(tensor.path))
                # Maps the file, so that a missing one is found here; the result no longer names a path.
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
            elif tensor is not None:
                tensor.numpy()
    except FileNotFoundError as error:
        raise UserError(
            f"{path} keeps its weights in {error.filename}, which is missing; put it there."
        ) from error
    except Exception as error:  # Protobuf, onnx_ir and numpy each raise their own kinds on damaged bytes.
        raise UserError(broken) from error
    for value in [value for value in model.graph.inputs if value.is_initializer()]:
        model.graph.inputs.remove(value)  # older exporters list weights as inputs too
    if not len(model.graph) or not model.graph.inputs or not model.graph.outputs:
        raise UserError(broken)
    return model, sorted(beside)
