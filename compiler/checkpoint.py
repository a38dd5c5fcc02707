"""Weights by name from .safetensors files, each checked before it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..ir.errors import UserError


def read_checkpoint(
    files: Sequence[Path], wanted: Mapping[str, Sequence[int]]
) -> dict[str, NDArray[np.float32]]:
    """The tensors ``wanted`` by name and shape, as float32, from whichever of ``files`` holds each.

    A checkpoint may have axes of one element more or less. Raises UserError for a missing tensor, another
    shape, a number type that numpy lacks, values that are not finite, or a damaged file.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for path in files:
        try:
            with safe_open(os.fspath(path), framework="numpy") as file:
                for name in sorted(set(file.keys()) & set(wanted)):
                    found[name] = _checked(_tensor(file, name, path), name, path, wanted[name])
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; give a .safetensors file") from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a safetensors file or is damaged: {error}") from None
    for name, shape in wanted.items():
        if name not in found:
            where = " and ".join(map(str, files))
            raise UserError(
                f"{where} lacks tensor {name} of shape {list(shape)}; give all weights of the model"
            )
    return found


def require_numbers(path: Path, fixed: Mapping[str, float]) -> None:
    """Raises UserError if a weight that is part of a bundle's code has another value in the checkpoint."""
    with safe_open(os.fspath(path), framework="numpy") as file:
        for name in sorted(set(file.keys()) & set(fixed)):
            value = float(_tensor(file, name, path).reshape(-1)[0])
            if value != fixed[name]:
                raise UserError(
                    f"tensor {name} of {path} is {value} and the bundle was compiled for {fixed[name]}, which is "
                    "part of its code; compile the model anew"
                )


def _tensor(file: Any, name: str, path: Path) -> NDArray[Any]:
    try:
        return file.get_tensor(name)
    except (AttributeError, TypeError):  # numpy has no such type
        kind = file.get_slice(name).get_dtype()
        raise UserError(
            f"tensor {name} of {path} is {kind}; give float32, float16 or bfloat16 weights"
        ) from None


def _checked(tensor: NDArray[Any], name: str, path: Path, shape: Sequence[int]) -> NDArray[np.float32]:
    if [size for size in tensor.shape if size != 1] != [size for size in shape if size != 1]:
        raise UserError(
            f"tensor {name} of {path} has shape {list(tensor.shape)} and the bundle needs {list(shape)}; "
            "compile the other model instead"
        )
    array = tensor.astype(np.float32, copy=False).reshape(shape)
    if not np.isfinite(array).all():
        raise UserError(f"tensor {name} of {path} holds NaN or infinite values; mend the checkpoint")
    return array
