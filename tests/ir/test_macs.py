"""Multiply-accumulates against counts made by hand."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from fick.ir.macs import macs


@pytest.mark.parametrize(
    ("signature", "body", "count"),
    [
        # 4 x 8 x 8 outputs, each over 3 channels of 3 x 3.
        (
            "(float[1,3,8,8] x, float[4,3,3,3] w) => (float[1,4,8,8] y)",
            "y = Conv<pads=[1,1,1,1]>(x, w)",
            6912,
        ),
        # Stride 2 leaves 4 x 4; two groups see two channels each.
        (
            "(float[1,4,8,8] x, float[6,2,3,3] w) => (float[1,6,4,4] y)",
            "y = Conv<pads=[1,1,1,1], strides=[2,2], group=2>(x, w)",
            1728,
        ),
        # 2 x 3 x 3 inputs, each spread over 5 channels of 2 x 2.
        (
            "(float[1,2,3,3] x, float[2,5,2,2] w) => (float[1,5,6,6] y)",
            "y = ConvTranspose<strides=[2,2]>(x, w)",
            360,
        ),
        ("(float[2,3,4] x, float[4,5] w) => (float[2,3,5] y)", "y = MatMul(x, w)", 120),
        ("(float[4,3] x, float[5,4] w) => (float[3,5] y)", "y = Gemm<transA=1, transB=1>(x, w)", 60),
        # 2 heads x 6 queries x 5 keys x (4 + 3).
        (
            "(float[1,2,6,4] q, float[1,2,5,4] k, float[1,2,5,3] v) => (float[1,2,6,3] y)",
            "y = Attention(q, k, v)",
            420,
        ),
        (
            "(float[1,6,8] q, float[1,5,8] k, float[1,5,6] v) => (float[1,6,6] y)",
            "y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)",
            420,
        ),
        # Four heads of queries share two of keys and values: 4 x 6 x 5 x (2 + 3).
        (
            "(float[1,6,8] q, float[1,5,4] k, float[1,5,6] v) => (float[1,6,12] y)",
            "y = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v)",
            600,
        ),
        (
            "(float[4,5] x, float[5,2] w) => (float[4,2] y) <float[4,5] s, float[4,2] m>",
            "s = Sin(x) m = MatMul(s, w) y = Add(m, m)",
            40,
        ),
    ],
)
def test_count(signature: str, body: str, count: int) -> None:
    assert (
        macs(ir.from_onnx_text(f'<ir_version: 11, opset_import: ["" : 24]> g {signature} {{ {body} }}'))
        == count
    )
