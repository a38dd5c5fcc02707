"""Pipelines of the shape of Stable Diffusion and of DiT, small enough for tests. Their weights are random."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import fick
from fick.compiler.quality.drawing import Drawing
from fick.runtime import ClassToImage, TextToImage
from fick.runtime.tokenizer import BYTE_LETTERS

START, END = "<|startoftext|>", "<|endoftext|>"
TOKENS, WIDTH = 12, 16

Pipeline = TypeVar("Pipeline", TextToImage, ClassToImage)


def tokenizer(folder: Path) -> CLIPTokenizer:
    letters = sorted(BYTE_LETTERS)
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    pieces = [*letters, *(f"{one}</w>" for one in letters), *(a + b for a, b in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS, **special
    )


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.3,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip


def scheduler(**config: object) -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, **config,
    )  # fmt: skip


def make(folder: Path) -> StableDiffusionPipeline:
    """Saves a pipeline there in the layout of diffusers and gives it back."""
    torch.manual_seed(0)
    words = tokenizer(folder)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=TOKENS, bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=WIDTH,
        attention_head_dim=2, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    made = StableDiffusionPipeline(
        vae=autoencoder(), text_encoder=text_encoder.eval(), tokenizer=words, unet=unet.eval(),
        scheduler=scheduler(prediction_type="v_prediction"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.save_pretrained(folder / "tiny-sd")
    made.set_progress_bar_config(disable=True)
    return made


def transformer(**config: object) -> DiTTransformer2DModel:
    """Two blocks of 32 channels on latents of 8 x 8. Patches are of 2 x 2, and a variance is learned."""
    torch.manual_seed(0)
    small = {
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8, "in_channels": 4,
        "out_channels": 8, "patch_size": 2,
    }  # fmt: skip
    return DiTTransformer2DModel(**{**small, **config}).eval()


def make_class_conditional(folder: Path) -> DiTPipeline:
    """The same with classes for prompts: a thousand, for that is what its code takes for granted."""
    torch.manual_seed(0)
    names = {0: "tench, Tinca tinca", 1: "goldfish", 207: "golden retriever"}
    made = DiTPipeline(transformer(), autoencoder(), scheduler(prediction_type="epsilon"), id2label=names)
    made.save_pretrained(folder / "tiny-dit")
    index = folder / "tiny-dit" / "model_index.json"
    # Published pipelines have names of classes there, and diffusers reads them but does not write them.
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": names}))
    made.set_progress_bar_config(disable=True)
    return made


def opened(path: Path, kind: type[Pipeline]) -> Pipeline:
    model = fick.load(path, threads=2)
    assert isinstance(model, kind)
    return model


def assert_drawn(
    ours: TextToImage | ClassToImage,
    plain: TextToImage | ClassToImage,
    wanted: Sequence[Drawing],
    prompts: Sequence[Any],
    **settings: Any,
) -> None:
    """Pictures of seeds from 0 on are as wanted but for a rounding, and others than the ``plain`` bundle's."""
    for seed, (prompt, drawing) in enumerate(zip(prompts, wanted, strict=True)):
        got = ours.generate(prompt, seed=seed, **settings)
        assert np.abs(got.astype(int) - drawing.picture).max() <= 1
        assert not np.array_equal(got, plain.generate(prompt, seed=seed, **settings))
