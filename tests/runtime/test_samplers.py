"""Every sampler against diffusers, on the same model outputs and the same noise.

diffusers computes in float32, ours in float64 between float32 tables: a few roundings of intermediate values
that are up to 15 times the result (the first noise level) make 15 * 4 * 2^-24, below 1e-5 of the result's
scale.
"""

import json

import diffusers
import numpy as np
import pytest
import torch

from fick.runtime import FickError, samplers

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "v_prediction", "sample"]
SHAPE = (1, 4, 8, 8)


def compare(scheduler, spec, count, monkeypatch, **step_options):
    scheduler.set_timesteps(count)
    ours = samplers.create(spec, count)
    np.testing.assert_allclose(ours.steps, scheduler.timesteps.numpy().astype(np.float32), rtol=1e-6)
    draws = np.random.default_rng(5)
    x = draws.standard_normal(SHAPE).astype(np.float32)
    mine = ours.initial(x)
    theirs = torch.tensor(x) * scheduler.init_noise_sigma
    noises = [draws.standard_normal(SHAPE) for _ in ours.steps]

    class Replay:
        def standard_normal(self, shape):
            assert shape == SHAPE
            return noises[index]

    def replayed(shape, **_):
        return torch.tensor(noises[index], dtype=torch.float32)

    module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", replayed)
    for index, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(theirs, timestep)
        scaled = ours.scale_input(mine, index)
        np.testing.assert_allclose(scaled, seen, rtol=0, atol=1e-5 * float(seen.abs().max()))
        output = draws.standard_normal(SHAPE).astype(np.float32) + 0.5 * seen.numpy()
        theirs = scheduler.step(torch.tensor(output), timestep, theirs, **step_options).prev_sample
        mine = ours.step(output, index, mine, Replay())
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [1, 4, 20])
class TestAgainstDiffusers:
    def config(self, spacing, prediction, **more):
        return {**STABLE_DIFFUSION, "timestep_spacing": spacing, "prediction_type": prediction, **more}

    @pytest.mark.parametrize("eta", [0.0, 0.7])
    def test_ddim(self, count, spacing, prediction, eta, monkeypatch):
        config = self.config(spacing, prediction, clip_sample=False, set_alpha_to_one=False)
        scheduler = diffusers.DDIMScheduler(**config)
        compare(scheduler, {"kind": "ddim", "eta": eta, **config}, count, monkeypatch, eta=eta)

    def test_ddpm(self, count, spacing, prediction, monkeypatch):
        config = self.config(spacing, prediction, clip_sample=True)
        compare(diffusers.DDPMScheduler(**config), {"kind": "ddpm", **config}, count, monkeypatch)

    def test_euler(self, count, spacing, prediction, monkeypatch):
        config = self.config(spacing, prediction)
        scheduler = diffusers.EulerDiscreteScheduler(**config)
        compare(scheduler, {"kind": "euler", **config}, count, monkeypatch)

    def test_dpm_solver(self, count, spacing, prediction, monkeypatch):
        config = self.config(spacing, prediction)
        scheduler = diffusers.DPMSolverMultistepScheduler(**config)
        compare(scheduler, {"kind": "dpm-solver++", **config}, count, monkeypatch)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [2, 4, 20])
def test_plms(count, spacing, prediction, monkeypatch):
    config = {
        **STABLE_DIFFUSION,
        "timestep_spacing": spacing,
        "prediction_type": prediction,
        "skip_prk_steps": True,
        "steps_offset": 1 if spacing == "leading" else 0,
    }
    compare(diffusers.PNDMScheduler(**config), {"kind": "plms", **config}, count, monkeypatch)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [1, 4, 20])
def test_euler_ancestral(count, spacing, prediction, monkeypatch):
    config = {**STABLE_DIFFUSION, "timestep_spacing": spacing, "prediction_type": prediction}
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**config)
    compare(scheduler, {"kind": "euler-ancestral", **config}, count, monkeypatch)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_beta_schedules(schedule, monkeypatch):
    config = {"beta_schedule": schedule, "clip_sample": True}
    compare(diffusers.DDIMScheduler(**config), {"kind": "ddim", **config}, 10, monkeypatch)


def test_a_pipeline_s_own_configuration_is_read():
    for name, kind in samplers.DIFFUSERS_CLASSES.items():
        options = {**STABLE_DIFFUSION, **({"skip_prk_steps": True} if kind == "plms" else {})}
        scheduler = getattr(diffusers, name)(**options)
        config = json.loads(scheduler.to_json_string())
        scheduler.set_timesteps(5)
        ours = samplers.create({"kind": "diffusers", "config": config}, 5)
        np.testing.assert_allclose(ours.steps, scheduler.timesteps.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PNDMScheduler", {}),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True}),
        ("EulerAncestralDiscreteScheduler", {"rescale_betas_zero_snr": True}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
        ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1}),
    ],
)
def test_options_that_change_the_result_are_refused(name, options):
    with pytest.raises(FickError, match=next(iter(options), "skip_prk_steps")):
        samplers.create({"kind": "diffusers", "config": {"_class_name": name, **options}}, 5)


