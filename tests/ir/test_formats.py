"""Formats of few bits against ml_dtypes, where it has the type, and against their own tables."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.ir.formats import FLOATS, INTEGERS, FloatFormat, IntegerFormat, format_called

TWINS = {
    "e5m2": ml_dtypes.float8_e5m2, "e4m3": ml_dtypes.float8_e4m3, "e3m4": ml_dtypes.float8_e3m4,
    "e4m3b11": ml_dtypes.float8_e4m3b11fnuz, "e2m1": ml_dtypes.float4_e2m1fn, "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
}  # fmt: skip
"""The same numbers, but for the codes that those of ml_dtypes give to infinity and NaN."""

EVERY = [
    *FLOATS.values(),
    *INTEGERS.values(),
    FloatFormat(2, 1, 4),
    FloatFormat(1, 2, -3),
    FloatFormat(4, 3, 11),
]


@pytest.mark.parametrize("name", TWINS)
def test_codes_are_those_of_ml_dtypes(name: str) -> None:
    format, twin = format_called(name), TWINS[name]
    codes = np.arange(1 << format.bits, dtype=np.uint8)
    known = codes.view(twin).astype(np.float32)
    finite = np.isfinite(known)
    assert finite.sum() > 0.8 * codes.size
    np.testing.assert_array_equal(format.values[finite], known[finite])
    np.testing.assert_array_equal(format.encode(known[finite & (known != 0)]), codes[finite & (known != 0)])


@pytest.mark.parametrize("name", TWINS)
@given(st.lists(st.floats(-1.125, 1.125, width=32), min_size=1, max_size=40), st.integers(-16, 0))
def test_numbers_are_rounded_as_by_ml_dtypes(name: str, drawn: list[float], power: int) -> None:
    format, twin = format_called(name), TWINS[name]
    numbers = np.array(drawn, np.float32) * np.float32(format.largest * 2.0**power)
    with np.errstate(over="ignore"):
        wanted = numbers.astype(twin).astype(np.float32)
    reached = np.isfinite(wanted) & (np.abs(numbers) <= ml_dtypes.finfo(twin).max)
    np.testing.assert_array_equal(format.rounded(numbers)[reached], wanted[reached])


@pytest.mark.parametrize("format", EVERY, ids=lambda one: one.name)
@given(st.lists(st.floats(-4, 4), min_size=1, max_size=40))
def test_the_nearest_number_and_of_two_the_even_code(
    format: FloatFormat | IntegerFormat, drawn: list[float]
) -> None:
    numbers = np.array(drawn) * format.largest / 2
    got = format.rounded(numbers)
    distances = np.abs(format.values[None, :].astype(np.float64) - numbers[:, None])
    np.testing.assert_array_equal(np.abs(got - numbers), distances.min(1))
    tied = (distances == distances.min(1)[:, None]) & (format.values != got[:, None])
    assert not (tied.any(1) & (format.encode(got) % 2 == 1)).any()


@pytest.mark.parametrize("format", EVERY, ids=lambda one: one.name)
def test_names_and_codes_lead_back(format: FloatFormat | IntegerFormat) -> None:
    assert format_called(format.name) == format
    codes = np.arange(1 << format.bits, dtype=np.uint8)
    np.testing.assert_array_equal(format.encode(format.decode(codes)), codes)
    assert len(np.unique(format.values)) >= codes.size - 1  # of floats, two zeros
    between = (np.sort(format.values)[1:] + np.sort(format.values)[:-1]) / 2
    with pytest.raises(ValueError, match="not all of the numbers"):
        format.encode(between[between != 0])
    for end, far in ((format.largest, 3e38), (format.smallest, -3e38)):
        assert format.rounded(np.array([far]))[0] == end


def test_a_name_of_no_format() -> None:
    with pytest.raises(ValueError, match="no number format 'int3'"):
        format_called("int3")
