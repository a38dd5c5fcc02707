"""Attention taken apart, against ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.ir import attention, referee
from fick.ir.annotations import SCORES
from fick.ir.macs import macs


def graph(
    query: str, key: str, value: str, result: str, attributes: str, extra: str = "", inputs: str = ""
) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 11, opset_import: ["" : 24]> g (float[{query}] q, float[{key}] k, float[{value}] v{inputs}) => '
        f"(float[{result}] y) {{ y = Attention<{attributes}>(q, k, v{extra}) }}"
    )


@st.composite
def cases(draw: st.DrawFn) -> ir.Model:
    batch, heads, queries, keys, wide, deep = (draw(st.integers(1, 5)) for _ in range(6))
    scale = draw(st.sampled_from(("", "scale=0.25")))
    if draw(st.booleans()):
        counts = f"q_num_heads={heads}, kv_num_heads={heads}" + (f", {scale}" if scale else "")
        return graph(
            f"{batch},{queries},{heads * wide}", f"{batch},{keys},{heads * wide}", f"{batch},{keys},{heads * deep}",
            f"{batch},{queries},{heads * deep}", counts,
        )  # fmt: skip
    return graph(
        f"{batch},{heads},{queries},{wide}", f"{batch},{heads},{keys},{wide}", f"{batch},{heads},{keys},{deep}",
        f"{batch},{heads},{queries},{deep}", scale or "is_causal=0",
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 1000))
def test_taken_apart_it_gives_the_same(model: ir.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    feeds = {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)  # type: ignore[union-attr]
        for value in model.graph.inputs
    }
    wanted, count = referee.run(model, feeds)["y"], macs(model)
    (node,) = model.graph
    assert attention.is_plain(node)
    size = attention.sizes(node)
    probabilities = attention.expand(node, "self")
    assert probabilities.metadata_props[SCORES] == "self"
    assert tuple(probabilities.shape) == (size.batch, size.heads, size.queries, size.keys)  # type: ignore[arg-type]
    assert macs(model) == count
    # Sums of at most 25 terms in float32.
    np.testing.assert_allclose(referee.run(model, feeds)["y"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "extra", "inputs"),
    [
        ("is_causal=1", "", ""),
        ("softcap=2.0", "", ""),
        ("scale=1.0", ", m", ", float[3,3] m"),
    ],
)
def test_what_is_more_than_attention_is_told(attributes: str, extra: str, inputs: str) -> None:
    model = graph("1,2,3,4", "1,2,3,4", "1,2,3,4", "1,2,3,4", attributes, extra, inputs)
    assert not attention.is_plain(next(iter(model.graph)))


def test_shared_heads_are_told() -> None:
    model = graph("1,4,3,4", "1,2,3,4", "1,2,3,4", "1,4,3,4", "is_causal=0")
    assert not attention.is_plain(next(iter(model.graph)))
