"""The front end for ONNX files. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from ...ir.canonical import canonicalise
from ...ir.errors import UserError
from .imported import Imported, assemble


def import_onnx(path: Path, shapes: Mapping[str, Sequence[int]] | None) -> Imported:
    """Read an ``.onnx`` file, with external data beside it if it names any.

    Raises UserError if the file is not complete ONNX or is not a UNet.
    """
    model = _read(path)
    return assemble(canonicalise(model, shapes), path.stem, "onnx", weights=list(model.graph.initializers))


def _read(path: Path) -> ir.Model:
    broken = f"{path} is not a complete ONNX file; it may be truncated, so fetch or export it again."
    if path.stat().st_size == 0:
        raise UserError(broken)
    try:
        model = ir.load(os.fspath(path))  # pyright: ignore[reportUnknownMemberType]
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
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
    if not len(model.graph) or not model.graph.inputs or not model.graph.outputs:
        raise UserError(broken)
    return model
