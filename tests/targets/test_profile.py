"""Which profile a machine gets, and that no register tile needs more registers than a core has."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.ir.errors import UserError
from fick.targets import profile as profiles
from fick.targets.cpu.register_tiles import Step, choose_tile

SHIPPED = [one for one in map(profiles.load, profiles.names()) if isinstance(one, profiles.Profile)]

PI_3 = "fp asimd evtstrm crc32 cpuid"
PI_5 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
PHONE = f"{PI_5} jscvt fcma flagm ssbs sb paca pacg dcpodp flagm2 frint i8mm bf16 bti"
LAPTOP = "fpu sse4_2 fma movbe popcnt avx f16c bmi1 avx2 bmi2"
SERVER = f"{LAPTOP} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("aarch64", PI_3, "cortex-a53"),
        ("aarch64", PI_5, "cortex-a76"),
        ("aarch64", PHONE, "cortex-x3"),
        ("x86_64", LAPTOP, "x86-64-v3"),
        ("x86_64", f"{LAPTOP} avx_vnni", "x86-64-v3-vnni"),
        ("x86_64", SERVER, "x86-64-v4"),
        ("x86_64", f"{SERVER} avx512_vnni", "x86-64-v4-vnni"),
        ("x86_64", f"{SERVER} avx512_vnni avx512_bf16 avx_vnni", "x86-64-v4-bf16"),
    ],
)
def test_the_host_is_the_most_that_a_machine_can_run(
    machine: str, flags: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags as /proc/cpuinfo gives them."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(profiles, "_cpu_flags", lambda: frozenset(flags.split()))
    assert profiles.load("host").name == name


@given(
    st.sampled_from(SHIPPED), st.integers(2, 5000), st.integers(1, 2000), st.integers(1, 2), st.integers(1, 2),
    st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_a_tile_fits_the_registers(
    profile: profiles.Profile, rows: int, columns: int, parts: int, held: int, shared: int, in_half: bool
) -> None:
    """Also where ``shared`` rows have their sums in the same ones, and where a vector has twice as many sums."""
    rows -= shared == 1  # a single one, too
    tile = choose_tile(rows, columns, parts, profile, Step(held, None, shared, in_half))
    vectors, left = divmod(tile.width * shared, tile.lanes)
    assert tile.lanes == profile.vector_lanes * (1 + in_half)
    assert not left and vectors % parts == 0 and tile.rows % shared == 0 and tile.rows <= rows
    factors = tile.rows if tile.by_lane else 1
    sums = tile.rows // shared * vectors
    assert sums + held * (vectors + factors) + held - 1 <= profile.vector_registers


def test_a_board_is_its_core_with_numbers_of_its_own(tmp_path: Path) -> None:
    core, board = profiles.load("cortex-a76"), profiles.load("rpi5")
    own = {"name", "base", "description", "memory_bytes"}
    assert board.base == "cortex-a76"
    assert board.model_dump(exclude=own) == core.model_dump(exclude=own)
    assert profiles.load("rpi4").requires == ("asimd",)
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nbase = "cortex-a76"\ndescription = "mine"\ncores = 2\n'
    )
    assert profiles.load(str(tmp_path / "mine.toml")).cores == 2
    (tmp_path / "mine.toml").write_text('base = "host"')
    with pytest.raises(UserError, match="base 'host' is not known"):
        profiles.load(str(tmp_path / "mine.toml"))
