"""The loop that trains emoji-sd: what is cut and goes on ends where an unbroken run does."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from emoji_sd import loop, optimisers

CPU = torch.device("cpu")


class Cut(Exception):
    pass


class Net(nn.Module):
    """Layers, and a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 5)
        )
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * self.layers(images)


def model() -> nn.Module:
    torch.manual_seed(0)
    return Net().to(memory_format=torch.channels_last)


def trained(folder: Path, chosen: optimisers.Optimisers, cut: int | None = None) -> dict[str, torch.Tensor]:
    """The averaged weights after 8 steps; `cut` is the step that never comes."""
    net = model()

    def loss(step: int) -> torch.Tensor:
        if step == cut:
            raise Cut
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        return (net(images) - images.mean((1, 2, 3))[:, None]).square().mean().float()

    loop.train(loop.Stage("net", net, loss, 8, 1e-2, optimisers=chosen), folder, CPU)
    return net.state_dict()


@pytest.mark.parametrize("chosen", [optimisers.adamw, optimisers.muon])
def test_a_run_that_is_cut_goes_on(
    chosen: optimisers.Optimisers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", chosen)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    with pytest.raises(Cut):
        trained(tmp_path / "cut", chosen, cut=5)
    resumed = trained(tmp_path / "cut", chosen)
    assert {name for name, value in whole.items() if not torch.equal(value, resumed[name])} == set()


@pytest.mark.parametrize("chosen", [optimisers.adamw, optimisers.muon])
def test_every_weight_is_trained(chosen: optimisers.Optimisers, tmp_path: Path) -> None:
    begun, done = model().state_dict(), trained(tmp_path, chosen)
    assert {name for name, value in begun.items() if torch.equal(value, done[name])} == set()


def test_steps_of_muon_are_orthogonal() -> None:
    """A step is the nearest orthogonal matrix to the gradient, nearly, at 0.2 sqrt(longer side) of the rate."""
    weight = nn.Parameter(torch.zeros(16, 4, 3, 3).to(memory_format=torch.channels_last))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimisers.MatrixMuon([weight], 1e-2).step()
    spread = torch.linalg.svdvals(weight.detach().flatten(1)) / (0.2 * 36**0.5 * 1e-2)
    # Its polynomial takes singular values to between 0.5 and 1.5, as torch says of it.
    assert spread.min() > 0.5 and spread.max() < 1.5
