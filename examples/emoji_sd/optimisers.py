"""How a stage takes its steps: by AdamW, or by Muon where a weight is a matrix."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

Parameters = dict[str, nn.Parameter]
Optimisers = Callable[[Parameters, float], list[Optimizer]]

WEIGHT_DECAY = 0.01
# Tables, and what comes from time and latents or goes to them, turn no features into features.
NOT_FEATURES = ("embedding", "conv_in", "conv_out")


def adamw(parameters: Parameters, learning_rate: float) -> list[Optimizer]:
    """AdamW for everything."""
    values = list(parameters.values())
    return [AdamW(values, learning_rate, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True)]


def muon(parameters: Parameters, learning_rate: float) -> list[Optimizer]:
    """Muon (Jordan et al., 2024) for weights between features, AdamW for the rest, at the same learning rate: Muon's
    steps are scaled to the size of AdamW's (Liu et al., arXiv 2502.16982, equation 4)."""
    between = {
        name: weight
        for name, weight in parameters.items()
        if weight.ndim > 1 and not any(part in name for part in NOT_FEATURES)
    }
    rest = {name: weight for name, weight in parameters.items() if name not in between}
    return [MatrixMuon(list(between.values()), learning_rate), *adamw(rest, learning_rate)]


class MatrixMuon(Muon):
    """torch's Muon, which takes matrices alone, over convolutions as well, as matrices of [outputs, the rest]."""

    def __init__(self, weights: list[nn.Parameter], learning_rate: float) -> None:
        self.weights = weights
        self.matrices = [nn.Parameter(_matrix(weight.data)) for weight in weights]
        # A copy would be trained in the weight's place.
        assert all(a.data_ptr() == b.data_ptr() for a, b in zip(weights, self.matrices, strict=True))
        super().__init__(
            self.matrices, learning_rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        )

    def step(self, closure=None):
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = _matrix(weight.grad)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


def _matrix(weight: Tensor) -> Tensor:
    """In the order in which memory holds a convolution that is channels-last, so that it stays a view."""
    if weight.ndim == 4 and not weight.is_contiguous():
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
