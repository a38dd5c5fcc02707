"""The measures that papers report, for whoever has the networks: FID and CLIP score, by torchmetrics.

FID          Heusel et al., arXiv 1706.08500: the distance of two Gaussians in the features of Inception. The network
             is NVIDIA's inception-2015-12-05.pt, a TorchScript file that resizes as the original does. It says little
             below some thousand pictures, and pictures of 64 x 64 pixels are enlarged.
CLIP score   Hessel et al., arXiv 2104.08718: 100 x the cosine between a picture and its prompt in CLIP's space,
             from a folder of transformers. Of pictures unlike photographs it is a rough guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...ir.errors import UserError, first_line

BATCH = 32
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Standard:
    """What a user brought: the Inception network and a folder of real pictures, a folder of CLIP, or both.

    Raises UserError where one of them is missing or no such thing, and where torchmetrics is not installed.
    """

    inception: Path | None = None
    real: Path | None = None
    clip: Path | None = None

    def __post_init__(self) -> None:
        if (self.inception is None) != (self.real is None):
            raise UserError(
                "FID needs the network and the real pictures: give --inception and --real together."
            )
        for one in (self.inception, self.real, self.clip):
            if one is not None and not one.exists():
                raise UserError(
                    f"{one} is not there; give your Inception network, real pictures or CLIP by its path."
                )
        # Before any picture is drawn, and for that let go of: drawing may take hours, and the memory.
        if self.inception is not None and self.real is not None:
            _listed(self.real)
            _features(self.inception)
        if self.clip is not None:
            _scored_by(self.clip)

    def of(self, pictures: NDArray[np.uint8], prompts: Sequence[str]) -> dict[str, float]:
        """The measures of pictures [n, height, width, 3] drawn from prompts."""
        found: dict[str, float] = {}
        if self.inception is not None and self.real is not None:
            real = read_pictures(self.real, (pictures.shape[1], pictures.shape[2]))
            found["fid"] = frechet_inception_distance(real, pictures, self.inception)
        if self.clip is not None:
            found["clip_score"] = clip_score(pictures, prompts, self.clip)
        return found


def read_pictures(folder: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """All pictures of a folder, in order of name: [n, height, width, 3] of ``size`` (height, width).

    Raises UserError for a folder without two, or a file that is no picture.
    """
    found: list[NDArray[np.uint8]] = []
    for path in _listed(folder):
        try:
            with Image.open(path) as picture:
                found.append(
                    np.asarray(picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.LANCZOS))
                )
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is not a picture that can be read: {first_line(error)}.") from None
    return np.stack(found)


def _listed(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise UserError(f"{folder} holds {len(paths)} pictures; a distribution needs two or more.")
    return paths


def frechet_inception_distance(real: NDArray[np.uint8], drawn: NDArray[np.uint8], inception: Path) -> float:
    """FID between two sets of pictures [n, height, width, 3]."""
    torch, metrics = _torchmetrics()
    features, size = _features(inception), (3, *real.shape[1:3])
    fid = metrics.image.fid.FrechetInceptionDistance(feature=features, input_img_size=size)
    with torch.no_grad():
        for pictures, are_real in ((real, True), (drawn, False)):
            for part in _batches(torch, pictures):
                fid.update(part, real=are_real)
    return float(fid.compute())


def _features(inception: Path) -> Any:
    """The network as torchmetrics calls it."""
    torch, _ = _torchmetrics()
    try:
        network = torch.jit.load(str(inception), map_location="cpu").eval()
        width = int(network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), return_features=True).shape[1])
    except (RuntimeError, OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{inception} is no TorchScript Inception that returns features ({first_line(error)}); give NVIDIA's "
            "inception-2015-12-05.pt."
        ) from None

    class Features(torch.nn.Module):
        num_features = width

        def forward(self, pictures: Any) -> Any:
            return network(pictures, return_features=True)

    return Features()


def clip_score(pictures: NDArray[np.uint8], prompts: Sequence[str], clip: Path) -> float:
    """CLIP score of pictures [n, height, width, 3] and their prompts."""
    torch, _ = _torchmetrics()
    score = _scored_by(clip)
    with torch.no_grad():
        for start, part in zip(range(0, len(pictures), BATCH), _batches(torch, pictures), strict=True):
            score.update(part, list(prompts[start : start + BATCH]))
    return float(score.compute())


def _scored_by(clip: Path) -> Any:
    """The measure of torchmetrics by the networks in a folder."""
    torch, metrics = _torchmetrics()
    from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    class Projected(torch.nn.Module):
        """What newer transformers wrap, as torchmetrics expects it."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model, self.config = model, model.config

        def get_image_features(self, *arguments: Any, **named: Any) -> Any:
            return self.model.get_image_features(*arguments, **named).pooler_output

        def get_text_features(self, *arguments: Any, **named: Any) -> Any:
            return self.model.get_text_features(*arguments, **named).pooler_output

    def networks() -> tuple[Any, Any]:
        model = Projected(CLIPModel.from_pretrained(clip, local_files_only=True))
        # The parts by name: what chooses between them itself wants torchvision.
        processor = CLIPProcessor(
            CLIPImageProcessor.from_pretrained(clip, local_files_only=True),
            CLIPTokenizer.from_pretrained(clip, local_files_only=True),
        )
        return model, processor

    try:
        return metrics.multimodal.CLIPScore(model_name_or_path=networks)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{clip} holds no CLIP of transformers: {first_line(error)}.") from None


def _batches(torch: Any, pictures: NDArray[np.uint8]) -> list[Any]:
    whole = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    return list(whole.split(BATCH))


def _torchmetrics() -> tuple[Any, Any]:
    try:
        import torch
        import torchmetrics
        import torchmetrics.image.fid
        import torchmetrics.multimodal
    except ImportError:
        raise UserError("FID and CLIP score need torchmetrics; pip install 'fick[torch,metrics]'.") from None
    return torch, torchmetrics
