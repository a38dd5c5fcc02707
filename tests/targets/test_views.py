"""Views against NumPy's own strides, over drawn shapes."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fick.targets.views import View, merge_axes

EXTENTS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def array_of(view: View, base: np.ndarray) -> np.ndarray:
    steps = [stride * base.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(base[view.offset :], view.shape, steps)


@st.composite
def dense_views(draw):
    shape = draw(EXTENTS)
    return View.dense("b", shape, draw(st.permutations(range(len(shape)))))


@st.composite
def factorisations(draw, count: int):
    shape = []
    while count > 1:
        factor = draw(st.sampled_from([size for size in range(2, count + 1) if count % size == 0]))
        shape.append(factor)
        count //= factor
    return [*shape, *[1] * draw(st.integers(0, 1))]


@given(dense_views(), st.data())
def test_reshape_is_a_view_exactly_where_numpy_finds_one(view, data):
    shape = data.draw(factorisations(view.count))
    base = np.arange(view.count)
    wanted = array_of(view, base).reshape(shape)
    found = view.reshape(shape)
    if found is None:
        assert not np.shares_memory(wanted, base)
    else:
        np.testing.assert_array_equal(array_of(found, base), wanted)


@given(dense_views(), st.data())
def test_transpose_slice_and_expand_match_numpy(view, data):
    base = np.arange(view.count)
    array = array_of(view, base)
    order = data.draw(st.permutations(range(len(view.shape))))
    np.testing.assert_array_equal(array_of(view.transpose(order), base), array.transpose(order))
    axis = data.draw(st.integers(0, len(view.shape) - 1))
    start = data.draw(st.integers(0, view.shape[axis] - 1))
    step = data.draw(st.integers(1, 3))
    extent = len(range(start, view.shape[axis], step))
    index = (slice(None),) * axis + (slice(start, None, step),)
    np.testing.assert_array_equal(array_of(view.slice(axis, start, extent, step), base), array[index])
    wide = (2, *(3 if size == 1 else size for size in view.shape))
    np.testing.assert_array_equal(array_of(view.expand(wide), base), np.broadcast_to(array, wide))


@given(dense_views())
def test_merged_axes_visit_the_same_elements_in_the_same_order(view):
    extents, (strides,) = merge_axes(view.shape, [view.strides])
    assert math.prod(extents) == view.count
    merged = View("b", extents, strides)
    base = np.arange(view.count)
    np.testing.assert_array_equal(array_of(merged, base).ravel(), array_of(view, base).ravel())
