"""A program as a folder: an ONNX file a variant, for Netron or ONNX Runtime, and one file of weights.

program.json    everything but the graphs; VERSION of this layout
NAME.onnx       a variant; its weights are external data in weights.data
weights.data    every tensor of at least INLINE_BYTES once, in order of name
tables.safetensors
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import safetensors.numpy as safetensors
from onnx_ir.external_data import convert_tensors_to_external  # pyright: ignore[reportUnknownVariableType]

from .errors import UserError
from .program import HistoryEntry, Program
from .rates import Rate

VERSION = 1
INLINE_BYTES = 1024
"""Smaller tensors stay in the graphs, where shape inference can read them."""

SUMMARY, WEIGHTS, TABLES = "program.json", "weights.data", "tables.safetensors"


def save(program: Program, folder: str | os.PathLike[str]) -> None:
    """Write ``folder``, whole or not at all: the same bytes for the same program.

    A program saved there before is replaced. Raises UserError if the program is not valid, or if something
    else stands there.
    """
    program.validate()
    target = Path(folder)
    if target.exists() and not (target / SUMMARY).is_file():
        raise UserError(f"{target} exists and is not a saved program; name a new folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        _write(program, whole)
        if target.exists():
            os.replace(target, Path(scratch) / "replaced")
        os.replace(whole, target)


def load(folder: str | os.PathLike[str]) -> Program:
    """Read what ``save`` wrote; weights are mapped, not read.

    Raises UserError if the folder holds no program, a damaged one, or one of a newer layout.
    """
    source = Path(folder)
    try:
        summary: dict[str, Any] = json.loads((source / SUMMARY).read_text(encoding="utf-8"))
        if summary["version"] != VERSION:
            raise UserError(
                f"{source} has layout {summary['version']} and this fick reads {VERSION}; save it again."
            )
        if (source / WEIGHTS).stat().st_size != summary["weights_bytes"]:
            raise UserError(f"{source / WEIGHTS} has lost bytes; save the program again.")
        program = _read(source, summary)
    except FileNotFoundError as error:
        raise UserError(f"{source} is not a saved program: it has no {Path(error.filename).name}.") from error
    except UserError:
        raise
    except Exception as error:  # The parsers of JSON, ONNX and safetensors raise whatever they meet.
        raise UserError(f"{source} holds a damaged program ({error}); save it again.") from error
    program.validate()
    return program


def _write(program: Program, folder: Path) -> None:
    tensors = {
        name: value.const_value
        for model in program.variants.values()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes >= INLINE_BYTES
    }
    names = sorted(tensors)
    placed = convert_tensors_to_external([tensors[name] for name in names], folder, WEIGHTS)
    external = dict(zip(names, placed, strict=True))
    for variant, model in program.variants.items():
        twin = model.clone()
        for name, value in twin.graph.initializers.items():
            value.const_value = external.get(name, value.const_value)
        proto = ir.serde.serialize_model(twin)
        (folder / f"{variant}.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    (folder / TABLES).write_bytes(safetensors.save(program.tables))
    summary = {
        "version": VERSION,
        "name": program.name,
        "variants": list(program.variants),
        "rates": {name: rate.value for name, rate in program.rates.items()},
        "weights": sorted(program.weights),
        "weights_bytes": (folder / WEIGHTS).stat().st_size,
        "schedule": program.schedule,
        "state": program.state,
        "history": [dataclasses.asdict(entry) for entry in program.history],
    }
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path, summary: dict[str, Any]) -> Program:
    variants: dict[str, ir.Model] = {}
    shared: dict[str, ir.TensorProtocol] = {}
    for name in summary["variants"]:
        model = ir.load(folder / f"{name}.onnx")  # pyright: ignore[reportUnknownMemberType]
        for label, value in model.graph.initializers.items():
            if value.const_value is not None:
                # Mapped, but no longer external: such a graph can be run and saved anywhere.
                mapped = ir.Tensor(value.const_value.numpy(), name=label)
                value.const_value = shared.setdefault(label, mapped)
        variants[name] = model
    return Program(
        name=summary["name"],
        variants=variants,
        rates={name: Rate(rate) for name, rate in summary["rates"].items()},
        weights=frozenset(summary["weights"]),
        schedule={int(steps): run for steps, run in summary["schedule"].items()},
        state={name: tuple(shape) for name, shape in summary["state"].items()},
        tables=safetensors.load((folder / TABLES).read_bytes()),
        history=[HistoryEntry(**entry) for entry in summary["history"]],
    )
