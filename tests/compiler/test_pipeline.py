"""A whole pipeline in one bundle against diffusers on the same weights, prompts and seeds."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image
from transformers import CLIPTextModel

import fick
from fick.compiler.bundle.repack import repack
from fick.ir.errors import UserError
from fick.runtime import Cancelled, FickError, TextToImage
from tests.compiler import pipelines


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def theirs(home):
    return pipelines.make(home)


@pytest.fixture(scope="module")
def bundle(home, theirs):
    return fick.compile(home / "tiny-sd", output=home / "tiny-sd.fick").bundle


@pytest.fixture
def ours(bundle):
    with fick.load(bundle) as opened:
        assert isinstance(opened, TextToImage)
        yield opened


def drawn(pipe, prompt, seed, **options):
    generator = torch.Generator().manual_seed(seed)
    return np.asarray(pipe(prompt, generator=generator, **options).images[0])


def assert_same_picture(got, wanted):
    """Within one of 255: float32 in another order falls on the other side of a rounding here and there."""
    assert got.shape == wanted.shape and got.dtype == np.uint8
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1


def test_a_prompt_becomes_the_same_picture(ours, theirs):
    for prompt, negative, seed in (("cat", "", 7), ("A DOG's 2 cats", "dog!", 8)):
        wanted = drawn(
            theirs, prompt, seed, negative_prompt=negative, num_inference_steps=6, guidance_scale=4.0
        )
        got = ours.generate(prompt, negative_prompt=negative, steps=6, guidance_scale=4.0, seed=seed)
        assert_same_picture(got, wanted)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_picture_becomes_the_same_picture(ours, theirs, strength):
    init = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pipe = StableDiffusionImg2ImgPipeline(**theirs.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    options = {"image": Image.fromarray(init), "strength": strength, "num_inference_steps": 6}
    wanted = drawn(pipe, "cat", 3, guidance_scale=4.0, **options)
    assert_same_picture(
        ours.generate("cat", init=init, strength=strength, steps=6, guidance_scale=4.0, seed=3), wanted
    )


def test_noise_is_less_by_what_the_guided_output_is_off(ours, monkeypatch):
    """Errors of the branches that a scale of 4 makes cancel out, and one of 2 does not."""
    sampler = {"kind": "ddim", "eta": 1.0, "clip_sample": False}
    plain, off = (ours.generate("cat", steps=4, guidance_scale=one, sampler=sampler) for one in (4.0, 2.0))
    table = {"timesteps": [500], "covariance": [[[16 / 9, 4 / 3], [4 / 3, 1]]]}
    monkeypatch.setitem(ours.manifest["components"]["unet"], "residual", table)
    assert_same_picture(ours.generate("cat", steps=4, guidance_scale=4.0, sampler=sampler), plain)
    quieter = ours.generate("cat", steps=4, guidance_scale=2.0, sampler=sampler)
    assert np.abs(quieter.astype(int) - off).max() > 10


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_unet_drops_into_a_diffusers_pipeline(ours, theirs, guidance):
    options = {"num_inference_steps": 4, "guidance_scale": guidance}
    wanted = drawn(theirs, ["cat", "dog", "cat dog"], 1, **options)
    own, theirs.unet = theirs.unet, ours.as_diffusers_unet()
    try:
        assert_same_picture(drawn(theirs, ["cat", "dog", "cat dog"], 1, **options), wanted)
    finally:
        theirs.unet = own


def test_what_the_compiled_unet_does_not_take_is_refused(ours):
    with pytest.raises(FickError, match="takes no class_labels"):
        ours.as_diffusers_unet()(
            torch.zeros(2, 4, 8, 8), 1, torch.zeros(2, 12, 16), class_labels=torch.ones(2)
        )


def test_peak_memory_is_as_promised(ours):
    """But for tables, of prompts and of steps."""
    assert ours.manifest["memory"]["peak_bytes"] == ours.memory.peak_bytes - ours.memory.table_bytes


def test_progress_preview_and_cancel(ours):
    seen, latents = [], []
    ours.generate(
        "cat", steps=4, progress=lambda *at: seen.append(at), each_step=lambda *at: latents.append(at)
    )
    assert seen == [(done, 4) for done in range(5)]
    assert [done for done, _ in latents] == [1, 2, 3, 4]
    assert ours.preview(latents[-1][1]).shape == (8, 8, 3)
    with pytest.raises(Cancelled):
        ours.generate("cat", steps=4, progress=lambda done, total: done == 2)
    with pytest.raises(Cancelled):
        ours.generate("cat", steps=4, each_step=lambda done, latent: ours.cancel())


def test_the_preview_is_the_linear_map_nearest_to_the_decoder(ours):
    """Of smooth latents it explains more of the picture than their mean colour does."""
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(8):
        latent = np.broadcast_to(rng.standard_normal((1, 4, 1, 1)), (1, 4, 8, 8)).astype(np.float32)
        real = ours.decode(latent).reshape(8, 2, 8, 2, 3).mean((1, 3))
        errors.append([ours.preview(latent) - real, real - real.mean()])
    ours_error, spread = np.mean(np.square(errors), axis=(0, 2, 3, 4))
    assert ours_error < spread


def test_a_prompt_that_is_too_long_says_what_fell_off(ours):
    with pytest.warns(UserWarning, match="this fell off: 'dog dog'"):
        ours.encode("cat " * 10 + "dog dog")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "0 steps are not possible"),
        ({"sampler": {"kind": "magic"}}, "sampler 'magic' is not known"),
        ({"init": np.zeros((8, 8, 3), np.uint8)}, r"should be uint8\[16, 16, 3\]"),
        ({"init": np.zeros((16, 16, 3), np.uint8), "strength": 0.0}, "leaves none to run"),
        ({"init": np.zeros((16, 16, 3), np.uint8), "strength": 1.5}, "up to 1"),
        ({"guidance_scale": float("nan")}, "guidance scale is nan"),
        ({"guidance_scale": float("inf")}, "guidance scale is inf"),
    ],
)
def test_arguments_that_cannot_be(ours, options, said):
    with pytest.raises(FickError, match=said):
        ours.generate("cat", **{"steps": 4, **options})


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae", "tokenizer"])
def test_a_missing_component_is_named(home, theirs, tmp_path, component):
    shutil.copytree(home / "tiny-sd", tmp_path / "sd")
    shutil.rmtree(tmp_path / "sd" / component)
    with pytest.raises(UserError, match=f"lacks its component {component}"):
        fick.compile(tmp_path / "sd", output=tmp_path / "sd.fick")
    assert not (tmp_path / "sd.fick").exists()


def test_one_component_is_repacked_and_the_others_stay(home, bundle, tmp_path):
    folder = tmp_path / "tiny-sd"
    shutil.copytree(home / "tiny-sd", folder)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    for tensor in encoder.parameters():
        torch.nn.init.normal_(tensor, std=0.1)
    encoder.save_pretrained(folder / "text_encoder")
    fresh = fick.compile(folder, output=tmp_path / "fresh.fick").bundle
    weights = folder / "text_encoder" / "model.safetensors"
    with pytest.raises(UserError, match="its components are unet, text_encoder, vae_decoder, vae_encoder"):
        repack(bundle, weights, tmp_path / "new.fick", component="vae")
    repack(bundle, weights, tmp_path / "new.fick", component="text_encoder")
    manifests = []
    for path in (fresh, tmp_path / "new.fick"):
        with fick.load(path) as opened:
            manifests.append(opened.manifest)
            picture = opened.generate("cat", steps=2)
            manifests[-1] = (opened.manifest["entries"], picture.tobytes())
    assert manifests[0] == manifests[1]


class TestCommandLine:
    def run(self, *arguments, cwd):
        command = [sys.executable, "-m", "fick", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=100)

    def test_a_picture_from_a_prompt(self, bundle, theirs, tmp_path):
        wanted = drawn(theirs, "cat", 7, num_inference_steps=5, guidance_scale=5.0)
        asked = ["run", bundle, "--prompt", "cat", "--steps", 5, "--seed", 7, "-o", "cat.png", "--json", "-"]
        done = self.run(*asked, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["shape"] == [16, 16, 3]
        assert_same_picture(np.asarray(Image.open(tmp_path / "cat.png")), wanted)
        again = ["--init", "cat.png", "--strength", 0.4, "--sampler", "euler", "-o", "two.png", "--count", 2]
        done = self.run("run", bundle, "--prompt", "dog", *again, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert Image.open(tmp_path / "two.png").size == (36, 16)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "--prompt"),
            (["--prompt", "cat", "--steps", "0"], "steps"),
            (["--prompt", "cat", "--seed", "many"], "--seed"),
            (["--prompt", "cat", "--sampler", "magic"], "magic"),
            (["--prompt", "cat", "--init", "none.png"], "none.png"),
            (["--prompt", "cat", "--strength", "0.5"], "--init"),
            (["--prompt", "cat", "-o", "nowhere/x.png"], "in a folder that exists"),
            (["--prompt", "cat", "--json", "nowhere/x.json"], "in a folder that exists"),
        ],
    )
    def test_a_mistake_is_one_sentence_and_exit_code_2(self, bundle, tmp_path, arguments, said):
        done = self.run("run", bundle, "-o", "x.png", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not list(tmp_path.iterdir())
