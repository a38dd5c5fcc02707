"""Our PNG writer, read back by Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from fick.runtime import FickError, png


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (64, 48, 3)])
def test_pixels_come_back(shape, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    png.save(pixels, tmp_path / "x.png")
    with Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())) as file:
        np.testing.assert_array_equal(np.asarray(file), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_a_place_that_is_not_there():
    with pytest.raises(FickError, match="cannot write"):
        png.save(np.zeros((1, 1, 3), np.uint8), "no/such/folder/x.png")
