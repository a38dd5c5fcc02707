"""Which module of the source model a node came from, whatever exporter wrote the file."""

from __future__ import annotations

import ast
from functools import cache

import onnx_ir as ir

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata key under which every canonical node keeps its scopes, outermost first, as torch writes them."""


def module_path(node: ir.Node) -> str:
    """The dotted path of the module, such as ``down_blocks.0.resnets.0.conv1``; empty if not known."""
    return _innermost(node.metadata_props.get(SCOPES, ""))


@cache
def _innermost(scopes: str) -> str:
    if not scopes:
        return ""
    try:
        named = ast.literal_eval(scopes)
    except (ValueError, SyntaxError):
        return scopes
    # The last scope is the operation inside the module.
    return str(named[-2]) if len(named) > 1 else ""


def record_scopes(node: ir.Node) -> None:
    """Give a node from a TorchScript export the scopes that other exports carry as metadata.

    TorchScript writes the path into the node's name, one component a module, and a child of a container
    repeats the container's name: ``/m/blocks.1/blocks.1.0/in/in.2/Conv`` is ``m.blocks.1.0.in.2``.
    """
    if SCOPES in node.metadata_props or not node.name or not node.name.startswith("/"):
        return
    *modules, operation = node.name.strip("/").split("/")
    scopes, parent = [""], ""
    for module in modules:
        inside = module.removeprefix(parent + ".") if parent else module
        scopes.append(".".join(part for part in (scopes[-1], inside) if part))
        parent = module
    node.metadata_props[SCOPES] = repr([*scopes, operation])
