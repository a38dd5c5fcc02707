"""Rates: the join is a semilattice, and analysis agrees with a definition by reachability."""

from __future__ import annotations

from itertools import product

import networkx as nx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.ir.rates import Rate, analyse

RATES = list(Rate)


def test_join_is_a_semilattice() -> None:
    for a, b, c in product(RATES, repeat=3):
        assert a.join(b) is b.join(a)
        assert a.join(a) is a
        assert a.join(b).join(c) is a.join(b.join(c))
        assert a.join(Rate.CONSTANT) is a
        assert a.join(Rate.SAMPLE) is Rate.SAMPLE


def test_prompt_and_step_together_fit_neither() -> None:
    assert Rate.PROMPT.join(Rate.STEP) is Rate.SAMPLE


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12))
def test_a_rate_says_which_inputs_are_reachable(edges: list[tuple[int, int]]) -> None:
    inputs = {"p": Rate.PROMPT, "t": Rate.STEP, "x": Rate.SAMPLE}
    names, lines, reach = [*inputs, "w"], [], nx.DiGraph()
    for index, (left, right) in enumerate(edges):
        operands = names[left % len(names)], names[right % len(names)]
        reach.add_edges_from((operand, f"v{index}") for operand in operands)
        lines.append(f"v{index} = Add({', '.join(operands)})")
        names.append(f"v{index}")
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 23]> g (float[2] p, float[2] t, float[2] x) '
        f"=> (float[2] {names[-1]}) <float[2] w = {{1, 2}}> {{ {' '.join(lines)} }}"
    )
    found = analyse(model.graph, inputs)
    for index in range(len(edges)):
        sources = nx.ancestors(reach, f"v{index}") & set(inputs)
        if "x" in sources or {"p", "t"} <= sources:
            expected = Rate.SAMPLE
        else:
            expected = inputs[sources.pop()] if sources else Rate.CONSTANT
        assert found[f"v{index}"] is expected


@pytest.mark.parametrize("draw", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_random_numbers_are_never_constant(draw: str) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 23]> g (float[2] x) => (float[2] y) <float[2] w = {1, 1}> '
        f"{{ n = {draw}(w)  m = Add(n, w)  y = Add(x, m) }}"
    )
    rates = analyse(model.graph, {"x": Rate.SAMPLE})
    assert (rates["w"], rates["n"], rates["m"]) == (Rate.CONSTANT, Rate.SAMPLE, Rate.SAMPLE)


def test_an_input_without_a_rate_is_a_sample() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 23]> g (float[2] x) => (float[2] y) { y = Sqrt(x) }'
    )
    assert analyse(model.graph, {}) == {"x": Rate.SAMPLE, "y": Rate.SAMPLE}
