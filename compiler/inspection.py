"""What is in a model or a bundle, as plain facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..ir import blocks
from .bundle.skeleton import manifest_of
from .frontends import import_model


def inspect_model(source: Any, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Any]:
    """A model in canonical form: inputs and rates, parameters, operators, blocks."""
    imported = import_model(source, shapes=shapes)
    graph = imported.model.graph
    weights = [graph.initializers[name] for name in imported.weights if name in graph.initializers]
    found = blocks.discover(graph)
    operators = Counter(node.op_type for node in graph)
    return {
        "kind": imported.kind,
        "random_weights": imported.random_weights,
        "inputs": {
            str(value.name): f"{list(value.shape or ())} per {imported.inputs[str(value.name)]}"
            for value in graph.inputs
        },
        "outputs": {str(value.name): str(list(value.shape or ())) for value in graph.outputs},
        "parameters": sum(int(one.const_value.size) for one in weights if one.const_value is not None),
        "nodes": sum(operators.values()),
        "operators": dict(operators.most_common()),
        "blocks": dict(Counter(str(block.kind) for block in found.blocks)),
        "skips": len(found.skips),
    }


def inspect_bundle(path: Path) -> dict[str, Any]:
    """A bundle's manifest, without the list of its tensors."""
    manifest = manifest_of(path)
    keep = (
        "name",
        "source",
        "random_weights",
        "format_version",
        "target",
        "memory",
        "sampler",
    )
    return {
        **{key: manifest[key] for key in keep if key in manifest},
        "components": {name: _component(facts) for name, facts in manifest["components"].items()},
        "entries": {name: entry["bytes"] for name, entry in manifest["entries"].items()},
    }


def _component(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "inputs": {one["name"]: f"{one['shape']} per {one['rate']}" for one in facts["inputs"]},
        "outputs": {one["name"]: str(one["shape"]) for one in facts["outputs"]},
        **{key: facts[key] for key in ("nodes", "variants", "memory", "history")},
        "state": {
            name: f"{one['dtype']}{one['shape']} of {one['bytes']} bytes"
            for name, one in facts["state"].items()
        },
        "schedules": {calls: _schedule(run, facts["variants"]) for calls, run in facts["schedules"].items()},
    }


def _schedule(run: Sequence[str], variants: Mapping[str, Any]) -> dict[str, Any]:
    """What the calls of a loop run, how often, and the multiply-accumulates of all of them."""
    runs = Counter(run)
    macs = sum(count * variants[name]["macs"] for name, count in runs.items())
    return {"order": " ".join(run), "runs": dict(runs), "macs": macs}
