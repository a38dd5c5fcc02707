"""New weights in an old bundle: the bytes of a fresh compile, and what each unfit checkpoint says."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import diffusers
import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

import fick
from fick.compiler.bundle.repack import repack
from fick.compiler.bundle.skeleton import read
from fick.compiler.frontends.onnx_file import OnnxFile
from fick.compiler.programs import unchanged
from fick.ir.errors import UserError
from fick.ir.saved import pack, unpack
from fick.runtime import FickError
from tests.runtime.tiny import offsets

SMALL = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
Weights = dict[str, np.ndarray]


def unet(seed: int) -> diffusers.UNet2DModel:
    torch.manual_seed(seed)
    model = diffusers.UNet2DModel(**SMALL).eval()
    for tensor in model.parameters():  # norms start as 1 and 0: every tensor shall differ between seeds
        torch.nn.init.normal_(tensor, std=0.1)
    return model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repack")
    for seed in (0, 1):
        fick.compile(unet(seed), output=folder / f"{seed}.fick")
    return folder


@pytest.fixture
def weights() -> Weights:
    return {name: tensor.numpy().copy() for name, tensor in unet(1).state_dict().items()}


def repacked(home: Path, tmp_path: Path, weights: Weights) -> Path:
    save_file(weights, tmp_path / "w.safetensors")
    return repack(home / "0.fick", tmp_path / "w.safetensors", tmp_path / "new.fick")


def test_repacking_gives_the_bytes_of_a_fresh_compile(home: Path, tmp_path: Path, weights: Weights) -> None:
    fresh = (home / "1.fick").read_bytes()
    assert repacked(home, tmp_path, weights).read_bytes() == fresh
    assert (home / "0.fick").read_bytes() != fresh


def test_a_layout_of_another_version(home: Path, tmp_path: Path, weights: Weights) -> None:
    skeleton, _ = read(home / "0.fick")
    [name] = skeleton.parts
    for entry in skeleton.manifest["components"][name]["weights"].values():
        entry["packing"]["kind"] = "quads"
    with pytest.raises(UserError, match=r"laid out as 'quads', which .* compile the model anew"):
        skeleton.write(tmp_path / "new.fick", {name: weights})


def test_the_repacked_model_is_the_new_one(home: Path, tmp_path: Path, weights: Weights) -> None:
    rng = np.random.default_rng(0)
    model = unet(1)
    with fick.load(repacked(home, tmp_path, weights)) as loaded:
        feeds = {}
        for info in loaded.inputs.values():
            feeds[info.name] = (
                rng.standard_normal(info.shape) if info.rate == "sample" else np.full(info.shape, 3)
            )
        got = next(iter(loaded.run(**feeds).values()))
    (sample,) = (torch.tensor(feed, dtype=torch.float32) for feed in feeds.values() if feed.ndim == 4)
    with torch.no_grad():
        wanted = model(sample, 3).sample.numpy()
    # Two orders of float32 summation, some twenty layers deep, over up to 9 * 32 terms each: sqrt(20 * 288) * 2^-24.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=80 * 2.0**-24 * np.abs(wanted).max())


def test_nothing_but_weights_changes(home: Path) -> None:
    old, new = ((home / f"{seed}.fick").read_bytes() for seed in (0, 1))
    for name, (start, size) in offsets(old).items():
        same = old[start : start + size] == new[offsets(new)[name][0] :][:size]
        assert same == (name in ("code/libmodel.so", "unet/constants.onnx", "unet/program.zip"))
    with zipfile.ZipFile(home / "0.fick") as first, zipfile.ZipFile(home / "1.fick") as second:
        one, two = (json.loads(archive.read("manifest.json")) for archive in (first, second))
    assert one["program_id"] == two["program_id"]


NAME = "down_blocks.0.resnets.0.conv1.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda w: w.pop(NAME),
            f"lacks tensor {NAME} of shape \\[8, 8, 3, 3\\]; give all weights of the model",
        ),
        (
            lambda w: w.update({NAME: np.zeros((8, 8, 5, 5), np.float32)}),
            f"tensor {NAME} of .* has shape \\[8, 8, 5, 5\\] and the bundle needs \\[8, 8, 3, 3\\]",
        ),
        (lambda w: w[NAME].__setitem__((0, 0, 0, 0), np.nan), f"tensor {NAME} of .* holds NaN"),
        (lambda w: w[NAME].__setitem__((7, 7, 2, 2), np.inf), f"tensor {NAME} of .* holds NaN or infinite"),
    ],
)
def test_an_unfit_checkpoint_is_named(
    home: Path, tmp_path: Path, weights: Weights, change, said: str
) -> None:
    change(weights)
    with pytest.raises(UserError, match=said):
        repacked(home, tmp_path, weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.safetensors"]


def test_what_is_no_checkpoint(home: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello, this is no header" * 10)
    for name, said in (
        ("text.safetensors", "is not a safetensors file"),
        ("none.safetensors", "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            repack(home / "0.fick", tmp_path / name, tmp_path / "new.fick")
    assert not (tmp_path / "new.fick").exists()


def test_numbers_that_shapes_follow_from_are_no_weights(tmp_path: Path) -> None:
    """A bundle's program knows them without its checkpoint, so that it can be lowered again."""
    graph = f"""<ir_version: 10, opset_import: ["" : 18]>
    net (float[1,3,4,4] x) => (float[1,3,4,4] y)
      <float[4] scales = {{1.0, 1.0, 2.0, 2.0}}, float[3,3,2,2] w = {{{", ".join(["0.5"] * 36)}}}>
    {{
      t = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , scales)
      y = Conv<strides=[2,2]>(t, w)
    }}"""
    onnx.save(onnx.parser.parse_model(graph), tmp_path / "net.onnx")
    program = unpack(pack(unchanged(OnnxFile(tmp_path / "net.onnx", None).imported())))
    resize = program.variants["full"].graph[0]
    scales = resize.inputs[2]
    assert scales is not None and scales.const_value is not None
    assert scales.const_value.numpy().tolist() == [1, 1, 2, 2]


