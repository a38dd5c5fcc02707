"""Programs whose steps run different variants, through the whole compiler, against the referee's loop."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy as safetensors

import fick
from fick.compiler.bundle.build import tensors
from fick.compiler.bundle.repack import repack
from fick.compiler.inspection import inspect_bundle
from fick.ir.interpreter import Interpreter
from fick.ir.saved import pack, unpack
from fick.runtime import Cancelled, FickError, Model

from . import scheduled
from .scheduled import SCHEDULE, calls

STALE = 10
"""FICK_ERROR_STATE of fick.h."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scheduled")
    return scheduled.bundle(folder / "mixed.fick", scheduled.imported(), recipe=scheduled.recipe())


@pytest.fixture
def model(path: Path) -> Iterator[Model]:
    with fick.load(path, threads=2) as opened:
        assert isinstance(opened, Model)
        yield opened


def close(got: np.ndarray, wanted: np.ndarray) -> None:
    """Values are around one to four; a layer sums 576 products, each step adds to what the one before left, and ten
    steps err by less than 1e-4 of them together.
    """
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


def test_a_loop_computes_what_the_referee_computes(model: Model) -> None:
    referee = Interpreter(scheduled.program())
    assert model.alternatives == ("full", "cached", "moving", "swapping")
    assert model.schedules == {len(SCHEDULE): SCHEDULE}
    for _ in range(2):
        model.begin()
        referee.begin()
        for variant, call in zip(SCHEDULE, calls(), strict=True):
            close(model.run(variant=variant, **call)["y"], referee(call, variant)["y"])


def test_state_is_written_where_it_is_read_unless_it_is_read_before(model: Model) -> None:
    """ "full" computes into the state; the others copy what they still read, or what lies otherwise."""
    copies = [(call.variant, call.node) for call in model.profile() if call.node.startswith("state")]
    assert copies == [
        ("moving", "state mean"),
        ("moving", "state deep"),
        # What is read of the two is taken before either is overwritten.
        *[("swapping", "state mean"), ("swapping", "state deep")] * 2,
    ]


def test_what_nothing_has_left_is_refused(model: Model) -> None:
    call = calls(1)[0]
    said = "variant cached reads deep, which no run has left since the picture began; run full first"
    for restart in (lambda: None, lambda: (model.run(**call), model.begin())):
        restart()
        with pytest.raises(FickError, match=said) as caught:
            model.run(variant="cached", **call)
        assert caught.value.code == STALE
    model.run(**call)
    left = model.run(variant="cached", **call)["y"]
    with pytest.raises(FickError, match="the model has no alternative prompt"):
        model.run(variant="prompt", **call)
    # What was refused has changed nothing, and the choice is of one run alone.
    np.testing.assert_array_equal(model.run(variant="cached", **call)["y"], left)


@pytest.mark.parametrize("variant", ["full", "moving"])
def test_a_cancelled_run_leaves_nothing_to_read(model: Model, variant: str) -> None:
    first, second = calls(2)
    model.run(**first)
    with pytest.raises(Cancelled):
        # What precedes the variant's own calls is kept from before; this stops in the midst of them.
        model.run(variant=variant, progress=lambda done, total: done == total - 1, **first)
    with pytest.raises(FickError, match="variant cached reads deep, which no run has left"):
        model.run(variant="cached", **second)
    wanted = Interpreter(scheduled.program())
    for name, call in (("full", second), ("cached", first)):
        close(model.run(variant=name, **call)["y"], wanted(call, name)["y"])


def test_a_variant_that_leaves_nothing_may_be_cancelled(model: Model) -> None:
    first, second = calls(2)
    model.run(**first)
    wanted = model.run(variant="cached", **second)["y"]
    with pytest.raises(Cancelled):
        model.run(variant="cached", progress=lambda done, total: done > 0, **first)
    np.testing.assert_array_equal(model.run(variant="cached", **second)["y"], wanted)


def test_branches_have_a_state_each(model: Model) -> None:
    before = model.memory.state_bytes
    model.begin(2)
    # A copy of two values of 64 x 8 x 8 numbers.
    assert model.memory.state_bytes - before == 2 * 4 * 64 * 8 * 8
    referees = [Interpreter(scheduled.program()) for _ in range(2)]
    theirs = [calls(seed=1), calls(seed=2)]
    for index, variant in enumerate(SCHEDULE):
        for branch, referee in enumerate(referees):
            call = theirs[branch][index]
            close(model.run(variant=variant, branch=branch, **call)["y"], referee(call, variant)["y"])
    model.begin()
    model.run(**theirs[0][0])
    assert model.memory.state_bytes == before
    for branch in (1, -1, 2**32):
        with pytest.raises(FickError, match=r"there is no branch -?\d+; fick_begin made 1"):
            model.run(variant="cached", branch=branch, **theirs[0][0])
    for branches in (0, 65, 2**32 + 1):
        with pytest.raises(FickError, match=r"fick_begin: \d+ branches; give 1 to 64"):
            model.begin(branches)


