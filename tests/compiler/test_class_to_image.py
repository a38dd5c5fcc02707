"""A diffusion transformer as a second architecture: against diffusers by itself and as a whole pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiTPipeline

import fick
from fick.compiler.frontends import import_model
from fick.compiler.programs import fused
from fick.ir import referee
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.macs import macs
from fick.ir.rates import Rate, analyse
from fick.runtime import ClassToImage, FickError
from tests.compiler import pipelines

SHAPES = {"hidden_states": (2, 4, 8, 8), "timestep": (1,), "class_labels": (2,)}
# Sums of up to 128 terms in another order, some twenty layers deep: sqrt(128) * 2^-24 * 20 = 1.3e-5, times eight.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def module() -> Any:
    return pipelines.transformer()


def feeds(batch: int = 2) -> dict[str, np.ndarray[Any, Any]]:
    sample = np.random.default_rng(0).standard_normal((batch, 4, 8, 8)).astype(np.float32)
    labels = np.array([1000, 207][-batch:])
    return {"hidden_states": sample, "timestep": np.array([501.0], np.float32), "class_labels": labels}


def theirs_of(module: Any, given: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return module(**{name: torch.from_numpy(array) for name, array in given.items()}).sample.numpy()


def assert_near(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    assert got.shape == wanted.shape and np.abs(got - wanted).max() <= TOLERANCE * wanted.std()


def test_the_graph_is_raised_whole(module: Any) -> None:
    imported = import_model(module, shapes=SHAPES)
    assert imported.inputs == {"hidden_states": "sample", "timestep": "step", "class_labels": "prompt"}
    counts = Counter(node.op_type for node in imported.model.graph)
    # Two layers: attention and feed-forward, each behind a norm; one norm more at the end.
    assert (counts["Attention"], counts["Gelu"], counts["LayerNormalization"]) == (2, 2, 5)
    assert counts["Einsum"] == counts["Softmax"] == counts["Tanh"] == counts["Sigmoid"] == 0
    # All time embeddings begin with the same sines, and the last one is the first layer's again.
    assert (counts["Sin"], counts["Cos"], counts["Gather"]) == (1, 1, 2)
    assert counts["Gemm"] == 2 * 3 + 1
    assert_near(referee.run(imported.model, feeds())["out_sample"], theirs_of(module, feeds()))


def test_only_what_needs_both_label_and_timestep_stays_in_the_loop(module: Any) -> None:
    imported = import_model(module, shapes=SHAPES)
    rates = analyse(imported.model.graph, {name: Rate(rate) for name, rate in imported.inputs.items()})
    at = {
        kind: [rates[str(node.outputs[0].name)] for node in imported.model.graph if node.op_type == kind]
        for kind in ("Gather", "Gemm", "Swish")
    }
    assert at["Gather"] == [Rate.PROMPT] * 2
    # Of each layer the two of the timestep's embedding, and the one of shifts, scales and gates, which reads it and
    # the label's; at the end another one of the latter, that reads what the first layer's does.
    assert Counter(at["Gemm"]) == {Rate.STEP: 4, Rate.SAMPLE: 3}
    assert Counter(at["Swish"]) == {Rate.STEP: 2, Rate.SAMPLE: 2}
    program = fused(imported)
    assert {"prompt", "step", "full"} <= set(program.variants)
    embedding = 256 * 32 + 32 * 32
    assert macs(program.variants["step"]) == 2 * embedding and macs(program.variants["prompt"]) == 0
    assert_near(Interpreter(program)(feeds())["out_sample"], theirs_of(module, feeds()))


def test_multiply_accumulates_by_hand() -> None:
    """DiT-XL/2 has 118.64 Gflops at 256 x 256 (Peebles and Xie, arXiv 2212.09748, table 4), and one of these is a
    multiply-add: twice as many would be 237. What is not counted here, such as norms, is 0.02 %.
    """
    layers, width, tokens, latent = 28, 1152, 16 * 16, 4
    layer = tokens * width * (4 * width + 8 * width) + 2 * tokens**2 * width + 6 * width**2
    embeddings = 256 * width + width**2
    ends = tokens * (4 * latent + 8 * latent) * width + 2 * width**2
    assert layers * layer + ends + embeddings == pytest.approx(118.64e9, rel=2e-4)
    # Two layers of a thirty-sixth of the width on a sixteenth of the tokens, counted from the graph.
    width, tokens = 32, 4 * 4
    layer = tokens * width * (4 * width + 8 * width) + 2 * tokens**2 * width + 6 * width**2
    # Diffusers gives each layer a time embedding of its own.
    wanted = 2 * (layer + 256 * width + width**2) + tokens * (4 * latent + 8 * latent) * width + 2 * width**2
    assert macs(import_model(pipelines.transformer()).model) == wanted


def test_compiled_alone_it_computes_and_generates(module: Any, tmp_path: Path) -> None:
    fick.compile(module, output=tmp_path / "dit.fick", shapes=SHAPES, sampler={"kind": "ddim"})
    with fick.load(tmp_path / "dit.fick") as model:
        assert isinstance(model, fick.runtime.Model)
        assert_near(model.run(**feeds())["out_sample"], theirs_of(module, feeds()))
        # Eight channels come out and four go in: the variance is left out of the loop.
        sample = model.generate(
            steps=3, class_labels=[1, 2], guidance_scale=2.0, unconditional={"class_labels": 1000}
        )
        assert sample.shape == (2, 4, 8, 8) and np.isfinite(sample).all()
        with pytest.raises(FickError, match="not compiled from a diffusers folder with a UNet"):
            model.as_diffusers_unet()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dit")


@pytest.fixture(scope="module")
def theirs(home: Path) -> DiTPipeline:
    return pipelines.make_class_conditional(home)


@pytest.fixture(scope="module")
def bundle(home: Path, theirs: DiTPipeline) -> Path:
    return fick.compile(home / "tiny-dit", output=home / "tiny-dit.fick").bundle


@pytest.fixture
def ours(bundle: Path) -> Iterator[ClassToImage]:
    with fick.load(bundle) as opened:
        assert isinstance(opened, ClassToImage)
        yield opened


def drawn(pipe: DiTPipeline, label: int, seed: int, **options: Any) -> np.ndarray[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    return np.asarray(pipe([label], generator=generator, **options).images[0])


def assert_same_picture(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    """Within one of 255: float32 in another order falls on the other side of a rounding here and there."""
    assert got.shape == wanted.shape and np.abs(got.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize("label", [207, "golden retriever", "207"])
def test_a_class_becomes_the_same_picture(ours: ClassToImage, theirs: DiTPipeline, label: int | str) -> None:
    wanted = drawn(theirs, 207, 7, num_inference_steps=5, guidance_scale=3.0)
    assert_same_picture(ours.generate(label, steps=5, guidance_scale=3.0, seed=7), wanted)
    assert np.abs(ours.generate(1, steps=5, guidance_scale=3.0, seed=7).astype(int) - wanted).max() > 1


def test_a_picture_may_be_where_to_start(ours: ClassToImage) -> None:
    init = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    near, far = (ours.generate(1, steps=8, init=init, strength=strength) for strength in (0.2, 1.0))
    kept = ours.generate(1, steps=8, init=init, strength=0.2)
    np.testing.assert_array_equal(near, kept)
    assert np.abs(near.astype(int) - far).max() > 1


def test_names_are_those_that_diffusers_reads(ours: ClassToImage, theirs: DiTPipeline) -> None:
    assert ours.names == theirs.labels and ours.classes == 1000


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("gold retriever", "no class called 'gold retriever'; near it are golden retriever"),
        ("zzz", "no class called 'zzz'; give its number, 0 to 999"),
        (1000, "no class 1000; they are 0 to 999"),
        ("-1", "no class -1"),
    ],
)
def test_a_class_that_there_is_not(ours: ClassToImage, label: int | str, said: str) -> None:
    with pytest.raises(FickError, match=said):
        ours.generate(label)


def test_the_published_configuration_names_an_older_class(
    home: Path, theirs: DiTPipeline, tmp_path: Path
) -> None:
    shutil.copytree(home / "tiny-dit" / "transformer", tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "Transformer2DModel"}))
    imported = import_model(tmp_path / "old", shapes=SHAPES)
    assert_near(referee.run(imported.model, feeds())["out_sample"], theirs_of(theirs.transformer, feeds()))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            {"_class_name": "Transformer2DModel", "norm_type": "layer_norm"},
            "describes Transformer2DModel, which is not",
        ),
        ({"norm_type": "layer_norm"}, "does not describe a model that diffusers can build"),
        ({"sample_size": [8, 16]}, "does not describe a model that diffusers can build"),
        ({"num_attention_heads": "two"}, "does not describe a model that diffusers can build"),
    ],
)
def test_configurations_that_cannot_be(module: Any, tmp_path: Path, spoil: dict[str, Any], said: str) -> None:
    plain = {name: value for name, value in module.config.items() if not name.startswith("_")}
    config = {**plain, "_class_name": "DiTTransformer2DModel", **spoil}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        import_model(tmp_path / "config.json")


@pytest.mark.parametrize(
    "shape", [{"hidden_states": (2, 4, 16, 16)}, {"hidden_states": (2, 3, 8, 8)}, {"class_labels": (1, 1)}]
)
def test_shapes_that_positions_do_not_fit(module: Any, shape: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UserError, match=r"cannot have shape .* right is, for example"):
        import_model(module, shapes=shape)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "transformer"), "lacks its component transformer"),
        (lambda folder: shutil.rmtree(folder / "vae"), "lacks its component vae"),
        (lambda folder: _say(folder, "model_index.json", id2label={"zero": "tench"}), "id2label"),
        (lambda folder: _say(folder, "model_index.json", id2label=["tench"]), "id2label"),
        (
            lambda folder: _say(folder, "transformer/config.json", num_embeds_ada_norm=None),
            "num_embeds_ada_norm",
        ),
    ],
)
def test_pipelines_that_lack_something(
    home: Path, theirs: DiTPipeline, tmp_path: Path, spoil: Any, said: str
) -> None:
    shutil.copytree(home / "tiny-dit", tmp_path / "dit")
    spoil(tmp_path / "dit")
    with pytest.raises(UserError, match=said):
        fick.compile(tmp_path / "dit", output=tmp_path / "dit.fick")


def _say(folder: Path, file: str, **facts: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_from_the_command_line(bundle: Path, theirs: DiTPipeline, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fick", "run", str(bundle), "-o", "x.npy", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)

    done = run("--class-label", "goldfish", "--steps", 4, "--seed", 3, "--guidance", 2.0)
    assert done.returncode == 0, done.stderr
    wanted = drawn(theirs, 1, 3, num_inference_steps=4, guidance_scale=2.0)
    assert_same_picture(np.load(tmp_path / "x.npy")[0], wanted)
    for arguments, said in (
        ((), "give it with --class-label"),
        (("--prompt", "cat"), "takes no --prompt; give what it is to draw with --class-label, --init"),
        (("--class-label", "1", "--negative", "dog"), "takes no --negative"),
        (("--class-label", "catfish"), "no class called 'catfish'"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
