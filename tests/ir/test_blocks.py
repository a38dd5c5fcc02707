"""Block discovery: module paths and the bare shape of the graph have to tell the same story."""

from __future__ import annotations

import warnings
from pathlib import Path

import diffusers
import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from examples.terrain_model import fetch
from fick.compiler.frontends import import_model
from fick.ir.blocks import Anatomy, Block, discover, discover_by_shape
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from tests.compiler import pipelines

SMALL = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 2,
    "norm_num_groups": 8,
}
CONDITIONED = {
    **SMALL,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
MODELS = {
    "conditioned": (diffusers.UNet2DConditionModel, CONDITIONED),
    "linear projection, no middle": (
        diffusers.UNet2DConditionModel,
        {**CONDITIONED, "layers_per_block": 1, "use_linear_projection": True, "mid_block_type": None},
    ),
    "plain, three levels": (
        diffusers.UNet2DModel,
        {
            **SMALL,
            "block_out_channels": (16, 16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            "resnet_time_scale_shift": "scale_shift",
        },
    ),
}


def stripped(model: ir.Model) -> ir.Model:
    """The same graph without module paths, and without the names that the source model gave."""
    bare = model.clone()
    for number, node in enumerate(bare.graph):
        node.metadata_props.clear()
        node.name = f"n{number}"
        for position, output in enumerate(node.outputs):
            if not output.is_graph_output():
                output.name = f"v{number}_{position}"
    return bare


def positions(graph: ir.Graph, anatomy: Anatomy) -> tuple[list[object], list[object]]:
    """Blocks and skips in terms that do not depend on any name."""
    at = {node: number for number, node in enumerate(graph)}
    sources = [skip.source.producer() for skip in anatomy.skips]
    return (
        sorted((block.kind, *(at[node] for node in block.nodes)) for block in anatomy.blocks),
        [(at[skip.join], at[source]) for skip, source in zip(anatomy.skips, sources, strict=True) if source],
    )


def assert_both_ways_agree(model: ir.Model) -> Anatomy:
    bare = stripped(model)
    named, shaped = discover(model.graph), discover(bare.graph)
    assert positions(model.graph, named) == positions(bare.graph, shaped)
    return named


def assert_nested(anatomy: Anatomy) -> None:
    """Sources are taken up in the reverse of the order in which they were left: that is the U."""
    made = {id(skip.source): number for number, skip in enumerate(anatomy.skips)}
    producers = [skip.source.producer() for skip in anatomy.skips]
    assert len(made) == len(set(producers)) == len(anatomy.skips)
    graph = anatomy.skips[0].join.graph
    assert graph is not None
    at = {node: number for number, node in enumerate(graph)}
    order = [at[node] for node in producers if node]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("name", MODELS)
def test_diffusers_both_ways(name: str) -> None:
    kind, config = MODELS[name]
    torch.manual_seed(0)
    module = kind(**config).eval()
    anatomy = assert_both_ways_agree(import_model(module).model)

    types = [type(part).__name__ for part in module.modules()]
    assert len(anatomy.skips) == sum(len(block.resnets) for block in module.up_blocks)
    assert len(anatomy.of_kind("resnet")) == types.count("ResnetBlock2D")
    assert len(anatomy.of_kind("transformer")) == types.count("Transformer2DModel")
    assert len(anatomy.of_kind("attention")) == types.count("Attention")
    assert len(anatomy.of_kind("feed_forward")) == types.count("FeedForward")
    assert len(anatomy.of_kind("down_stage")) == len(module.down_blocks)
    assert len(anatomy.of_kind("mid")) == (module.mid_block is not None)
    assert len(anatomy.of_kind("up_stage")) == len(module.up_blocks)
    assert_nested(anatomy)

    paths = {path for path, _ in module.named_modules()}
    assert {block.name for block in anatomy.blocks} <= paths
    depths = [config["sample_size"] // 2**level for level in range(len(module.down_blocks))]
    assert [block.resolution for block in anatomy.of_kind("down_stage")] == [(size, size) for size in depths]


@pytest.fixture(scope="module")
def transformer() -> torch.nn.Module:
    return pipelines.transformer()


def written_by_torchscript(module: torch.nn.Module, path: Path) -> ir.Model:
    """As of opset 14, before LayerNormalization and Attention: nothing of what blocks are told by is whole."""
    latent, labels = torch.zeros(2, 4, 8, 8), torch.tensor([1000, 207])
    for block in module.transformer_blocks:
        block.attn1.set_processor(AttnProcessor())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (latent, torch.ones(1), labels), path, dynamo=False, opset_version=14)
    return import_model(path).model


@pytest.mark.parametrize("written_by", ["dynamo", "torchscript"])
def test_a_diffusion_transformer_both_ways(
    transformer: torch.nn.Module, written_by: str, tmp_path: Path
) -> None:
    if written_by == "dynamo":
        model = import_model(transformer).model
    else:
        model = written_by_torchscript(transformer, tmp_path / "dit.onnx")
    anatomy = assert_both_ways_agree(model)
    assert not anatomy.skips
    assert [(block.kind, block.name) for block in anatomy.blocks] == [
        (kind, f"transformer_blocks.{layer}{part}")
        for layer in range(2)
        for kind, part in (("transformer", ""), ("attention", ".attn1"), ("feed_forward", ".ff"))
    ]
    entry = None
    for block in anatomy.blocks:
        join = block.nodes[-1]
        assert join.op_type == "Add" and block.outputs == (join.outputs[0],) and block.resolution == (4, 4)
        if block.kind == "transformer":
            assert entry in (None, block.inputs[0])
            parts = [one for one in anatomy.blocks if one is not block and set(one.nodes) <= set(block.nodes)]
            assert [node for one in parts for node in one.nodes] == list(block.nodes)
            entry = join.outputs[0]
            continue
        # The branch is left out by taking what the block reads first for what it gives.
        (added,) = [value for value in join.inputs if value is not block.inputs[0]]
        assert added is not None and added.producer() in block.nodes
        # Beside it a shift, a scale and a gate, all of one row an image.
        assert [tuple(value.shape or ())[1] for value in block.inputs] == [16, 1, 1, 1]


@pytest.fixture(scope="module")
def terrain() -> ir.Model:
    return import_model(fetch()).model


def test_terrain_both_ways(terrain: ir.Model) -> None:
    anatomy = assert_both_ways_agree(terrain)
    counts = {
        kind: len(anatomy.of_kind(kind)) for kind in ("resnet", "attention", "down_stage", "mid", "up_stage")
    }
    # Five levels; 25 output blocks, each with a skip; 24 resnets go down, 2 are in the middle, 29 go up.
    assert counts == {"resnet": 55, "attention": 28, "down_stage": 5, "mid": 1, "up_stage": 5}
    assert len(anatomy.skips) == 25
    assert all(skip.join.op_type == "Concat" for skip in anatomy.skips)
    assert_nested(anatomy)
    assert [block.resolution[0] for block in anatomy.of_kind("up_stage")] == [8, 16, 32, 64, 128]


def test_a_branch_has_one_way_in_and_one_out(terrain: ir.Model) -> None:
    """A branch can be bypassed: beside the timestep's scale and shift it reads one value and gives one."""
    for block in discover(terrain.graph).of_kind("resnet", "attention"):
        wide = [value for value in block.inputs if value.shape is not None and value.shape[-1] != 1]
        assert len(wide) == 1, block.name
        assert block.outputs == (block.nodes[-1].outputs[0],)


def test_stages_do_not_overlap_and_hold_every_branch(terrain: ir.Model) -> None:
    anatomy = discover_by_shape(stripped(terrain).graph)
    stages = anatomy.of_kind("down_stage", "mid", "up_stage")
    held = [node for stage in stages for node in stage.nodes]
    assert len(held) == len(set(held))
    for branch in anatomy.of_kind("resnet", "attention"):
        assert sum(set(branch.nodes) <= set(stage.nodes) for stage in stages) == 1


def additive_unet() -> ir.Model:
    """Two levels; a residual at the deepest one; the skip is added instead of concatenated."""
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["": 21]>
        additive (float[1,4,8,8] sample, float[4,4,3,3] w, float[4] b) => (float[1,4,8,8] out)
        {
          scales = Constant<value = float[4] {1.0, 1.0, 2.0, 2.0}>()
          [head] left = Conv<pads=[1,1,1,1]>(sample, w)
          [down] x0 = Conv<pads=[1,1,1,1], strides=[2,2]>(left, w)
          [norm1] x1 = GroupNormalization<num_groups=2>(x0, b, b)
          [conv1] x2 = Conv<pads=[1,1,1,1]>(x1, w)
          [norm2] x3 = GroupNormalization<num_groups=2>(x2, b, b)
          [conv2] x4 = Conv<pads=[1,1,1,1]>(x3, w)
          [residual] x5 = Add(x0, x4)
          [up] x6 = Resize<mode="nearest">(x5, , scales)
          [skip] x7 = Add(x6, left)
          [tail] out = Conv<pads=[1,1,1,1]>(x7, w)
        }
    """)
    for weight in model.graph.inputs[1:]:
        weight.const_value = ir.tensor(np.ones([int(size) for size in weight.shape or ()], np.float32))
        model.graph.register_initializer(weight)
    del model.graph.inputs[1:]
    return canonicalise(model)


def test_an_added_skip_is_told_from_a_residual() -> None:
    anatomy = discover(additive_unet().graph)
    assert [(skip.join.name, skip.source.name) for skip in anatomy.skips] == [("skip", "left")]

    def names(block: Block) -> list[str | None]:
        return [node.name for node in block.nodes]

    (resnet,) = anatomy.of_kind("resnet")
    assert names(resnet) == ["norm1", "conv1", "norm2", "conv2", "residual"]
    assert resnet.resolution == (4, 4)
    (mid,) = anatomy.of_kind("mid")
    assert names(mid) == ["down", *names(resnet), "up"]


def test_a_model_without_a_picture_is_no_unet() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 21]> words (float[1,16] x) => (float[1,16] y) { y = Relu(x) }'
    )
    with pytest.raises(UserError, match=r"words is not a UNet: no input has the height and width"):
        discover(model.graph)
