"""Which nodes run as one kernel, on graphs small enough to say so by hand, and why others do not."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from fick.ir.groups import UNFUSED, groups
from fick.ir.operators import ELEMENTWISE
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context
from fick.passes.fuse import Fuse, FuseConfig


def fused(signature: str, body: str, longest: int = 16) -> ir.Model:
    model = ir.from_onnx_text(f'<ir_version: 11, opset_import: ["" : 24]> g {signature} {{ {body} }}')
    for node in model.graph:
        node.name = node.outputs[0].name
    for node in model.graph:
        node.outputs[0].shape = model.graph.inputs[0].shape if node.op_type != "Split" else None
    rates = {str(value.name): Rate.SAMPLE for value in model.graph.inputs}
    program = Program("small", {"full": model}, rates)
    done, _ = Fuse(FuseConfig(longest=longest)).run(program, Context())
    return done.variants["full"]


def partition(model: ir.Model) -> list[list[str]]:
    return [[str(node.name) for node in group.nodes] for group in groups(model)]


def reasons(model: ir.Model) -> dict[str, str]:
    return {
        str(node.name): node.metadata_props[UNFUSED] for node in model.graph if UNFUSED in node.metadata_props
    }


IMAGE = "(float[1,4,8,8] x, float[4,4,1,1] w, float[1,4,8,8] r) => (float[1,4,8,8] y)"


def test_a_convolution_carries_residual_and_activation() -> None:
    model = fused(IMAGE, "c = Conv(x, w)  a = Add(c, r)  y = Swish(a)")
    assert partition(model) == [["c", "a", "y"]] and reasons(model) == {}


def test_what_is_read_twice_is_stored() -> None:
    model = fused(IMAGE, "c = Conv(x, w)  a = Swish(c)  b = Conv(a, w)  y = Add(b, c)")
    assert partition(model) == [["c"], ["a"], ["b", "y"]]
    assert reasons(model) == {"a": "its input c is read in 2 places"}


def test_what_comes_together_again_is_not() -> None:
    model = fused(IMAGE, "c = Conv(x, w)  a = Swish(c)  b = Mul(a, r)  d = Max(c, a)  y = Sub(d, b)")
    assert partition(model) == [["c", "a", "b", "d", "y"]] and reasons(model) == {}
    # The last of them may be read anywhere.
    model = fused(IMAGE, "c = Conv(x, w)  a = Swish(c)  b = Add(a, c)  d = Conv(b, w)  y = Add(d, b)")
    assert partition(model) == [["c", "a", "b"], ["d", "y"]]


def test_what_the_caller_reads_on_the_way_is_stored() -> None:
    signature = IMAGE.replace("y)", "y, float[1,4,8,8] a)")
    model = fused(signature, "c = Conv(x, w)  a = Swish(c)  b = Neg(a)  y = Add(b, c)")
    assert partition(model) == [["c"], ["a"], ["b", "y"]]


def test_what_the_caller_reads_is_stored() -> None:
    model = fused(IMAGE.replace("y)", "y, float[1,4,8,8] c)"), "c = Conv(x, w)  y = Swish(c)")
    assert partition(model) == [["c"], ["y"]]
    assert set(reasons(model)) == {"y"}


def test_a_node_that_one_anchor_refused_and_another_took_has_no_reason() -> None:
    model = fused(
        IMAGE, "c = Conv(x, w)  d = Conv(r, w)  s = Swish(c)  t = Relu(c)  u = Add(d, s)  y = Add(u, t)"
    )
    carried = {name for members in partition(model) for name in members[1:]}
    assert carried and not carried & set(reasons(model))


def test_work_before_any_anchor_says_so() -> None:
    model = fused(IMAGE, "a = Relu(x)  c = Conv(a, w)  y = Add(c, r)")
    assert partition(model) == [["a"], ["c", "y"]]
    assert reasons(model) == {"a": "no heavier node before it can carry it"}


@pytest.mark.parametrize(("longest", "count"), [(16, 1), (2, 2)])
def test_a_group_ends_at_its_length(longest: int, count: int) -> None:
    model = fused(IMAGE, "c = Conv(x, w)  d = Relu(c)  e = Exp(d)  f = Neg(e)  y = Abs(f)", longest)
    assert len(partition(model)) >= count


def test_every_elementwise_node_is_in_a_group_or_says_why_it_stands_alone() -> None:
    model = fused(IMAGE, "c = Conv(x, w)  a = Swish(c)  b = Relu(c)  d = Add(a, b)  y = Mul(d, r)")
    first = {members[0] for members in partition(model)}
    for node in model.graph:
        if node.op_type in ELEMENTWISE:
            assert (str(node.name) in first) == (UNFUSED in node.metadata_props)


def test_integers_end_a_group_and_products_read_them() -> None:
    model = fused(
        "(float[1,4,8,8] x, float[4,4,1,1] w, float[4,4,1,1] v, float s) => (float[1,4,8,8] y)",
        "c = Conv(x, w) a = Relu(c) q = QuantizeLinear<output_dtype=3>(a, s) d = DequantizeLinear(q, s) "
        "e = Conv(d, v) p = QuantizeLinear<output_dtype=3>(e, s) f = DequantizeLinear(p, s) y = Relu(f)",
    )
    assert partition(model) == [["c", "a", "q"], ["e", "p"], ["f", "y"]]
