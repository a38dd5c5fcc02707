"""Canonicalisation of the whole terrain UNet, against ONNX Runtime on the graph before it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from examples.terrain_model import fetch
from fick.ir.canonical import canonicalise
from fick.ir.modules import module_path
from fick.ir.referee import session

from .test_canonical import kinds


@pytest.fixture(scope="module")
def terrain() -> ir.Model:
    return ir.load(fetch())


@pytest.fixture(scope="module")
def canonical_terrain(terrain: ir.Model) -> ir.Model:
    return canonicalise(terrain)


def test_terrain_is_raised_whole(terrain: ir.Model, canonical_terrain: ir.Model) -> None:
    before, after = kinds(terrain), kinds(canonical_terrain)
    assert len(canonical_terrain.graph) <= 1000
    assert after["GroupNormalization"] == before["InstanceNormalization"] == 139
    assert after["Attention"] == before["Softmax"] == 28
    # Every Sigmoid of this model is half of a Swish.
    assert after["Swish"] == before["Sigmoid"] == 114
    assert not {"Cast", "Constant", "Shape", "Gather", "Slice", "Einsum", "Sigmoid"} & set(after)
    assert len(terrain.graph) == 6089


def test_terrain_keeps_its_weights_by_name(terrain: ir.Model, canonical_terrain: ir.Model) -> None:
    for name, value in terrain.graph.initializers.items():
        kept = canonical_terrain.graph.initializers[name].const_value
        assert kept is not None and value.const_value is not None
        np.testing.assert_array_equal(kept.numpy().reshape(-1), value.const_value.numpy().reshape(-1))


def test_terrain_keeps_its_module_paths(canonical_terrain: ir.Model) -> None:
    paths = {
        kind: {module_path(node) for node in canonical_terrain.graph if node.op_type == kind}
        for kind in ("GroupNormalization", "Attention", "Swish", "Conv")
    }
    assert "model.input_blocks.1.0.in_layers.0" in paths["GroupNormalization"]
    assert "model.input_blocks.11.1.attention" in paths["Attention"]
    assert "model.input_blocks.1.0.in_layers.1" in paths["Swish"]
    assert "model.input_blocks.1.0.in_layers.2" in paths["Conv"]
    assert len(paths["GroupNormalization"]) == 139 and len(paths["Attention"]) == 28
    names = [node.name for node in canonical_terrain.graph]
    assert len(set(names)) == len(names) and all(names)


def test_terrain_folds_both_scales_into_attention(canonical_terrain: ir.Model) -> None:
    scales = [
        node.attributes.get_float("scale") for node in canonical_terrain.graph if node.op_type == "Attention"
    ]
    # q and k each carry 32^-1/4.
    assert scales == pytest.approx([32**-0.5] * 28, rel=1e-6)


def test_terrain_agrees_with_onnx_runtime(canonical_terrain: ir.Model) -> None:
    original = ort.InferenceSession(fetch(), providers=["CPUExecutionProvider"])
    ours = session(canonical_terrain)
    noise = np.random.default_rng(0).standard_normal((1, 1, 128, 128)).astype(np.float32)
    for sigma in (80.0, 24.0, 6.0, 1.2):
        feeds = {
            "noisy": noise * np.float32(sigma),
            "sigma": np.array([sigma], np.float32),
            "difficulty": np.array([0.5], np.float32),
        }
        (want,), (got,) = original.run(None, feeds), ours.run(None, feeds)
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_same_input_same_bytes(canonical_terrain: ir.Model) -> None:
    again = canonicalise(ir.load(fetch()))
    assert ir.serde.serialize_model(again).SerializeToString() == (
        ir.serde.serialize_model(canonical_terrain).SerializeToString()
    )


def test_canonical_is_a_fixed_point(canonical_terrain: ir.Model) -> None:
    assert kinds(canonicalise(canonical_terrain)) == kinds(canonical_terrain)
