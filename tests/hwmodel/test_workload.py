"""Workloads against the counts of ir/macs.py, the published sizes, and small graphs read by eye."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from fick.hwmodel.extract import extract
from fick.hwmodel.specs import Bits
from fick.hwmodel.workload import Convolution, Gemm, Kind, Operation, TensorClass, Vectors, Workload
from fick.ir.errors import UserError
from fick.ir.macs import COUNTS, macs
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.fuse import Fuse
from fick.passes.hoist import Hoist

from . import programs

NATIVE = Bits(weights=12, activations=16, scores=6)


RATES = {"p": Rate.PROMPT, "t": Rate.STEP, "w": Rate.CONSTANT}


def small(signature: str, body: str) -> Program:
    """A fused program of one graph; the first letter of an input is its rate, and most are the sample's."""
    text = f'<ir_version: 11, opset_import: ["" : 24]> g {signature} {{ {body} }}'
    model = ir.from_onnx_text(text)
    ShapeInferencePass()(model)
    names = [str(value.name) for value in model.graph.inputs]
    rates = {name: RATES.get(name[0], Rate.SAMPLE) for name in names}
    return apply([Hoist(), Fuse()], Program("small", {"full": model}, rates), Context())


def operations(signature: str, body: str) -> list[Operation]:
    return list(extract(small(signature, body), NATIVE).variants["full"])


@pytest.mark.parametrize(("name", "gmac"), [("sd-1.5", 401.6), ("bk-sdm-tiny", 242.8)])
def test_published_models(
    published: dict[str, Program], workloads: dict[str, Workload], name: str, gmac: float
) -> None:
    workload = workloads[name]
    for variant, model in published[name].variants.items():
        assert workload.macs(variant) == macs(model)
    # Half a percent, as the published numbers are rounded and count a multiply-accumulate in their own ways.
    assert sum(map(workload.macs, workload.variants)) / 1e9 == pytest.approx(gmac, rel=0.005)
    assert workload.runs(50) == {"constant": 0, "prompt": 1, "step": 50, "full": 50}


def test_the_kept_program_is_what_the_compiler_makes_today(published: dict[str, Program]) -> None:
    today, kept = (
        extract(one, NATIVE) for one in (programs.imported("bk-sdm-tiny"), published["bk-sdm-tiny"])
    )
    assert today == kept


def test_attention_has_no_weights(workloads: dict[str, Workload]) -> None:
    parts = [one for one in workloads["sd-1.5"].variants["full"] if one.kind in (Kind.SCORES, Kind.VALUES)]
    assert len(parts) == 64
    assert TensorClass.WEIGHTS not in {operand.tensor_class for one in parts for operand in one.operands}
    scores = {one.name: one.result.tensor_class for one in parts if one.kind is Kind.SCORES}
    assert all(
        (tensor_class is TensorClass.SELF_SCORES) == ("attn1" in name)
        for name, tensor_class in scores.items()
    )


def test_stages_of_the_unet(workloads: dict[str, Workload]) -> None:
    full = workloads["sd-1.5"].variants["full"]
    stages = list(dict.fromkeys(one.stage for one in full))
    assert stages == [
        "in", "down 0", "down 1", "down 2", "down 3", "mid", "up 0", "up 1", "up 2", "up 3", "out",
    ]  # fmt: skip
    assert {one.stage for one in workloads["sd-1.5"].variants["prompt"]} == {"prompt"}


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("(float[1,3,8,8] x, float[4,3,3,3] w) => (float[1,4,8,8] y)", "y = Conv<pads=[1,1,1,1]>(x, w)"),
        ("(float[1,4,8,8] x, float[6,2,3,3] w) => (float[1,6,4,4] y)", "y = Conv<pads=[1,1,1,1], strides=[2,2], group=2>(x, w)"),
        ("(float[1,2,3,3] x, float[2,5,2,2] w) => (float[1,5,6,6] y)", "y = ConvTranspose<strides=[2,2]>(x, w)"),
        ("(float[1,2,9] x, float[5,2,3] w) => (float[1,5,7] y)", "y = Conv(x, w)"),
        ("(float[2,3,4] x, float[4,5] w) => (float[2,3,5] y)", "y = MatMul(x, w)"),
        ("(float[2,3,4] x, float[2,4,5] w) => (float[2,3,5] y)", "y = MatMul(x, w)"),
        ("(float[4] x, float[4,5] w) => (float[5] y)", "y = MatMul(x, w)"),
        ("(float[4,3] x, float[5,4] w) => (float[3,5] y)", "y = Gemm<transA=1, transB=1>(x, w)"),
        ("(float[1,2,6,4] x, float[1,2,5,4] k, float[1,2,5,3] v) => (float[1,2,6,3] y)", "y = Attention(x, k, v)"),
        ("(float[1,6,8] x, float[1,5,4] k, float[1,5,6] v) => (float[1,6,12] y)", "y = Attention<q_num_heads=4, kv_num_heads=2>(x, k, v)"),
    ],
)  # fmt: skip
def test_bounds_hold_all_products(signature: str, body: str) -> None:
    program = small(signature, body)
    assert extract(program, NATIVE).macs() == macs(program.variants["full"]) > 0


