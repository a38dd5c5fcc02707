"""FID and CLIP score with stand-ins for the networks that users bring: random weights of the same interface."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from fick.compiler.quality.distribution import Gaussian, frechet_distance
from fick.compiler.quality.standard import Standard, clip_score, frechet_inception_distance, read_pictures
from fick.ir.errors import UserError

from .pipelines import tokenizer

WIDTH = 6


class Inception(torch.nn.Module):
    """Features of a picture, called as NVIDIA's network is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, WIDTH, 4, stride=4)

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        out = torch.tanh(self.layer(x.float() / 127.5 - 1)).mean(dim=[2, 3])
        return out if return_features else out[:, :1]


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_fid_is_the_distance_of_two_gaussians_in_the_features(tmp_path: Path) -> None:
    network = Inception().eval()
    torch.jit.script(network).save(str(tmp_path / "inception.pt"))
    real, drawn = pictures(70, 0), pictures(50, 1) // 2
    features = [
        network(torch.from_numpy(one.transpose(0, 3, 1, 2).copy()), True).detach().numpy().astype(np.float64)
        for one in (real, drawn)
    ]
    found = frechet_inception_distance(real, drawn, tmp_path / "inception.pt")
    assert found > 1e-3
    assert found == pytest.approx(frechet_distance(*map(Gaussian, features)), rel=1e-3)


def test_clip_score_is_the_cosine_of_picture_and_prompt(tmp_path: Path) -> None:
    words = tokenizer(tmp_path)
    part = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**part, "vocab_size": len(words), "max_position_embeddings": 12,
                     "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id},
        vision_config={**part, "image_size": 32, "patch_size": 8}, projection_dim=8,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    folder = tmp_path / "clip"
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    settings = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 32},
                "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_normalize": True,
                "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    drawn, prompts = pictures(3, 2), ["cat", "dog", "cat dog"]
    found = clip_score(drawn, prompts, folder)
    processor = CLIPImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        ids = words(prompts, padding=True, return_tensors="pt")
        output = model(**ids, pixel_values=processor(list(drawn), return_tensors="pt")["pixel_values"])
    cosines = (output.image_embeds * output.text_embeds).sum(1)
    assert found == pytest.approx(max(0.0, 100 * float(cosines.mean())), abs=1e-3)


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(pictures(1, number)[0]).save(tmp_path / f"{number}.png")
    assert read_pictures(tmp_path, (16, 24)).shape == (2, 16, 24, 3)
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2\.png is not a picture"):
        read_pictures(tmp_path, (16, 16))
    with pytest.raises(UserError, match="holds 0 pictures"):
        read_pictures(tmp_path / "missing", (16, 16))


def test_networks_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(b"no network")
    with pytest.raises(UserError, match="no TorchScript Inception"):
        frechet_inception_distance(pictures(2, 0), pictures(2, 1), tmp_path / "file.pt")
    with pytest.raises(UserError, match="holds no CLIP"):
        clip_score(pictures(2, 0), ["a", "b"], tmp_path)


def test_what_cannot_measure_is_told_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, real = tmp_path / "file.pt", tmp_path / "real"
    network.write_bytes(b"no network")
    real.mkdir()
    with pytest.raises(UserError, match="holds 0 pictures"):
        Standard(network, real)
    for number in range(2):
        Image.fromarray(pictures(1, number)[0]).save(real / f"{number}.png")
    with pytest.raises(UserError, match="no TorchScript Inception"):
        Standard(network, real)
    with pytest.raises(UserError, match="holds no CLIP"):
        Standard(clip=tmp_path)
    torch.jit.script(Inception().eval()).save(str(network))
    assert Standard(network, real).of(pictures(3, 2), ["a", "b", "c"])["fid"] > 0
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(UserError, match=r"need torchmetrics; pip install 'fick\[torch,metrics\]'"):
        Standard(network, real)
