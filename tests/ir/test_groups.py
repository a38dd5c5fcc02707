"""Fusion groups survive the graph's serialisation and know what crosses their border."""

from __future__ import annotations

import onnx_ir as ir

from fick.ir.groups import GROUP, ROLE, Group, assign, groups

TEXT = """<ir_version: 10, opset_import: ["" : 23]>
g (float[2,3] x, float[3,4] w, float[2,4] r) => (float[8] y, float[2,4] c) <int64[1] s = {8}> {
    a = MatMul(x, w)
    b = Sigmoid(r)
    c = Add(a, r)
    d = Mul(c, b)
    e = Reshape(d, s)
    y = Exp(e)
}"""


def decided(model: ir.Model) -> list[Group]:
    product, gate, add, multiply, reshape, exp = model.graph
    return [Group("1", (gate,)), Group("0", (product, add, multiply, reshape, exp))]


def names(values: list[ir.Value]) -> list[str | None]:
    return [value.name for value in values]


def test_groups_know_their_border() -> None:
    gate, product = decided(ir.from_onnx_text(TEXT))
    assert (product.kind, names(product.inputs), names(product.outputs)) == (
        "MatMul",
        ["x", "w", "r", "b", "s"],
        ["c", "y"],
    )
    assert (gate.kind, names(gate.inputs), names(gate.outputs)) == ("Sigmoid", ["r"], ["b"])


def test_what_is_written_is_read_again() -> None:
    model = ir.from_onnx_text(TEXT)
    assign(model, decided(model))
    copy = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    found = groups(copy)
    # By position of the last node, so that every group comes after those it reads.
    assert [(one.id, [node.op_type for node in one.nodes]) for one in found] == [
        ("1", ["Sigmoid"]),
        ("0", ["MatMul", "Add", "Mul", "Reshape", "Exp"]),
    ]
    roles = [node.metadata_props[ROLE] for node in copy.graph]
    assert roles == ["anchor", "anchor", "epilogue", "epilogue", "view", "epilogue"]


def test_a_new_decision_replaces_the_old() -> None:
    model = ir.from_onnx_text(TEXT)
    assign(model, decided(model))
    first = next(iter(model.graph))
    assign(model, [Group("7", (first,))])
    assert [one.id for one in groups(model)] == ["7"]
    assert [node.op_type for node in model.graph if GROUP in node.metadata_props] == ["MatMul"]
