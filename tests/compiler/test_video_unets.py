"""UNets of diffusers whose sample is a video: each compiled whole, against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import fick
from fick.compiler.frontends import import_model
from fick.compiler.frontends.torch_module import keywords
from fick.ir.errors import UserError

SMALL = {"sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "cross_attention_dim": 12}
DEEP = {
    **SMALL,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "attention_head_dim": 8,
}
VIDEO, TEXT = (1, 4, 3, 8, 8), (1, 5, 12)

NETWORKS: dict[str, tuple[type, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "text to video": (
        diffusers.UNet3DConditionModel,
        DEEP,
        {"sample": VIDEO, "encoder_hidden_states": TEXT},
    ),
    "motion modules": (
        diffusers.UNetMotionModel,
        {
            **SMALL,
            "norm_num_groups": 8,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
        },
        {"sample": VIDEO, "encoder_hidden_states": (3, *TEXT[1:])},
    ),
    "image to video": (
        diffusers.I2VGenXLUNet,
        DEEP,
        {"sample": VIDEO, "encoder_hidden_states": TEXT, "image_latents": VIDEO},
    ),
    "stable video": (
        diffusers.UNetSpatioTemporalConditionModel,
        {
            **SMALL,
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24,
            "num_attention_heads": (2, 4),
            "num_frames": 3,
        },
        {},
    ),
}


def drawn(kind: type, config: dict[str, Any]) -> torch.nn.Module:
    """With numbers in all weights: what runs along the frames starts as zeros."""
    torch.manual_seed(0)
    module = kind(**config).eval()
    for tensor in module.parameters():
        if not tensor.any():
            torch.nn.init.normal_(tensor, std=0.1)
    return module


def call(module: torch.nn.Module, shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, Any], np.ndarray]:
    rng = np.random.default_rng(1)
    feeds = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    feeds["timestep"] = np.array([501.0], np.float32)
    with torch.no_grad():
        given = {name: torch.from_numpy(array) for name, array in feeds.items()}
        return feeds, module(**keywords(module, given))[0].numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_video_unet_in_memory_agrees_with_torch(name: str, tmp_path: Path) -> None:
    """To 2e-5 of the largest output, some thirty layers of sums of a few hundred terms deep."""
    kind, config, shapes = NETWORKS[name]
    module = drawn(kind, config)
    report = fick.compile(module, output=tmp_path / "video.fick", shapes=shapes)
    with fick.load(report.bundle) as loaded:
        rates = {name: one.rate for name, one in loaded.inputs.items()}
        assert (rates.pop("sample"), rates.pop("timestep"), {*rates.values()}) == (
            "sample",
            "step",
            {"prompt"},
        )
        feeds, wanted = call(module, {name: one.shape for name, one in loaded.inputs.items()})
        (got,) = loaded.run(**feeds).values()
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()


def test_frames_stand_where_the_network_has_them() -> None:
    kind, config, _ = NETWORKS["stable video"]
    with pytest.raises(
        UserError, match=r"sample of .* cannot have shape \[1, 8, 3, 8, 8\]; .* \[1, 3, 8, 8, 8\]"
    ):
        import_model(drawn(kind, config), shapes={"sample": (1, 8, 3, 8, 8)})
