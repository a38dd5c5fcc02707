"""Arrays in a file come back as they were, however they lay in memory."""

from __future__ import annotations

import numpy as np
import safetensors.numpy as safetensors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from fick.ir.arrays import arrays_file

NUMBERS = st.sampled_from([np.float32, np.float16, np.int64, np.int8, np.uint8])


@given(arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, min_side=0)), st.booleans())
def test_arrays_come_back(array: NDArray[np.generic], turned: bool) -> None:
    given = array.T if turned else array
    (back,) = safetensors.load(arrays_file({"one": given})).values()
    assert back.dtype == given.dtype and back.shape == given.shape
    np.testing.assert_array_equal(back, given)
