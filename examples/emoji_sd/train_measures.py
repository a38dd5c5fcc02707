"""Trains what judges the pictures: a classifier of emoji categories, and a contrastive text-image model.

Both become ONNX files, so that whoever evaluates needs no torch. Neither is a standard measure: distances in
the classifier's features are not FID, and the contrastive model (Radford et al., arXiv 2103.00020, figure 3) is
not CLIP. They know emojis and nothing else.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from . import data, loop, models

BATCH = 128
WIDTH = 128
LEARNING_RATE = 2e-3
SMALLEST_HALVED = 1024  # elements


class Trunk(nn.Sequential):
    """[b, 3, 64, 64] in -1..1 to [b, WIDTH]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        before = 3
        for width in (32, 64, WIDTH, WIDTH):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU(),
            ]  # fmt: skip
            before = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Classifier(nn.Module):
    """Features, and the logits of the categories in the order of ``data.CATEGORIES``."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.head = nn.Linear(WIDTH, len(data.CATEGORIES))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(image)
        return features, self.head(features)


class ImageTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, image: Tensor) -> Tensor:
        return functional.normalize(self.head(self.trunk(image)), dim=1)


class TextTower(nn.Module):
    """A bag of tokens: enough for captions that are lists of words."""

    def __init__(self, vocabulary: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.head = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, input_ids: Tensor) -> Tensor:
        present = (input_ids != self.padding).float()[..., None]
        mean = (self.embedding(input_ids) * present).sum(1) / present.sum(1)
        return functional.normalize(self.head(mean), dim=1)


class Contrastive(nn.Module):
    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.image = ImageTower()
        self.text = TextTower(len(tokenizer), tokenizer.pad_token_id)
        self.log_scale = nn.Parameter(torch.tensor(2.6))


def classifier(
    pictures: Tensor,
    emojis: list[data.Emoji],
    flippable: Tensor,
    steps: int,
    folder: Path,
    device: torch.device,
) -> Classifier:
    torch.manual_seed(0)
    model = Classifier().to(device)
    labels = torch.tensor([emoji.label for emoji in emojis])

    def loss(step: int) -> Tensor:
        rows, images = _batch(step, pictures, flippable)
        _, logits = model(images.to(device))
        return functional.cross_entropy(logits.float(), labels[rows].to(device), label_smoothing=0.1)

    loop.train(loop.Stage("classifier", model, loss, steps, LEARNING_RATE), folder, device)
    return model.eval()


def contrastive(
    pictures: Tensor,
    emojis: list[data.Emoji],
    flippable: Tensor,
    tokenizer: CLIPTokenizer,
    steps: int,
    folder: Path,
    device: torch.device,
) -> Contrastive:
    torch.manual_seed(0)
    model = Contrastive(tokenizer).to(device)

    def loss(step: int) -> Tensor:
        rows, images = _batch(step, pictures, flippable)
        words = random.Random(step)
        ids = tokenise(tokenizer, [emojis[row].drawn_caption(words) for row in rows.tolist()])
        similarity = model.log_scale.exp() * model.image(images.to(device)) @ model.text(ids.to(device)).T
        same = torch.arange(len(rows), device=device)
        return (functional.cross_entropy(similarity, same) + functional.cross_entropy(similarity.T, same)) / 2

    loop.train(loop.Stage("contrastive", model, loss, steps, LEARNING_RATE), folder, device)
    return model.eval()


def tokenise(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    padded = tokenizer(
        captions, padding="max_length", max_length=models.MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return padded.input_ids


@torch.no_grad()
def accuracy(model: Classifier, pictures: Tensor, emojis: list[data.Emoji], device: torch.device) -> float:
    labels = torch.tensor([emoji.label for emoji in emojis])
    found = torch.cat([model(part.to(device))[1].argmax(1).cpu() for part in pictures.split(256)])
    return (found == labels).float().mean().item()


@torch.no_grad()
def retrieval(
    model: Contrastive,
    pictures: Tensor,
    emojis: list[data.Emoji],
    tokenizer: CLIPTokenizer,
    device: torch.device,
) -> float:
    """How often a picture's own caption is the nearest of sixteen, the others drawn at random."""
    images = torch.cat([model.image(part.to(device)) for part in pictures.split(256)])
    texts = model.text(tokenise(tokenizer, [emoji.caption() for emoji in emojis]).to(device))
    draw = torch.Generator().manual_seed(0)
    hits = 0
    for row in range(len(emojis)):
        others = torch.randperm(len(emojis), generator=draw)[:16]
        others = others[others != row][:15]
        similarity = texts[torch.cat([torch.tensor([row]), others])] @ images[row]
        hits += int(similarity.argmax() == 0)
    return hits / len(emojis)


def export(model: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    """As ONNX with an open batch, weights in half precision: whoever runs it widens them again."""
    program = torch.onnx.export(
        model.cpu(), (), kwargs=inputs, dynamo=True, output_names=outputs,
        dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in inputs}, verbose=False,
    )  # fmt: skip
    assert program is not None
    graph = program.model.graph
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype is not ir.DataType.FLOAT or tensor.size < SMALLEST_HALVED:
            continue
        half = ir.Value(name=f"{value.name}/half", const_value=ir.tensor(tensor.numpy().astype(np.float16)))
        widened = ir.node("Cast", [half], {"to": int(ir.DataType.FLOAT)})
        ir.convenience.replace_all_uses_with(value, widened.outputs[0])
        del graph.initializers[str(value.name)]
        graph.register_initializer(half)
        graph.insert_before(graph[0], widened)
    ir.save(program.model, path)


def _batch(step: int, pictures: Tensor, flippable: Tensor) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    rows = torch.randint(len(pictures), (BATCH,), generator=draw)
    return rows, data.augment(pictures[rows], flippable[rows], draw)
