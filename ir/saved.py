"""A program as a folder: an ONNX file a variant, for Netron or ONNX Runtime, and one file of weights.

program.json    everything but the graphs; VERSION of this layout
NAME.onnx       a variant; its weights are external data in weights.data
weights.data    every tensor of at least INLINE_BYTES once, in order of name
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.external_data import convert_tensors_to_external  # pyright: ignore[reportUnknownVariableType]

from .errors import UserError
from .program import HistoryEntry, Program
from .rates import Rate

VERSION = 2
INLINE_BYTES = 1024
"""Smaller tensors stay in the graphs, where shape inference can read them."""

MOST_UNPACKED_BYTES = 1 << 28
"""A program without its checkpoint is a few megabytes; more than this is not believed."""

SUMMARY, WEIGHTS = "program.json", "weights.data"


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
    except Exception as error:  # The parsers of JSON and ONNX raise whatever they meet.
        raise UserError(f"{source} holds a damaged program ({error}); save it again.") from error
    program.validate()
    return program


def pack(program: Program, without: Set[str] | None = None) -> bytes:
    """The program without its checkpoint, as a small zip: enough for whatever asks of shapes alone.

    ``without`` names the tensors whose numbers are left out, which are the checkpoint's and all that are large unless
    it is given. The same bytes for the same program, whatever time its passes took. Raises UserError if it is not
    valid.
    """
    program.validate()
    timeless = [dataclasses.replace(entry, seconds=0.0) for entry in program.history]
    program = dataclasses.replace(program, history=timeless)
    places: dict[str, ir.TensorProtocol] = {}
    offset = 0
    for name, tensor in sorted(_tensors(program).items()):
        small = tensor.nbytes < INLINE_BYTES and name not in program.weights
        if small if without is None else name not in without:
            continue
        places[name] = ir.ExternalTensor(
            WEIGHTS, offset, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )
        offset += tensor.nbytes
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in _files(program, places, offset).items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unpack(data: bytes) -> Program:
    """What ``pack`` wrote. Weights have shapes and types and no numbers.

    Raises UserError for anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_UNPACKED_BYTES:
                raise ValueError("it unpacks to more than a program can be")
            files = {name: archive.read(name) for name in archive.namelist()}
        summary = json.loads(files[SUMMARY])
        if summary["version"] != VERSION:
            raise ValueError(f"layout {summary['version']}")
        shared: dict[str, ir.TensorProtocol] = {}
        variants: dict[str, ir.Model] = {}
        for name in summary["variants"]:
            model = ir.from_proto(onnx.load_from_string(files[f"{name}.onnx"]))
            for label, value in model.graph.initializers.items():
                if value.const_value is not None:
                    value.const_value = shared.setdefault(label, value.const_value)
            variants[name] = model
        program = _program(summary, variants)
    except Exception as error:  # The parsers of zip, JSON and ONNX raise whatever they meet.
        raise UserError(
            f"the program is damaged or of another version ({error}); compile the model anew"
        ) from error
    program.validate()
    return program


def _tensors(program: Program) -> dict[str, ir.TensorProtocol]:
    return {
        name: value.const_value
        for model in program.variants.values()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def _write(program: Program, folder: Path) -> None:
    tensors = {name: one for name, one in _tensors(program).items() if one.nbytes >= INLINE_BYTES}
    names = sorted(tensors)
    placed = convert_tensors_to_external([tensors[name] for name in names], folder, WEIGHTS)
    size = (folder / WEIGHTS).stat().st_size
    for name, data in _files(program, dict(zip(names, placed, strict=True)), size).items():
        (folder / name).write_bytes(data)


def _files(
    program: Program, external: Mapping[str, ir.TensorProtocol], weights_bytes: int
) -> dict[str, bytes]:
    """All of a saved program but its weights, which lie where ``external`` says."""
    files: dict[str, bytes] = {}
    for variant, model in program.variants.items():
        twin = model.clone()
        for name, value in twin.graph.initializers.items():
            value.const_value = external.get(name, value.const_value)
        files[f"{variant}.onnx"] = ir.serde.serialize_model(twin).SerializeToString(deterministic=True)
    summary = {
        "version": VERSION,
        "name": program.name,
        "variants": list(program.variants),
        "rates": {name: rate.value for name, rate in program.rates.items()},
        "weights": sorted(program.weights),
        "weights_bytes": weights_bytes,
        "schedule": program.schedule,
        "state": program.state,
        "history": [dataclasses.asdict(entry) for entry in program.history],
    }
    files[SUMMARY] = (json.dumps(summary, indent=1) + "\n").encode()
    return files


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
    return _program(summary, variants)


def _program(summary: Mapping[str, Any], variants: dict[str, ir.Model]) -> Program:
    return Program(
        name=summary["name"],
        variants=variants,
        rates={name: Rate(rate) for name, rate in summary["rates"].items()},
        weights=frozenset(summary["weights"]),
        schedule={int(steps): run for steps, run in summary["schedule"].items()},
        state={name: tuple(shape) for name, shape in summary["state"].items()},
        history=[HistoryEntry(**entry) for entry in summary["history"]],
    )
