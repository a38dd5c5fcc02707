"""Sources in canonical form. What was imported before, from the same files by the same code, is not exported again."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.program import Program
from ..ir.rates import Rate
from ..ir.saved import pack, unpack
from ..runtime.errors import FickError
from ..runtime.loader import check_bundle
from .bundle.file import FORMAT_VERSION, Entry, write_bundle
from .cache import cache_folder, digest
from .frontends import Imported, Source

GRAPH = "graph.zip"


def import_source(source: Source) -> Imported:
    """``source.imported()``, or the graph that the cache has of it over the weights in the source's own files.

    Raises UserError for whatever the user can mend.
    """
    name = digest({"source": source}, [source.name])
    place = cache_folder() / "imports" / f"{name}.fick"
    if name and (found := _kept(place, source)):
        return found
    made = source.imported()
    if name:
        # What cannot be kept is imported again next time, and is no reason to fail now.
        with contextlib.suppress(OSError, UserError):
            _keep(place, made, source)
    return made


def _keep(place: Path, made: Imported, source: Source) -> None:
    """In the bundle's own format, so that its checks hold here too. A graph whose weights are not by the same names in
    the source's files, as numbers that are the same, is not kept; nor is one too large without them (``ir.saved``).
    """
    stored = {name: value.const_value for name, value in made.model.graph.initializers.items()}
    weights = {
        name: tensor.numpy()
        for name, tensor in stored.items()
        if tensor is not None and name in made.weights and tensor.dtype is ir.DataType.FLOAT
    }
    try:
        given = source.weights({name: array.shape for name, array in weights.items()})
        if not all(np.array_equal(given[name], array) for name, array in weights.items()):
            return
    except KeyError:
        return
    rates = {name: Rate(rate) for name, rate in made.inputs.items()}
    graph = pack(Program(made.name, {"full": made.model}, rates, made.weights), without=weights.keys())
    unpack(graph)
    facts = {
        "kind": made.kind,
        "random_weights": made.random_weights,
        "metadata": dict(made.metadata),
        "numbers": dict(made.numbers),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    head = {"format": "fick-bundle", "format_version": FORMAT_VERSION, "target": {}}
    write_bundle(place, [Entry.of(GRAPH, graph)], {**head, "imported": facts})


def _kept(place: Path, source: Source) -> Imported | None:
    """None where it is missing or damaged."""
    try:
        checked = check_bundle(place, [GRAPH])
        program = unpack(checked.entries[GRAPH])
        model = program.variants["full"]
        bare = {
            name: value
            for name, value in model.graph.initializers.items()
            if isinstance(value.const_value, ir.ExternalTensor)
        }
        given = source.weights({name: value.shape.numpy() for name, value in bare.items() if value.shape})
        for name, value in bare.items():
            value.const_value = ir.tensor(given[name], name=name)
        rates = {name: rate.value for name, rate in program.rates.items()}
        return Imported(
            model, program.name, inputs=rates, weights=program.weights, **checked.manifest["imported"]
        )
    except (FickError, UserError, KeyError, TypeError):
        return None