def test_a_branch_that_has_no_room_is_refused(path: Path) -> None:
    """Weights that do not fit are read again at every step: the least is what the largest call reads of them."""
    with pytest.raises(FickError, match="bytes at least and the limit is 1") as refused:
        fick.load(path, memory_limit_bytes=1)
    least = int(re.findall(r"needs (\d+) bytes", str(refused.value))[0])
    # The steps' table comes on top; there are none yet.
    with fick.load(path, memory_limit_bytes=least) as tight:
        assert isinstance(tight, Model)
        first, second = calls(2)
        tight.run(**first)
        with pytest.raises(FickError, match="bytes at least and the limit is"):
            tight.begin(2)
        tight.run(variant="cached", **second)
    with pytest.raises(FickError, match="bytes at least and the limit is"):
        fick.load(path, memory_limit_bytes=least - 1)


def test_only_full_is_the_model_without_a_schedule(tmp_path: Path) -> None:
    """To the bit, with the same weights packed once, though another variant reads them too."""
    plain = scheduled.bundle(tmp_path / "plain.fick", scheduled.imported(state=False))
    cached = scheduled.recipe("full", "cached")
    both = scheduled.bundle(tmp_path / "both.fick", scheduled.imported(), recipe=cached)
    with fick.load(plain) as one, fick.load(both) as other:
        for call in calls(3):
            np.testing.assert_array_equal(one.run(**call)["y"], other.run(**call)["y"])
        assert one.memory.weights_bytes == other.memory.weights_bytes
        # deep, and mean, which nothing of these reads but the program keeps.
        assert other.memory.state_bytes - one.memory.state_bytes == 2 * 4 * 64 * 8 * 8
        assert other.manifest["memory"]["peak_bytes"] == other.memory.peak_bytes - other.memory.table_bytes


@pytest.mark.parametrize(
    ("schedule", "format"),
    [
        (("full", "cached", "cached"), "bfloat16"),
        # One leaves another's transpose, which is as wide as what it reads: then the state is.
        (tuple(SCHEDULE), "float32"),
    ],
)
def test_values_stored_narrow_are_left_narrow(schedule: tuple[str, ...], format: str, tmp_path: Path) -> None:
    """As far as every variant leaves them so. What the referee keeps is what is widened again."""
    recipe = scheduled.recipe(*schedule)
    given = scheduled.bundle(
        tmp_path / "narrow.fick", scheduled.imported(), recipe=recipe, precision="bfloat16"
    )
    referee = Interpreter(scheduled.program(*schedule, precision="bfloat16"))
    with fick.load(given) as model:
        state = model.manifest["components"]["unet"]["state"]
        assert {one["dtype"] for one in state.values()} == {format}
        for variant, call in zip(schedule, calls(len(schedule)), strict=True):
            got, wanted = model.run(variant=variant, **call)["y"], referee(call, variant)["y"]
            # Rounding to 8 bits of sums that differ by single roundings may fall to either side.
            assert np.std(got - wanted) < 2e-3 * np.std(wanted)


