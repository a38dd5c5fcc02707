"""What passes measured of values, as the hardware model sees it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from fick.hwmodel.estimate import estimate
from fick.hwmodel.extract import extract
from fick.hwmodel.hardware import load
from fick.hwmodel.specs import Bits
from fick.hwmodel.workload import Gemm, Kind, Operation, TensorClass, Workload, moved_once
from fick.ir.errors import UserError
from fick.ir.program import Program
from fick.passes.base import Pass, apply
from fick.passes.fuse import Fuse
from fick.passes.hoist import Hoist
from fick.passes.pssa import PruneScores, PruneScoresConfig
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.store import Store, StoreConfig
from fick.passes.tips import Tips

from ..passes import small_unet

NATIVE = Bits(weights=8, activations=12, scores=12)


def fused(*passes: Pass) -> Program:
    return apply([*passes, Hoist(), Fuse()], small_unet.program(), small_unet.context())


def workload(*passes: Pass) -> Workload:
    return extract(fused(*passes), NATIVE)


def of(work: Workload, *kinds: Kind) -> list[Operation]:
    return [one for one in work.variants["full"] if one.kind in kinds]


def test_attention_taken_apart_is_the_same_work() -> None:
    before, after = workload(), workload(PruneScores(PruneScoresConfig(threshold=0)))
    kinds = (Kind.SCORES, Kind.SOFTMAX, Kind.VALUES)
    theirs, ours = of(before, *kinds), of(after, *kinds)
    assert [(one.kind, one.bounds) for one in ours] == [(one.kind, one.bounds) for one in theirs]
    assert [one.result.tensor_class for one in ours] == [one.result.tensor_class for one in theirs]
    assert after.macs() == before.macs()


def test_quantised_products_are_of_narrow_operands_and_the_same_work() -> None:
    before, after = workload(), workload(Quantise(QuantiseConfig(least_depth=1)))
    kinds = (Kind.CONVOLUTION, Kind.MATMUL)
    assert [one.bounds for one in of(after, *kinds)] == [one.bounds for one in of(before, *kinds)]
    assert {tuple(operand.bits for operand in one.operands) for one in of(before, *kinds)} == {(12, 8)}
    assert {tuple(operand.bits for operand in one.operands) for one in of(after, *kinds)} == {(8, 8)}
    assert len(after.variants["full"]) == len(before.variants["full"])


def test_sparse_scores_are_moved_as_they_are_stored_and_multiplied_as_they_are() -> None:
    program = fused(PruneScores())
    before, after = workload(), extract(program, NATIVE)
    per_score = program.history[0].effect["bits_per_score"]
    softmax = next(
        one for one in of(after, Kind.SOFTMAX) if one.result.tensor_class is TensorClass.SELF_SCORES
    )
    assert softmax.result.bits == 12
    assert float(softmax.result.moved_bits) == pytest.approx(per_score)
    (values,) = (
        one for one in of(after, Kind.VALUES) if one.operands[0].tensor_class is TensorClass.SELF_SCORES
    )
    assert values.operands[0].moved_bits == softmax.result.moved_bits
    scores = small_unet.BATCH * 2 * small_unet.PIXELS**2
    raw, pruned = (moved_once(one.variants["full"])[TensorClass.SELF_SCORES] for one in (before, after))
    # Products write the raw scores and read those of softmax, each once.
    assert raw == 2 * 12 * scores
    assert pruned == 12 * scores + math.ceil(scores * softmax.result.moved_bits)
    dbsc = load("dbsc")
    dense, sparse = (estimate(one, dbsc, 1) for one in (before, after))
    assert sparse["ema_bytes"]["self-attention scores"] < dense["ema_bytes"]["self-attention scores"]
    assert sparse["macs"] == dense["macs"]


def test_values_stored_in_bfloat16_are_moved_as_such() -> None:
    wide = Bits(weights=32, activations=32, scores=32)
    program = fused()
    before = extract(program, wide)
    after = extract(
        apply([Store(StoreConfig(format="bfloat16", smallest=1))], program, small_unet.context()), wide
    )
    products = (Kind.CONVOLUTION, Kind.MATMUL)
    theirs, ours = of(before, *products), of(after, *products)
    assert [(one.kind, one.bounds) for one in ours] == [(one.kind, one.bounds) for one in theirs]
    # The first convolution reads what the caller gives, with weights as they are; all others read what was rounded.
    assert [{operand.bits for operand in one.operands} for one in ours] == [{32}] + [{16}] * (len(ours) - 1)
    assert ours[-1].result.bits == 32
    moved = [moved_once(one.variants["full"]) for one in (before, after)]
    for kept in (TensorClass.WEIGHTS, TensorClass.ACTIVATIONS):
        assert moved[1][kept] < 0.6 * moved[0][kept]


def test_rows_of_two_precisions_are_two_products() -> None:
    program = fused(Tips())
    before, after = workload(), extract(program, NATIVE)
    assert after.macs() == before.macs()
    parts = [one for one in of(after, Kind.MATMUL) if one.name.endswith("bits")]
    assert [one.operands[0].bits for one in parts] == [12, 6, 12, 6]
    rows, share = small_unet.BATCH * small_unet.PIXELS, program.history[0].effect["low_share"]
    for high, low in zip(parts[::2], parts[1::2], strict=True):
        assert isinstance(high.bounds, Gemm) and isinstance(low.bounds, Gemm)
        assert high.bounds.rows + low.bounds.rows == rows
        assert low.bounds.rows == rows - round(rows * (1 - share))
        for one, bounds in ((high, high.bounds), (low, low.bounds)):
            assert one.operands[0].elements == bounds.rows * bounds.reduction
            assert one.result.elements == bounds.rows * bounds.columns
    dbsc = load("dbsc")
    plain, spotted = (estimate(one, dbsc, 1) for one in (before, after))
    assert spotted["step_energy_mj"]["compute"] < plain["step_energy_mj"]["compute"]


@pytest.mark.parametrize(("weights", "bits"), [("fp8", 8), ("fp4", 4)])
def test_weights_are_read_in_the_bits_of_their_codes(weights: str, bits: int) -> None:
    config = QuantiseConfig(weights=weights, activations="float32", least_depth=1)  # type: ignore[arg-type]
    wide = Bits(weights=16, activations=12, scores=12)
    before, after = extract(fused(), wide), extract(fused(Quantise(config)), wide)
    kinds = (Kind.CONVOLUTION, Kind.MATMUL)
    assert [one.bounds for one in of(after, *kinds)] == [one.bounds for one in of(before, *kinds)]
    assert {tuple(operand.bits for operand in one.operands) for one in of(after, *kinds)} == {(12, bits)}
    assert len(after.variants["full"]) == len(before.variants["full"])


def test_a_core_that_does_not_multiply_such_operands_says_so() -> None:
    with pytest.raises(UserError, match="12 bits"):
        estimate(fused(Tips()), load("sda"), 1)


def test_shares_of_rows_add_up_whatever_they_are() -> None:
    operation = next(one for one in of(workload(), Kind.MATMUL))
    for shares in (
        {12: Fraction(1, 3), 6: Fraction(2, 3)},
        {12: Fraction(0), 6: Fraction(1)},
        {8: Fraction(1)},
    ):
        parts = list(operation.by_precision(shares))
        assert sum(one.macs for one in parts) == operation.macs
        assert sum(one.result.elements for one in parts) == operation.result.elements
