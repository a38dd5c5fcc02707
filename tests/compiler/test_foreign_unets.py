"""UNets as others write and export them: each compiled whole, against torch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional

import fick
from fick.compiler.frontends import import_model
from fick.ir import referee
from fick.ir.errors import UserError


class Channels(nn.Module):
    """Root mean square over channels, before what it stands in front of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.rand(1, width, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(x, dim=1) * self.g * (x.shape[1] ** 0.5)


class Standardised(nn.Conv2d):
    """Filters of mean 0 and deviation 1 (Qiao et al., arXiv 1903.10520)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) * (variance + 1e-5).rsqrt()
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class Linear(nn.Module):
    """Attention without scores: keys times values first (Shen et al., arXiv 1812.01243)."""

    def __init__(self, width: int, heads: int = 2, each: int = 16) -> None:
        super().__init__()
        self.heads, self.each = heads, each
        self.norm, self.qkv = Channels(width), nn.Conv2d(width, 3 * heads * each, 1, bias=False)
        self.out = nn.Sequential(nn.Conv2d(heads * each, width, 1), Channels(width))
        self.memory = nn.Parameter(torch.randn(2, heads, each, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        parts = self.qkv(self.norm(x)).chunk(3, dim=1)
        q, k, v = (one.reshape(b, self.heads, self.each, h * w) for one in parts)
        more_k, more_v = (one.unsqueeze(0).repeat(b, 1, 1, 1) for one in self.memory)
        k, v = torch.cat([more_k, k], -1), torch.cat([more_v, v], -1)
        q, k = q.softmax(-2) * self.each**-0.5, k.softmax(-1)
        context = torch.einsum("bhdn,bhen->bhde", k, v)
        return x + self.out(torch.einsum("bhde,bhdn->bhen", context, q).reshape(b, -1, h, w))


class Block(nn.Module):
    def __init__(self, width: int, after: int, time: int) -> None:
        super().__init__()
        self.mlp = nn.Linear(time, 2 * after)
        self.first, self.norm = Standardised(width, after, 3, padding=1), nn.GroupNorm(4, after)
        self.second, self.rest = nn.Conv2d(after, after, 3, padding=1), nn.Conv2d(width, after, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        scale, shift = self.mlp(functional.silu(t))[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(self.norm(self.first(x)) * (scale + 1) + shift)
        return self.second(h) + self.rest(x)


class Tutorial(nn.Module):
    """As the most copied implementation of DDPM in torch has it: linear attention, pixels folded into channels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, 32))
        self.start = nn.Conv2d(3, width, 7, padding=3)
        self.down, self.attend = Block(width, width, 32), Linear(width)
        self.fold = nn.Conv2d(4 * width, 2 * width, 1)
        self.middle, self.deep = Block(2 * width, 2 * width, 32), Linear(2 * width)
        self.unfold = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(2 * width, width, 3, padding=1)
        )
        self.up, self.end = Block(2 * width, width, 32), nn.Conv2d(width, 3, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        half = self.width // 2
        angles = time[:, None] * torch.exp(torch.arange(half) * -(np.log(10000) / (half - 1)))[None]
        t = self.time(torch.cat([angles.sin(), angles.cos()], -1).to(x.dtype))
        skip = self.attend(self.down(self.start(x), t))
        b, c, h, w = skip.shape
        folded = (
            skip.reshape(b, c, h // 2, 2, w // 2, 2)
            .permute(0, 1, 3, 5, 2, 4)
            .reshape(b, 4 * c, h // 2, w // 2)
        )
        deep = self.deep(self.middle(self.fold(folded), t))
        return self.end(self.up(torch.cat([self.unfold(deep), skip], 1), t))


class Narrow(nn.Module):
    """Depthwise filters between two products, and a gate of what all pixels have in common (MobileNet V3)."""

    def __init__(self, width: int, after: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(width, 24, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.filters = nn.Conv2d(24, 24, 5, stride, 2, groups=24, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 8, 1), nn.PReLU(8), nn.Conv2d(8, 24, 1), nn.Hardsigmoid()
        )
        self.after = nn.Conv2d(24, after, 3, padding=1, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.leaky_relu(self.norm(self.filters(self.before(x))), 0.2)
        return self.after(h * self.gate(h))


class Classic(nn.Module):
    """As one writes a UNet by hand: pooling, transposed and grouped convolution, every way to enlarge."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8, affine=True)
        )
        self.time = nn.Linear(1, 8)
        self.down, self.pool = Narrow(8, 16, 2), nn.MaxPool2d(3, 2, 1)
        self.middle = Narrow(16, 16, 1)
        self.up = nn.ConvTranspose2d(16, 16, 4, 2, 1)
        self.join, self.shuffle = nn.Conv2d(32, 32, 3, padding=1), nn.PixelShuffle(2)
        self.end = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        first = functional.mish(self.start(x)) + functional.elu(self.time(t))[:, :, None, None]
        second = self.down(first)
        deep = self.middle(self.pool(second))
        joined = self.join(torch.cat([self.up(deep), second], 1))
        shuffled = functional.softplus(self.shuffle(joined))
        small = functional.avg_pool2d(first, 3, 2, 1)
        wide = functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=True)
        return self.end(torch.cat([shuffled, wide[:, :8]], 1)) + functional.interpolate(
            functional.interpolate(x, size=(11, 9), mode="bicubic"), size=x.shape[2:], mode="bilinear"
        )


def drawn(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(5)
    module = kind().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module


INPUTS = {
    Tutorial: {"x": (1, 3, 16, 24), "time": (1,)},
    Classic: {"x": (1, 1, 24, 20), "t": (1, 1)},
}


def call(kind: type[nn.Module], module: nn.Module) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(6)
    feeds = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in INPUTS[kind].items()}
    with torch.no_grad():
        wanted = module(*map(torch.from_numpy, feeds.values())).numpy()
    return feeds, wanted


def exported(kind: type[nn.Module], module: nn.Module, path: Path, opset: int) -> Path:
    """By torch's older exporter, which writes operators of that opset."""
    names = list(INPUTS[kind])
    dtype = next(module.parameters()).dtype
    examples = tuple(torch.zeros(shape, dtype=dtype) for shape in INPUTS[kind].values())
    text = io.BytesIO()
    torch.onnx.export(
        module, examples, text, input_names=names, output_names=["y"], opset_version=opset, dynamo=False
    )
    path.write_bytes(text.getvalue())
    return path


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("kind", INPUTS)
def test_an_exported_unet_agrees_with_torch(kind: type[nn.Module], opset: int, tmp_path: Path) -> None:
    """To 2e-5 of the largest output, some thirty layers of sums of a few hundred terms deep."""
    module = drawn(kind)
    feeds, wanted = call(kind, module)
    path = exported(kind, module, tmp_path / "unet.onnx", opset)
    with fick.load(fick.compile(path, output=tmp_path / "unet.fick").bundle) as loaded:
        (got,) = loaded.run(**feeds).values()
    assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", INPUTS)
def test_a_unet_in_memory_agrees_with_torch(kind: type[nn.Module], tmp_path: Path) -> None:
    module = drawn(kind)
    feeds, wanted = call(kind, module)
    report = fick.compile(module, output=tmp_path / "unet.fick", shapes=INPUTS[kind])
    with fick.load(report.bundle) as loaded:
        (got,) = loaded.run(**feeds).values()
    assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()


def test_weights_of_sixteen_bits_are_what_is_computed_with(tmp_path: Path) -> None:
    """The compiled network multiplies the very numbers of the file, in float32, also when they are only packed again."""
    module = drawn(Tutorial).half()
    path = exported(Tutorial, module, tmp_path / "half.onnx", 17)
    feeds, wanted = call(Tutorial, module.float())
    bundles = [fick.compile(path, output=tmp_path / f"{name}.fick").bundle for name in ("first", "again")]
    with fick.load(bundles[0]) as loaded:
        (got,) = loaded.run(**feeds).values()
    assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max()
    assert Path(bundles[0]).read_bytes() == Path(bundles[1]).read_bytes()


def test_what_a_mask_leaves_out_may_be_infinite(tmp_path: Path) -> None:
    """A table that is added, one that is chosen, and a number in a choice: of scores, before the softmax."""
    graph = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,2,9,9] x, float[2,2,1,1] w, float[9,9] m, float none, bool[9,9] early) => (float[1,2,9,9] y) {
            c = Conv(x, w)  a = Add(c, m)  p = Softmax<axis=-1>(a)
            b = Where(early, c, none)  q = Softmax<axis=-1>(b)  s = MatMul(p, x)  y = Add(s, q)
        }""")
    rng = np.random.default_rng(8)
    early = np.tri(9, dtype=bool)
    given = {
        "w": rng.standard_normal((2, 2, 1, 1)).astype(np.float32),
        "m": np.where(early, np.float32(0), np.float32(-np.inf)),
        "none": np.array(-np.inf, np.float32),
        "early": early,
    }
    for value in [one for one in graph.graph.inputs if one.name in given]:
        graph.graph.inputs.remove(value)
        value.const_value = ir.tensor(given[str(value.name)], name=value.name)
        graph.graph.register_initializer(value)
    ir.save(graph, tmp_path / "masked.onnx")
    x = rng.standard_normal((1, 2, 9, 9)).astype(np.float32)
    wanted = referee.run(graph, {"x": x})["y"]
    with fick.load(fick.compile(tmp_path / "masked.onnx", output=tmp_path / "masked.fick").bundle) as loaded:
        np.testing.assert_allclose(loaded.run(x=x)["y"], wanted, rtol=0, atol=5e-6)
    framed = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,2,9,9] x, float none) => (float[1,2,9,9] y)
        <float[2,2,1,1] w = {1, 2, 3, 4}, int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> {
            c = Conv(x, w)  f = Pad(c, p, none)  y = MaxPool<kernel_shape=[3, 3]>(f)
        }""")
    none = framed.graph.inputs.pop()
    none.const_value = ir.tensor(given["none"], name=none.name)
    framed.graph.register_initializer(none)
    ir.save(framed, tmp_path / "framed.onnx")
    wanted = referee.run(framed, {"x": x})["y"]
    got = referee.run(import_model(tmp_path / "framed.onnx").model, {"x": x})["y"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-6)
    graph.graph.initializers["w"].const_value = ir.tensor(np.full((2, 2, 1, 1), np.inf, np.float32), name="w")
    ir.save(graph, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match="weight w of broken holds 4 NaN or infinite"):
        import_model(tmp_path / "broken.onnx")


class Squeezed(nn.Module):
    """An axis goes that has a size of its own in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.time = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(1, 2)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.start(x) * self.time(t.squeeze(1))[:, :, None, None]


def test_a_branch_that_an_exporter_leaves_is_decided_by_shapes(tmp_path: Path) -> None:
    torch.manual_seed(5)
    module, path = Squeezed().eval(), tmp_path / "squeezed.onnx"
    rng = np.random.default_rng(6)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in
             {"x": (1, 2, 8, 8), "t": (1, 1, 1)}.items()}  # fmt: skip
    given = tuple(map(torch.from_numpy, feeds.values()))
    torch.onnx.export(
        module, given, path, input_names=list(feeds), output_names=["y"], dynamic_axes={"t": {1: "k"}},
        opset_version=17, dynamo=False,
    )  # fmt: skip
    assert any(node.op_type == "If" for node in ir.load(path).graph)
    imported = import_model(path, shapes={"t": (1, 1, 1)})
    with torch.no_grad():
        wanted = module(*given).numpy()
    np.testing.assert_allclose(referee.run(imported.model, feeds)["y"], wanted, rtol=0, atol=1e-6)