class TestGenerate:
    """The loop of a bundle: what the schedule says, whatever happened before."""

    def by_hand(self, order: list[str], branches: int = 1) -> np.ndarray:
        """The consistency sampler's loop over the referee, noise drawn from seed 3."""
        from fick.runtime.loop import guided
        from fick.runtime.noise import Noise
        from fick.runtime.samplers import create

        loop = create({"kind": "consistency", "sigma_min": 0.002, "sigmas": LEVELS[: len(order)]}, None)
        rng = Noise(3)
        x = loop.initial(rng.standard_normal((1, scheduled.CHANNELS, scheduled.SIZE, scheduled.SIZE)))
        referees = [Interpreter(scheduled.program()) for _ in range(branches)]
        for index, variant in enumerate(order):
            outputs = [
                referee({"x": x, "t": loop.steps[index : index + 1], "p": PROMPTS[branch]}, variant)["y"]
                for branch, referee in enumerate(referees)
            ]
            output = outputs[0] if branches == 1 else guided(outputs[0], outputs[1], 2.0)
            x = loop.step(output, index, x, rng)
        return x

    def test_runs_its_schedule(self, model: Model) -> None:
        close(model.generate(seed=3, p=PROMPTS[0]), self.by_hand(SCHEDULE))

    def test_guidance_by_two_calls_a_step(self, model: Model) -> None:
        got = model.generate(seed=3, p=PROMPTS[0], guidance_scale=2.0, unconditional={"p": PROMPTS[1]})
        close(got, self.by_hand(SCHEDULE, branches=2))

    def test_a_loop_that_was_cancelled_leaves_no_trace(self, model: Model) -> None:
        wanted = model.generate(seed=3, p=PROMPTS[0]).tobytes()
        for stop_at in (1, 4, 8):
            with pytest.raises(Cancelled):
                model.generate(seed=4, p=PROMPTS[1], progress=lambda done, total, at=stop_at: done == at)
            assert model.generate(seed=3, p=PROMPTS[0]).tobytes() == wanted
        timer = threading.Timer(0.01, model.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            while True:
                model.generate(seed=4, p=PROMPTS[1])
        assert model.generate(seed=3, p=PROMPTS[0]).tobytes() == wanted

    def test_another_number_of_steps_follows_by_position(self, model: Model) -> None:
        sampler = {"kind": "consistency", "sigma_min": 0.002, "sigmas": LEVELS[:4]}
        with pytest.warns(UserWarning, match="loops of 10 calls, and 4 follow that for 10 by position"):
            got = model.generate(seed=3, p=PROMPTS[0], sampler=sampler)
        # full in steps 0 to 2; none in 2 to 5, 5 to 8 has the other one, and 7 to 10 begins with a swap.
        close(got, self.by_hand(["full", "moving", "full", "swapping"]))


LEVELS = [1.5, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
PROMPTS = [calls(1, seed)[0]["p"] for seed in (5, 6)]


def test_new_weights_in_an_old_bundle(path: Path, tmp_path: Path) -> None:
    """The bytes of compiling the other checkpoint, schedule and all."""
    other = scheduled.imported(seed=9)
    wanted = scheduled.bundle(tmp_path / "fresh.fick", scheduled.imported(seed=9), recipe=scheduled.recipe())
    weights = {name: array for name, array in tensors(other.model).items() if name in other.weights}
    safetensors.save_file(weights, tmp_path / "weights.safetensors")
    repack(path, tmp_path / "weights.safetensors", tmp_path / "new.fick")
    assert (tmp_path / "new.fick").read_bytes() == wanted.read_bytes()


def test_a_saved_program_keeps_schedule_and_state() -> None:
    program = scheduled.program()
    back = unpack(pack(program))
    assert (back.schedule, back.state) == (program.schedule, program.state) != ({}, {})
    assert back.alternatives == program.alternatives


def macs(variant: str) -> int:
    """Multiply-accumulates of the convolutions of 64 channels, by hand."""
    whole, half, channels = scheduled.SIZE**2, scheduled.SIZE**2 // 4, scheduled.CHANNELS**2 * 9
    cached = whole * channels + whole * 2 * channels
    return cached + (2 * half * channels if variant in ("full", "moving") else 0)


def test_inspect_shows_variants_state_and_schedules(path: Path) -> None:
    facts = inspect_bundle(path)["components"]["unet"]
    assert {
        name: one["macs"] for name, one in facts["variants"].items() if name not in ("prompt", "step")
    } == {name: macs(name) for name in scheduled.TEXTS}
    assert facts["state"]["deep"] == "float32[1, 64, 8, 8] of 16384 bytes"
    assert facts["schedules"] == {
        "10": {
            "order": " ".join(SCHEDULE),
            "runs": {"full": 2, "cached": 3, "moving": 2, "swapping": 3},
            "macs": 4 * macs("full") + 6 * macs("cached"),
        }
    }


@pytest.mark.parametrize("steps", [3, 6])
def test_an_estimate_adds_up_what_the_schedule_runs(steps: int, tmp_path: Path) -> None:
    """Of twice the steps, the same shares: full, full, and four times cached."""
    given = scheduled.bundle(
        tmp_path / "given.fick", scheduled.imported(), recipe=scheduled.recipe("full", "cached", "cached")
    )
    made = fick.estimate(given, "systolic-32x32", steps=steps)
    runs = {one["variant"]: one["runs"] for one in made["operators"]}
    assert runs == {"prompt": 1, "step": steps, "full": steps // 3, "cached": 2 * steps // 3}
    assert made["macs"] == pytest.approx((macs("full") + 2 * macs("cached")) / 3)
    cycles = dict.fromkeys(runs, 0)
    for one in made["operators"]:
        cycles[one["variant"]] += one["cycles"]
    assert 0 < cycles["cached"] < cycles["full"]
    mean = cycles["step"] + (cycles["full"] + 2 * cycles["cached"]) / 3
    assert made["step_cycles"] == pytest.approx(mean, abs=1)  # in whole cycles