@pytest.mark.parametrize("kind", ["ddim", "euler", "dpm-solver++"])
def test_trailing_steps_stay_within_the_training_at_every_count(kind):
    for count in range(1, 1001):
        steps = samplers.create({"kind": kind, "timestep_spacing": "trailing"}, count).steps
        assert len(steps) == count and steps[0] == 999 and steps[-1] >= 0 and np.all(np.diff(steps) < 0)


def test_final_sigma_of_the_training(monkeypatch):
    for count in (4, 20):
        config = {**STABLE_DIFFUSION, "final_sigmas_type": "sigma_min"}
        scheduler = diffusers.DPMSolverMultistepScheduler(**config)
        compare(scheduler, {"kind": "dpm-solver++", **config}, count, monkeypatch)


def test_consistency_reaches_the_mean_of_a_gaussian():
    """Of data N(m, s^2) the exact consistency function is known: m + s (x - m) / sqrt(s^2 + sigma^2)."""
    mean, deviation = 3.0, 0.5
    sampler = samplers.create({"kind": "consistency", "sigmas": [80.0, 24.0, 6.0, 1.2]})
    rng = np.random.default_rng(0)
    x = sampler.initial(rng.standard_normal(20000).astype(np.float32))
    for index, sigma in enumerate(sampler.steps):
        seen = sampler.scale_input(x, index)
        clean = mean + deviation * (seen - mean) / np.sqrt(deviation**2 + sigma**2)
        x = sampler.step(clean.astype(np.float32), index, x, rng)
    # Standard errors of mean and deviation over 20,000 draws are 0.0035 and 0.0025; the start, N(0, 80^2)
    # rather than N(m, 80^2 + s^2), shifts the mean by less than 0.02.
    assert abs(x.mean() - mean) < 0.04 and abs(x.std() - deviation) < 0.02


def test_consistency_closed_form():
    sampler = samplers.create({"kind": "consistency", "sigma_min": 0.002, "sigmas": [80.0, 2.0]})
    x = np.ones(3, np.float32)
    noise = np.random.default_rng(1).standard_normal(3)
    stepped = sampler.step(x, 0, x, np.random.default_rng(1))
    np.testing.assert_allclose(stepped, 1 + np.sqrt(4 - 0.002**2) * noise, rtol=1e-6)
    np.testing.assert_array_equal(sampler.step(x, 1, stepped, np.random.default_rng(1)), x)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_consistency_takes_any_number_of_steps(steps):
    levels = samplers.create({"kind": "consistency"}, steps).steps
    assert len(levels) == steps and levels[0] == 80 and np.all(np.diff(levels) < 0) and levels[-1] > 0.3


@pytest.mark.parametrize(
    ("spec", "steps", "said"),
    [
        ({"kind": "magic"}, 4, "not known"),
        ({}, 4, "not known"),
        ({"kind": "ddim"}, 0, "steps"),
        ({"kind": "ddim"}, 2000, "steps"),
        ({"kind": "ddim", "prediction_type": "x"}, 4, "prediction type"),
        ({"kind": "ddim", "beta_schedule": "x"}, 4, "beta schedule"),
        ({"kind": "consistency", "sigmas": [1.0, 2.0]}, None, "noise levels"),
        ({"kind": "diffusers", "config": {"_class_name": "X"}}, 4, "scheduler"),
        ({"kind": "diffusers", "config": [1]}, 4, "scheduler_config"),
        ({"kind": ["ddim"]}, 4, "not known"),
        ({"kind": "ddim", "steps_offset": 1}, 1000, "offset"),
        ({"kind": "ddim", "beta_start": "a"}, 4, "beta_start"),
        ({"kind": "ddim", "beta_start": 2.0}, 4, "betas"),
        ({"kind": "ddim", "eta": 3}, 4, "eta"),
        ({"kind": "dpm-solver++"}, 1000, "steps"),
        ({"kind": "consistency"}, 0, "steps"),
        ({"kind": "consistency", "sigmas": "abc"}, None, "sigmas"),
        ({"kind": "consistency", "sigmas": [float("nan")]}, None, "noise levels"),
    ],
)
def test_mistakes_are_named(spec, steps, said):
    with pytest.raises(FickError, match=said):
        samplers.create(spec, steps)
