"""The memory plan never lets two living buffers overlap, and never needs more than all of them at once."""

from hypothesis import given
from hypothesis import strategies as st

from fick.targets.memory import ALIGNMENT_BYTES, Lifetime, aligned, plan

LIFETIMES = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 8)), min_size=1, max_size=40
)


@given(LIFETIMES)
def test_living_buffers_are_apart(drawn):
    items = [Lifetime(f"b{i}", size, first, first + more) for i, (size, first, more) in enumerate(drawn)]
    offsets, total = plan(items)
    for index, one in enumerate(items):
        assert offsets[one.name] % ALIGNMENT_BYTES == 0
        assert offsets[one.name] + one.size_bytes <= total
        for other in items[:index]:
            if one.first <= other.last and other.first <= one.last:
                assert (
                    offsets[one.name] + one.size_bytes <= offsets[other.name]
                    or offsets[other.name] + other.size_bytes <= offsets[one.name]
                )
    at_once = max(
        sum(aligned(item.size_bytes) for item in items if item.first <= time <= item.last)
        for time in range(30)
    )
    assert at_once <= total <= sum(aligned(item.size_bytes) for item in items)


def test_buffers_that_never_meet_share_their_bytes():
    chain = [Lifetime(f"b{i}", 1000, i, i + 1) for i in range(10)]
    assert plan(chain)[1] == 2 * aligned(1000)
