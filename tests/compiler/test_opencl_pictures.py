"""A prompt becomes a picture on an OpenCL device: all of a pipeline's networks are kernels there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fick
from fick.runtime import TextToImage

from . import pipelines
from .test_opencl import TARGET
from .test_opencl import own_builds as own_builds
from .test_pipeline import assert_same_picture, drawn


def test_a_prompt_becomes_the_same_picture(tmp_path: Path) -> None:
    """As diffusers draws it, twice over: with guidance, so that state and prompts go back and forth."""
    theirs = pipelines.make(tmp_path)
    bundle = fick.compile(tmp_path / "tiny-sd", TARGET, tmp_path / "tiny-sd.fick").bundle
    with fick.load(bundle) as ours:
        assert isinstance(ours, TextToImage)
        for prompt, seed in (("cat", 7), ("A DOG's 2 cats", 8)):
            wanted = drawn(theirs, prompt, seed, num_inference_steps=3, guidance_scale=4.0)
            assert_same_picture(ours.generate(prompt, steps=3, guidance_scale=4.0, seed=seed), wanted)
            assert np.std(wanted) > 0
