"""If: the branch that shapes decide stands in its place, and one that they do not decide is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fick.ir import referee
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError

from .test_canonical import agree, kinds, parse

ASKED = """
    s = Shape(t) one = Constant<value_int=1>() k = Gather(s, one) c = Equal(k, one) axes = Constant<value_ints=[1]>()
    f = If(c) <
        then_branch = squeezed () => (float[n] a) { m = Mul(t, w) a = Squeeze(m, axes) },
        else_branch = kept () => (float[n, m] e) { v = Frobnicate(u) e = Identity(t) }
    >
"""
SIGNATURE = "(float[2, m] t, float[2,3] u, float[1] w) => (float[] y)"
WEIGHTS = {"w": np.array([1.5], np.float32)}


@pytest.mark.parametrize(("size", "left"), [(1, 1), (4, 0)])
def test_the_branch_that_shapes_choose_is_taken(size: int, left: int) -> None:
    """And what the other one alone reads is gone."""
    body = "g = Sin(u)" + ASKED.replace("Frobnicate(u)", "Exp(g)") + "y = Exp(f)"
    model = parse(SIGNATURE, body, WEIGHTS)
    canonical = canonicalise(model, {"t": (2, size)})
    assert (kinds(canonical)["Mul"], kinds(canonical)["Sin"]) == (left, 0)
    rng = np.random.default_rng(0)
    feeds = {"t": rng.standard_normal((2, size), np.float32), "u": rng.standard_normal((2, 3), np.float32)}
    wanted = referee.run(model, feeds)["y"]
    np.testing.assert_allclose(referee.run(canonical, feeds)["y"], wanted, rtol=2.0**-22, atol=0)


def test_a_branch_within_a_branch_that_is_the_result() -> None:
    """Nothing follows it, and both use names of their own twice."""
    body = """
        s = Size(t) two = Constant<value_int=2>() c = Equal(s, two) n = Not(c)
        y = If(c) <
            then_branch = outer () => (float[] a) {
                a = If(n) <
                    then_branch = left () => (float[] p) { p = Exp(t) },
                    else_branch = right () => (float[] q) { h = Mul(t, w) q = Sin(h) }
                >
            },
            else_branch = other () => (float[] e) { e = Identity(t) }
        >
    """
    canonical = agree(parse("(float[2] t, float[1] w) => (float[] y)", body, WEIGHTS))
    assert kinds(canonical) == {"Mul": 1, "Sin": 1}


def test_branches_of_an_old_opset_are_brought_to_this_one() -> None:
    """Where ReduceMean had its axes as an attribute."""
    body = """
        s = Size(t) two = Constant<value_int=2>() c = Equal(s, two)
        f = If(c) <
            then_branch = one () => (float[] a) { a = ReduceMean<axes=[0]>(t) },
            else_branch = other () => (float[] e) { e = Identity(t) }
        >
        y = Exp(f)
    """
    assert kinds(agree(parse("(float[2] t) => (float[] y)", body, opset=13)))["ReduceMean"] == 1


def test_a_choice_at_run_time_is_refused() -> None:
    body = """
        z = Constant<value_float=0.0>() r = ReduceSum<keepdims=0>(t) c = Less(r, z)
        y = If(c) <then_branch = p () => (float[] a) { a = Exp(t) }, else_branch = q () => (float[] e) { e = Sin(t) }>
    """
    with pytest.raises(
        UserError, match=r"If node .* chooses between two graphs by c, which is known only when"
    ):
        canonicalise(parse("(float[2] t) => (float[] y)", body))