def test_a_damaged_bundle_is_not_repacked(home: Path, tmp_path: Path, weights: Weights) -> None:
    data = bytearray((home / "0.fick").read_bytes())
    start, size = offsets(bytes(data))["unet/constants.onnx"]
    assert size
    data[start + size // 2] ^= 1
    (tmp_path / "bad.fick").write_bytes(data)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(FickError, match="damaged"):
        repack(tmp_path / "bad.fick", tmp_path / "w.safetensors", tmp_path / "new.fick")
    assert not (tmp_path / "new.fick").exists()


def test_damage_to_the_old_weights_gets_no_new_checksum(home: Path, tmp_path: Path, weights: Weights) -> None:
    """Tensors of the architecture are copied from the old bundle: the timesteps' frequencies here."""
    data = bytearray((home / "0.fick").read_bytes())
    start, size = offsets(bytes(data))["weights.safetensors"]
    data[start + size - 1] ^= 1
    (tmp_path / "bad.fick").write_bytes(data)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"weights\.safetensors of .* is damaged"):
        repack(tmp_path / "bad.fick", tmp_path / "w.safetensors", tmp_path / "new.fick")
    assert not (tmp_path / "new.fick").exists()


def test_a_number_type_that_numpy_lacks_is_named(home: Path, tmp_path: Path) -> None:
    eighths = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in unet(1).state_dict().items()}
    save_torch_file(eighths, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="is F8_E4M3; give float32, float16 or bfloat16 weights"):
        repack(home / "0.fick", tmp_path / "w.safetensors", tmp_path / "new.fick")


def test_a_learned_number_that_became_code_has_to_be_the_same(tmp_path: Path) -> None:
    """x sigmoid(gain x) is one operator with the gain in it, and no bundle can take another."""
    text = (
        '<ir_version: 10, opset_import: ["" : 22]> g (float[1,2,8,8] x) => (float[1,2,8,8] y) '
        "<float[2,2,1,1] w = {1.0, 2.0, 3.0, 4.0}, float gain = {1.5}> "
        "{ c = Conv(x, w) s = Mul(c, gain) g = Sigmoid(s) y = Mul(c, g) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "gain.onnx")
    fick.compile(tmp_path / "gain.onnx", output=tmp_path / "gain.fick")
    w = np.ones((2, 2, 1, 1), np.float32)
    for gain, fits in ((1.5, True), (3.0, False)):
        save_file({"w": w, "gain": np.array(gain, np.float32)}, tmp_path / "w.safetensors")
        if fits:
            repack(tmp_path / "gain.fick", tmp_path / "w.safetensors", tmp_path / "new.fick")
        else:
            with pytest.raises(
                UserError, match=r"tensor gain of .* is 3.0 and the bundle was compiled for 1.5"
            ):
                repack(tmp_path / "gain.fick", tmp_path / "w.safetensors", tmp_path / "other.fick")
    with fick.load(tmp_path / "new.fick") as model:
        x = np.ones((1, 2, 8, 8), np.float32)
        # Both channels are 1 + 1; the gate is a logistic function of 1.5 times that.
        np.testing.assert_allclose(model.run(x=x)["y"], 2 / (1 + np.exp(-3.0)), rtol=1e-5)
