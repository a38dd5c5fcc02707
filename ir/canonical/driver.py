"""Canonicalisation: any ONNX file of a UNet, in the one vocabulary that every pass and target reads."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx import defs
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    IdentityEliminationPass,
    InlinePass,
    NameFixPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
    TopologicalSortPass,
)
from onnxscript import version_converter
from onnxscript.rewriter import pattern

from ..annotations import EXACT
from ..errors import UserError
from ..modules import SCOPES, module_path, record_scopes
from .accumulation import ACCUMULATION
from .activation import ACTIVATION
from .attention import ATTENTION, HEADS, SCALE
from .edges import EDGES
from .elementwise import SAID_IN_OTHERS, WHOLE_ACTIVATIONS
from .embedding import stack_projections
from .fitting import require_fitting
from .literals import merge_literals
from .movement import DEAD, MERGED
from .normalisation import AFFINE_GROUPS, LAYER_NORM, OTHER_NORMS, PLAIN_GROUPS, PLAIN_LAYERS
from .order import operators, order_operands
from .products import EINSUM, PRODUCTS
from .propagate import LITERAL, propagate, require_static, where
from .resampling import RESAMPLING, say_old_coordinates
from .specialise import specialise
from .splitting import hoist_over_splits, sequences_to_splits, slices_to_splits
from .volumes import VOLUMES
from .widening import widen

OPSET = 24
"""Swish entered the standard here, and ONNX Runtime 1.31 has a CPU kernel for it at exactly this version."""

Step = Callable[[ir.Model], int]


def _rules(rules: Sequence[pattern.RewriteRule]) -> Step:
    """A step that applies the rules, less those that name an operator the graph does not have."""
    needed = [(rule, operators(rule)) for rule in rules]

    def step(model: ir.Model) -> int:
        present = {node.op_type for node in model.graph}
        possible = [rule for rule, names in needed if names <= present]
        return pattern.RewriteRuleSet(possible).apply_to_model(model) if possible else 0

    return step


PHASES: list[list[Step]] = [
    [sequences_to_splits, _rules(DEAD)],
    [merge_literals, order_operands],
    [_rules([*AFFINE_GROUPS, *ACTIVATION, *WHOLE_ACTIVATIONS, *LAYER_NORM])],
    [_rules([*PLAIN_GROUPS, *PLAIN_LAYERS, *EINSUM])],
    [
        _rules([*OTHER_NORMS, *SAID_IN_OTHERS, *ACCUMULATION, *PRODUCTS]),
        _rules([*EDGES, *RESAMPLING, *VOLUMES]),
    ],
    [_rules(ATTENTION)],
    [_rules(SCALE), _rules([*DEAD, *MERGED]), slices_to_splits, hoist_over_splits],
    [_rules(HEADS), stack_projections],
]
"""What is raised, in order. Each phase runs until it changes nothing; types are known before each step."""

MOST_ROUNDS = 50
"""Every rule shortens the graph or moves work one way; a phase that has not settled by then is a fault."""


def canonicalise(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
    """The same function at opset 24 in the canonical vocabulary; the model given is left as it is.

    Every value of the result has a static shape and type. Weights keep their names and are shared, not
    copied. ``shapes`` gives input sizes by input name; an open batch is 1.

    Raises UserError if sizes stay open or contradict the file, or an operator is unknown to the standard.
    """
    model = model.clone()
    for node in model.graph.all_nodes():
        record_scopes(node)
    InlinePass()(model)
    for node in model.graph:
        if node.domain in ("", "ai.onnx") and not defs.has(node.op_type):
            raise UserError(f"operator {node.op_type} is not supported, at {where(node)}.")
    declared = _convert(model)
    for node in model.graph.all_nodes():  # what was converted by way of protobuf has lost them
        record_scopes(node)
    specialise(model, shapes or {})
    widen(model)
    _settle(model)
    if declared < 11:
        say_old_coordinates(model)
    for phase in PHASES:
        for _ in range(MOST_ROUNDS):
            if not sum([_apply(step, model) for step in phase]):
                break
        else:
            raise AssertionError("canonicalisation does not settle")
    _finish(model)
    return model


def _convert(model: ir.Model) -> int:
    """To ``OPSET``, in place. Returns the opset that the file said."""
    declared = model.opset_imports.get("", 1)
    # It warns of the way that it takes from old opsets, which is no fault of the file.
    logger = logging.getLogger(version_converter.__name__)
    warned, logger.disabled = logger.disabled, True
    try:
        version_converter.convert_version(model, OPSET, fallback=True)  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # The converter raises whatever its adapters meet.
        raise UserError(
            f"opset {declared} cannot be brought to {OPSET}; export at opset 17 or later."
        ) from error
    finally:
        logger.disabled = warned
    if model.opset_imports.get("", 1) != OPSET:
        raise UserError(f"opset {declared} cannot be brought to {OPSET}; export at opset 17 or later.")
    model.ir_version = 11
    return declared


def _apply(step: Step, model: ir.Model) -> int:
    changed = step(model)
    if changed:
        _settle(model)
    return changed


def _settle(model: ir.Model) -> None:
    """Bring the graph to a state where every rule may look at it: typed, sorted, no dead or double work."""
    NameFixPass()(model)
    TopologicalSortPass()(model)
    propagate(model)
    _drop_identities(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)


def _drop_identities(model: ir.Model) -> None:
    """Where two outputs of the graph are one value, the second is a copy: each has a name of its own."""
    outputs = model.graph.outputs
    names = [value.name for value in outputs]
    IdentityEliminationPass()(model)
    for place, (name, value) in enumerate(zip(names, list(outputs), strict=True)):
        if value in outputs[:place]:
            copy = ir.node("Identity", [value])
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
            model.graph.append(copy)
            outputs[place] = value = copy.outputs[0]
        value.name = name


def _round_attributes(node: ir.Node) -> None:
    """To what a file holds of them, so that a graph which was saved makes the same kernels."""
    for name, one in node.attributes.items():
        if one.type is ir.AttributeType.FLOAT:
            node.attributes[name] = ir.AttrFloat32(name, float(np.float32(one.as_float())))
        elif one.type is ir.AttributeType.FLOATS:
            node.attributes[name] = ir.AttrFloat32s(
                name, [float(np.float32(each)) for each in one.as_floats()]
            )


def _finish(model: ir.Model) -> None:
    """Names and metadata: unique, telling, and free of anything that differs between two exports."""
    graph = model.graph
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.doc_string = graph.doc_string = None
    for value in (
        *graph.inputs,
        *graph.initializers.values(),
        *(out for node in graph for out in node.outputs),
    ):
        value.metadata_props.clear()
        value.doc_string = None
    taken = Counter(node.name for node in graph)
    for node in graph:
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        node.doc_string = None
        _round_attributes(node)
        if scopes:
            node.metadata_props[SCOPES] = scopes
        if node.op_type == "MatMul" and node.inputs[1] is not None and LITERAL in node.inputs[1].meta:
            node.metadata_props[EXACT] = "literal"  # no checkpoint's, and small: rounding it saves nothing
        if not node.name or re.fullmatch(rf"node_{node.op_type}_\d+", node.name):
            # Given by the rewriter: say instead where in the model it is and what it does.
            stem = "/".join(part for part in (module_path(node), node.op_type) if part)
            node.name = f"{stem}_{taken[stem]}" if taken[stem] else stem
            taken[stem] += 1
    require_static(model)
    require_fitting(model)
    RemoveUnusedFunctionsPass()(model)
    RemoveUnusedOpsetsPass()(model)
