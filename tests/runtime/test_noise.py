"""Noise against torch's own, from the same seed."""

import numpy as np
import pytest
import torch

from fick.runtime.noise import Noise


@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5, 2**40 + 3])
def test_the_stream_is_torch_s(seed):
    """To two units in the last place of numbers up to about five: logarithm and cosine are not torch's own."""
    theirs, ours = torch.Generator().manual_seed(seed), Noise(seed)
    for shape in ((1, 4, 16, 16), (3, 7, 11), (16,), (1, 3, 64, 64), (17,)):
        wanted = torch.randn(shape, generator=theirs).numpy()
        np.testing.assert_allclose(ours.standard_normal(shape), wanted, rtol=0, atol=2 * 2.0**-22)


def test_few_numbers_are_normal_too():
    drawn = np.concatenate([Noise(seed).standard_normal((3,)) for seed in range(2000)])
    assert abs(drawn.mean()) < 4 / len(drawn) ** 0.5 and abs(drawn.std() - 1) < 4 / (2 * len(drawn)) ** 0.5
