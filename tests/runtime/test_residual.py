"""Less noise for what a rounding model's output is off by, held to the closed forms of Gaussian data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fick.runtime import FickError, samplers
from fick.runtime.samplers import Residual

SHAPE = (1, 4, 8, 8)
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STOCHASTIC: dict[str, dict[str, Any]] = {
    "ddpm": {"kind": "ddpm", "clip_sample": False},
    "ddpm of large variance": {"kind": "ddpm", "clip_sample": False, "variance_type": "fixed_large"},
    "ddim": {"kind": "ddim", "clip_sample": False, "eta": 1.0},
    "ddim of less noise": {"kind": "ddim", "clip_sample": False, "eta": 0.4},
    "euler-ancestral": {"kind": "euler-ancestral"},
}
DETERMINISTIC: dict[str, dict[str, Any]] = {
    "ddim": {"kind": "ddim", "eta": 0.0},
    "dpm-solver++": {"kind": "dpm-solver++"},
    "euler": {"kind": "euler"},
    "plms": {"kind": "plms"},
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def table(deviation: float, *timesteps: float) -> Residual:
    steps = timesteps or (0.0,)
    return Residual.of({"timesteps": list(steps), "covariance": [[[deviation**2]]] * len(steps)})


class Given:
    """The same number wherever noise is drawn."""

    def __init__(self, number: float) -> None:
        self.number, self.draws = number, 0

    def standard_normal(self, shape: Any) -> NDArray[np.float64]:
        self.draws += 1
        return np.full(shape, self.number)


def one(number: float) -> NDArray[np.float32]:
    return np.full((1,), number, np.float32)


def factors(sampler: samplers.Sampler, index: int) -> tuple[float, float, float]:
    """A, B and sigma of a step, which is affine in the sample, the output and the noise."""

    def result(output: float, x: float, noise: float) -> float:
        return float(sampler.step(one(output), index, one(x), Given(noise))[0])

    start = result(0, 0, 0)
    return result(0, 1, 0) - start, result(1, 0, 0) - start, result(0, 0, 1) - start


@pytest.mark.parametrize("name", STOCHASTIC)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("count", [3, 20])
def test_the_noise_is_less_by_what_the_error_adds(name: str, prediction: str, count: int) -> None:
    spec = {**STOCHASTIC[name], **STABLE_DIFFUSION, "prediction_type": prediction}
    deviation = 0.02
    plain, aware = (samplers.create(spec, count, one) for one in (samplers.NOTHING, table(deviation)))
    taken = 0.0
    for index in range(count):
        a, b, sigma = factors(plain, index)
        with_table = factors(aware, index)
        wanted = max(sigma**2 - (b * deviation) ** 2, 0) ** 0.5
        # Float32 results, of which sigma is a difference: a few of their roundings at the largest level, 15.
        assert with_table == pytest.approx((a, b, wanted), abs=4e-6 * max(1, abs(b), sigma))
        taken += sigma - wanted
    assert taken > 1e-4


@pytest.mark.parametrize("name", STOCHASTIC)
def test_an_error_beyond_the_noise_leaves_none(name: str) -> None:
    aware = samplers.create({**STOCHASTIC[name], **STABLE_DIFFUSION}, 10, table(100.0))
    assert all(factors(aware, index)[2] == 0 for index in range(10))


def test_a_consistency_model_s_error_is_the_next_sample_s() -> None:
    spec = {"kind": "consistency", "sigmas": [80.0, 24.0, 6.0, 0.5]}
    plain, aware = (samplers.create(spec, None, one) for one in (samplers.NOTHING, table(0.7)))
    for index in range(3):
        a, b, sigma = factors(plain, index)
        assert (a, b) == (0, 1)
        assert factors(aware, index) == pytest.approx((0, 1, max(sigma**2 - 0.49, 0) ** 0.5), rel=1e-6)


def gaussian(
    sampler: samplers.Sampler, index: int, x: NDArray[np.float32], abar: float
) -> NDArray[np.float64]:
    """The noise that the posterior of data N(1, 0.5^2) expects in a sample."""
    seen = sampler.scale_input(x, index).astype(np.float64)
    gain = 0.25 * abar**0.5 / (0.25 * abar + 1 - abar)
    clean = 1 + gain * (seen - abar**0.5)
    return (seen - abar**0.5 * clean) / (1 - abar) ** 0.5


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler-ancestral"])
def test_pictures_of_a_noisy_model_vary_as_those_of_an_exact_one(name: str) -> None:
    """Of 200,000 numbers, a variance has a standard error of 0.32 %, a mean one of 0.001."""
    count, draws, deviation = 40, 200_000, 0.35
    spec = {**STOCHASTIC[name], **STABLE_DIFFUSION, "timestep_spacing": "linspace"}
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    found: dict[str, tuple[float, float]] = {}
    for label, off, residual in (
        ("exact", 0.0, samplers.NOTHING),
        ("noisy", deviation, samplers.NOTHING),
        ("aware", deviation, table(deviation)),
    ):
        sampler = samplers.create(spec, count, residual)
        rng = np.random.default_rng(3)
        x = sampler.initial(rng.standard_normal(draws).astype(np.float32))
        for index, timestep in enumerate(sampler.steps):
            abar = float(np.interp(timestep, np.arange(1000), 1 / kept - 1))
            output = gaussian(sampler, index, x, 1 / (1 + abar)) + off * rng.standard_normal(draws)
            x = sampler.step(output.astype(np.float32), index, x, rng)
        found[label] = float(x.mean()), float(x.var())
    (mean, exact), (_, noisy), (aware_mean, aware) = found["exact"], found["noisy"], found["aware"]
    assert mean == pytest.approx(1, abs=0.01) and aware_mean == pytest.approx(mean, abs=0.006)
    assert noisy > 1.03 * exact
    assert aware == pytest.approx(exact, rel=0.012)


@pytest.mark.parametrize("spec", [*STOCHASTIC.values(), {"kind": "consistency"}], ids=str)
def test_the_same_noise_is_drawn_with_a_table_and_without(spec: dict[str, Any]) -> None:
    """So that a seed gives much the same picture, and what is drawn after it the same."""
    counts: list[int] = []
    for residual in (samplers.NOTHING, table(0.1), table(100.0)):
        rng = Given(0.5)
        sampler = samplers.create(spec, 6, residual)
        for index in range(6):
            sampler.step(one(0.1), index, one(0.2), rng)
        counts.append(rng.draws)
    assert counts[0] == counts[1] == counts[2] > 0


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_table_of_zeros_changes_no_byte(name: str, clip: bool) -> None:
    spec = {**STOCHASTIC[name], "clip_sample": clip}
    results = [loop(spec, residual) for residual in (samplers.NOTHING, table(0.0, 10.0, 900.0))]
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_who_adds_no_noise_takes_none_off(name: str) -> None:
    spec = DETERMINISTIC[name]
    np.testing.assert_array_equal(loop(spec, samplers.NOTHING), loop(spec, table(0.5)))


def loop(spec: dict[str, Any], residual: Residual) -> NDArray[np.float32]:
    rng = np.random.default_rng(4)
    if spec["kind"] == "plms":
        spec = {**spec, "skip_prk_steps": True}
    sampler = samplers.create(spec, 5, residual)
    x = sampler.initial(rng.standard_normal(SHAPE).astype(np.float32))
    for index in range(len(sampler.steps)):
        output = 0.9 * sampler.scale_input(x, index) + 0.1 * rng.standard_normal(SHAPE)
        x = sampler.step(output.astype(np.float32), index, x, rng)
    return x


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_what_is_clipped_is_not_off(kind: str) -> None:
    """A clean sample at the end of its range is no longer moved by the output: its noise stays, but for the way that
    DDIM goes on to use the output."""
    spec = {"kind": kind, "eta": 1.0, "clip_sample": True, "prediction_type": "sample"}
    plain, aware = (samplers.create(spec, 10, one) for one in (samplers.NOTHING, table(0.1)))
    index = 4

    def sigma(sampler: samplers.Sampler, output: float) -> float:
        results = [sampler.step(one(output), index, one(0), Given(number))[0] for number in (0, 1)]
        return float(results[1] - results[0])

    def slope(output: float) -> float:
        results = [plain.step(one(output + by), index, one(0), Given(0))[0] for by in (0, 0.01)]
        return float(results[1] - results[0]) / 0.01

    for output in (0.2, 5.0):
        wanted = max(sigma(plain, output) ** 2 - (slope(output) * 0.1) ** 2, 0) ** 0.5
        assert sigma(aware, output) == pytest.approx(wanted, abs=2e-5)
    assert sigma(aware, 0.2) < sigma(plain, 0.2)
    assert kind == "ddim" or sigma(aware, 5.0) == sigma(plain, 5.0)


def test_guidance_weighs_the_branches_errors() -> None:
    """Against errors that are drawn: mean products of 200,000 have a standard error of 0.3 %."""
    covariance = np.array([[0.04, 0.03], [0.03, 0.09]])
    unconditional, conditional = np.linalg.cholesky(covariance) @ np.random.default_rng(5).standard_normal(
        (2, 200_000)
    )
    for scale in (1.0, 0.0, 5.0, -1.0):
        described = {"timesteps": [500.0], "covariance": [covariance.tolist()]}
        s = Residual.of(described, scale).deviation(500)
        assert s == pytest.approx((unconditional + scale * (conditional - unconditional)).std(), rel=0.01)
    alone = Residual.of({"timesteps": [500.0], "covariance": [[[0.04]]]}, 7.5)
    assert alone.deviation(500) == pytest.approx(0.2)


def test_the_nearest_timestep_counts() -> None:
    described = {"timesteps": [801, 1, 401], "covariance": [[[0.64]], [[0.0]], [[0.16]]]}
    residual = Residual.of(described)
    for at, wanted in ((1000, 0.8), (602, 0.8), (600, 0.4), (400.5, 0.4), (201, 0.0), (0, 0.0)):
        assert residual.deviation(at) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "described",
    [
        None,
        3,
        [],
        {},
        {"timesteps": [], "covariance": []},
        {"timesteps": [1.0], "covariance": [0.1]},
        {"timesteps": [1.0], "covariance": [[[0.1] * 3] * 3]},
        {"timesteps": [1.0], "covariance": [[[0.1, 0.1]]]},
        {"timesteps": [1.0, 2.0], "covariance": [[[0.1]]]},
        {"timesteps": ["a"], "covariance": [[[0.1]]]},
        {"timesteps": [float("nan")], "covariance": [[[0.1]]]},
        {"timesteps": [1.0], "covariance": [[[float("inf")]]]},
        {"timesteps": [[1.0]], "covariance": [[[0.1]]]},
    ],
)
def test_what_is_no_table_is_refused(described: object) -> None:
    with pytest.raises(FickError, match="table of residuals"):
        Residual.of(described)
