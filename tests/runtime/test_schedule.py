"""Schedules for loops of other lengths than they were made for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.runtime import FickError
from fick.runtime.schedule import nearest, order, read, whole

LETTERS = {"F": "full", "C": "cached", "D": "deeper"}


def run(letters: str) -> list[str]:
    return [LETTERS[one] for one in letters]


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        ("FCFC", "FCFC"),
        ("FCFC", "FFCCFFCC"),
        ("FCCCFCCC", "FCFC"),
        # Five steps in three: the second takes 5/3 to 10/3 of them, a full one among these.
        ("FCCFC", "FFF"),
        # One in two thirds of a step: what falls into a full one, however little, is full.
        ("FC", "FFC"),
        ("FDC", "FDC"),
        ("FDCDDC", "FCD"),
        ("FCCCCCCCCC", "F"),
        ("F", "FFFF"),
    ],
)
def test_by_relative_position(made: str, wanted: str) -> None:
    assert order({len(made): run(made)}, len(wanted)) == run(wanted)


@pytest.mark.parametrize(
    "schedules",
    [
        {"2": ["full", "odd"]},
        {"3": ["full"]},
        {"0": []},
        {"many": []},
        {"2": 2},
        {"1": [["full"]]},
        ["full"],
        3,
        None,
    ],
)
def test_a_damaged_manifest_is_a_sentence(schedules: object) -> None:
    manifest = {"components": {"unet": {"schedules": schedules}}}
    with pytest.raises(FickError, match="the bundle's schedules of unet do not fit its code"):
        read(manifest, "unet", ["full", "cached"])


def test_a_manifest_says_which() -> None:
    manifest = {"components": {"unet": {"schedules": {"2": ["full", "cached"]}}, "vae": {}}}
    assert read(manifest, "unet", ["full", "cached"]) == {2: ["full", "cached"]}
    assert read(manifest, "vae", ["full"]) == read({}, "unet", ["full"]) == {}


def test_the_first_call_is_full_wherever_the_loop_begins() -> None:
    assert order({5: run("FCCCC")}, 5, first=2) == run("FCFCC")
    assert order({}, 3, first=1) == run("FFF")


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        # As many full steps as with one that knows nothing of before, and none that forgets what was there.
        ("FCACAC", "FCACAC"),
        ("FCCACCACC", "FAA"),
        ("FCACA", "FFCCAACCAA"),
        ("FCCCCACCCC", "FCACC"),
    ],
)
def test_what_leaves_as_much_as_full_is_kept_in_other_loops(made: str, wanted: str) -> None:
    letters = {"A": "again", **LETTERS}
    names, again = [letters[one] for one in made], [letters[one] for one in wanted]
    assert order({len(made): names}, len(wanted), whole=("full", "again")) == again


def test_a_manifest_says_what_leaves_everything() -> None:
    def manifest(*left_by: object) -> dict[str, object]:
        state = {str(place): {"left_by": one} for place, one in enumerate(left_by)}
        return {"components": {"unet": {"state": state}}}

    names = ["full", "again", "gated"]
    assert whole(manifest(names, ["full", "again"]), "unet", names) == ["full", "again"]
    assert whole(manifest(), "unet", names) == whole({}, "unet", names) == ["full"]
    assert whole({"components": {"unet": {"state": {"a": {}}}}}, "unet", names) == ["full"]
    for damaged in (manifest(3), {"components": {"unet": {"state": [1]}}}, {"components": []}):
        with pytest.raises(FickError, match="what the bundle says of the state of unet is damaged"):
            whole(damaged, "unet", names)


def test_the_nearest_is_that_of_the_least_ratio() -> None:
    schedules = {10: run("F" * 10), 40: run("F" * 40)}
    assert [nearest(schedules, calls) for calls in (1, 10, 19, 20, 21, 40, 1000)] == [
        10,
        10,
        10,
        40,
        40,
        40,
        40,
    ]
    assert nearest({}, 3) is None


@given(
    st.lists(st.sampled_from("CDF"), max_size=30).map(lambda rest: ["F", *rest]),
    st.integers(1, 60),
    st.data(),
)
def test_nothing_is_read_that_was_left_longer_ago(made: list[str], calls: int, data: st.DataObject) -> None:
    """As a share of the loop; and the alternatives are those of the schedule."""
    first = data.draw(st.integers(0, calls - 1))
    got = order({len(made): run("".join(made))}, calls, first)
    assert len(got) == calls and got[first] == "full" and set(got) <= set(run("".join(made)))

    def longest(letters: list[str]) -> float:
        ages, age = [0.0], 0
        for one in letters:
            age = 0 if one == "full" else age + 1
            ages.append(age / len(letters))
        return max(ages)

    assert longest(got) <= longest(run("".join(made))) + 1e-9