def test_every_operator_with_products_is_tried_above() -> None:
    assert set(COUNTS) == {"Attention", "Conv", "ConvTranspose", "Gemm", "MatMul"}


def test_a_fused_convolution() -> None:
    (convolution,) = operations(
        "(float[1,4,8,8] x, float[1,6,1,1] t, float[1,6,4,4] r, float[6,4,3,3] w, float[6] wb) => (float[1,6,4,4] y)",
        "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, wb) d = Add(c, t) s = Swish(d) y = Add(s, r)",
    )
    assert convolution.bounds == Convolution(1, 6, 4, 4, 4, (8, 8), (3, 3), (2, 2))
    assert [(one.tensor_class, one.size_bits) for one in convolution.operands] == [
        (TensorClass.ACTIVATIONS, 256 * 16),
        (TensorClass.WEIGHTS, 216 * 12),
    ]
    assert [(one.kind, one.operand and one.operand.value) for one in convolution.fused] == [
        ("bias", "wb"), ("timestep add", "t"), ("silu", None), ("residual", "r"),
    ]  # fmt: skip
    assert (convolution.result.value, convolution.readers) == ("y", 1)


def test_attention_is_three_operations_and_keys_of_a_prompt_are_cross_attention() -> None:
    for keys, tensor_class in (("p", TensorClass.CROSS_SCORES), ("x", TensorClass.SELF_SCORES)):
        scores, softmax, values = operations(
            "(float[1,6,8] x, float[1,6,8] p) => (float[1,6,8] y)",
            f"y = Attention<q_num_heads=2, kv_num_heads=2>(x, {keys}, {keys})",
        )
        assert [one.kind for one in (scores, softmax, values)] == [Kind.SCORES, Kind.SOFTMAX, Kind.VALUES]
        assert (scores.bounds, values.bounds) == (Gemm(2, 6, 4, 6), Gemm(2, 6, 6, 4))
        assert softmax.bounds == Vectors(12, 6)
        assert scores.result.tensor_class is softmax.result.tensor_class is tensor_class
        assert values.operands[0] == softmax.result and softmax.result.bits == 6
        assert len({one.group for one in (scores, softmax, values)}) == 1


def test_quantised_operands_have_their_own_bits() -> None:
    """A weight of four bits that is dequantised, a result of which every reader wants eight."""
    product, last = operations(
        "(float[6,8] x, int4[8,4] wq, float ws, float wu, uint8 wz, float[4,4] w) => (float[6,4] y)",
        "d = DequantizeLinear(wq, ws) a = MatMul(x, d) b = QuantizeLinear(a, wu, wz) "
        "c = DequantizeLinear(b, wu, wz) y = MatMul(c, w)",
    )  # fmt: skip
    assert [operand.bits for operand in product.operands] == [16, 4] and product.result.bits == 8
    assert [operand.bits for operand in last.operands] == [8, 12] and last.result.bits == 16


def test_views_are_free_and_movement_is_not() -> None:
    made = operations(
        "(float[1,4,8] x, float[1,4,8] z) => (float[1,2,8,8] y) <int64[4] s = {1, 2, 8, 8}>",
        "a = Concat<axis=1>(x, z) b = Concat<axis=2>(a, a) y = Reshape(b, s)",
    )
    assert [(one.kind, one.bounds) for one in made] == [
        (Kind.MOVEMENT, Vectors(1, 64)), (Kind.MOVEMENT, Vectors(1, 128)),
    ]  # fmt: skip


def test_a_program_that_is_not_fused_is_refused() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 11, opset_import: ["" : 24]> g (float[2,2] x) => (float[2,2] y) { y = Exp(x) }'
    )
    with pytest.raises(UserError, match="not fused"):
        extract(Program("small", {"full": model}, {"x": Rate.SAMPLE}), NATIVE)


def test_a_schedule_says_what_runs() -> None:
    workload = Workload(
        "w",
        {"full": (), "cached": ()},
        {"full": Rate.SAMPLE, "cached": Rate.SAMPLE},
        {4: ("full", "cached", "cached", "full")},
    )
    assert workload.runs(4) == {"full": 2, "cached": 2}
    assert workload.runs(3) == {"full": 3, "cached": 0}
