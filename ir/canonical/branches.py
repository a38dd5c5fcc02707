"""An If that is decided before the model runs, as where shapes decide it, is the branch that it takes."""

from __future__ import annotations

import onnx_ir as ir


def take_branch(node: ir.Node, name: str) -> None:
    """Let the nodes of the branch, an attribute of that name, stand behind the If, which goes."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    body = node.attributes[name].as_graph()
    results, nodes = list(body.outputs), list(body)
    body.outputs.clear()
    for label, value in list(body.initializers.items()):
        del body.initializers[label]
        while value.name in graph.initializers:
            value.name = f"{value.name}_of_{node.name}"
        graph.register_initializer(value)
    body.remove(nodes)
    for value in (output for one in nodes for output in one.outputs):
        value.shape = None  # as the file says it, before sizes were fixed
    copies: list[ir.Node] = []
    for old, new in zip(node.outputs, results, strict=True):
        copy = ir.node("Identity", [new])
        ir.convenience.replace_all_uses_with(old, copy.outputs[0], replace_graph_outputs=True)
        copy.outputs[0].name, old.name = old.name, None
        copies.append(copy)
    graph.insert_after(node, [*nodes, *copies])
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            _let_go(attribute.as_graph())
    graph.remove(node, safe=True)


def _let_go(body: ir.Graph) -> None:
    """Have a graph that never runs read nothing: what is computed for it alone is dead."""
    body.outputs.clear()
    for node in body.all_nodes():
        for place in range(len(node.inputs)):
            node.replace_input_with(place, None)
