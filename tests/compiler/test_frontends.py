"""The front ends: what goes in, what comes out, and what each mistake says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import onnx_ir as ir
import pytest
import torch

from examples.terrain_model import fetch
from fick.compiler.frontends import CONFIGS, import_model, known_configs, open_model
from fick.compiler.frontends.torch_module import keywords
from fick.ir.errors import UserError
from fick.ir.modules import module_path
from fick.ir.referee import run

# torch and ONNX Runtime sum in different orders: about sqrt(600) * 2^-24 a layer, some thirty layers deep.
TOLERANCE = 5e-5

SMALL = {"sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
PLAIN = {
    **SMALL,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "resnet_time_scale_shift": "scale_shift",
}
PROMPTED = {
    **SMALL,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
XL = {
    **PROMPTED,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 68,
    "use_linear_projection": True,
}

# Blocks in a chain: the shape behind one gate is known only once the one before it is.
DEEP_XL = {
    **XL,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 4),
}
V2 = {**PROMPTED, "use_linear_projection": True, "attention_head_dim": (2, 4)}

# Parameters in millions, as published with each model.
PUBLISHED = {
    "sd-1.5": 859.52,
    "sd-2.1": 865.91,
    "sdxl-base": 2567.46,
    "bk-sdm-small": 482.35,
    "bk-sdm-tiny": 323.38,
    "ddpm-cifar10": 35.75,
    # 675.1 with one time and class embedding and the positions', as first written; diffusers has 28 of 2.78.
    "dit-xl-2-256": 749.83,
}


def feeds_for(model: ir.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {
        str(value.name): rng.standard_normal([int(size) for size in value.shape or ()]).astype(
            value.dtype.numpy()
        )
        for value in model.graph.inputs
        if value.dtype is not None
    }
    return {**feeds, "timestep": np.array([501.0], np.float32)}


def small(cls: type, config: dict[str, object]) -> torch.nn.Module:
    torch.manual_seed(0)
    return cls(**config).eval()


@pytest.mark.parametrize(
    ("cls", "config", "roles", "attentions"),
    [
        (diffusers.UNet2DModel, PLAIN, {"sample": "sample", "timestep": "step"}, 4),
        (
            diffusers.UNet2DConditionModel,
            PROMPTED,
            {"sample": "sample", "timestep": "step", "encoder_hidden_states": "prompt"},
            8,
        ),
        (
            diffusers.UNet2DConditionModel,
            XL,
            {
                "sample": "sample",
                "timestep": "step",
                "encoder_hidden_states": "prompt",
                "text_embeds": "prompt",
                "time_ids": "prompt",
            },
            8,
        ),
        (
            diffusers.UNet2DConditionModel,
            DEEP_XL,
            {
                "sample": "sample",
                "timestep": "step",
                "encoder_hidden_states": "prompt",
                "text_embeds": "prompt",
                "time_ids": "prompt",
            },
            # Two a transformer layer: down 2 + 3, middle 3, up (3 + 2) twice.
            36,
        ),
        (
            diffusers.UNet2DConditionModel,
            V2,
            {"sample": "sample", "timestep": "step", "encoder_hidden_states": "prompt"},
            8,
        ),
    ],
    ids=["unconditional", "prompted", "xl", "deep-xl", "v2"],
)
def test_torch_module_agrees_with_torch(
    cls: type, config: dict[str, object], roles: dict[str, str], attentions: int
) -> None:
    module = small(cls, config)
    imported = import_model(module)
    assert imported.inputs == roles and imported.kind == "torch" and not imported.random_weights
    ops = [node.op_type for node in imported.model.graph]
    assert ops.count("Attention") == attentions
    assert ops.count("GroupNormalization") == sum(isinstance(m, torch.nn.GroupNorm) for m in module.modules())
    assert "Sigmoid" not in ops
    feeds = feeds_for(imported.model)
    (got,) = run(imported.model, feeds).values()
    call = {name: torch.from_numpy(array) for name, array in feeds.items()}
    added = {name: call.pop(name) for name in ("text_embeds", "time_ids") if name in call}
    with torch.no_grad():
        want = module(**call, **({"added_cond_kwargs": added} if added else {})).sample.numpy()
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
    # Every parameter that the forward pass reads keeps its name and value.
    for name, parameter in module.named_parameters():
        kept = imported.model.graph.initializers[name].const_value
        assert kept is not None
        np.testing.assert_array_equal(kept.numpy(), parameter.detach().numpy())
    convolutions = [node for node in imported.model.graph if node.op_type == "Conv"]
    for node in convolutions:
        assert node.inputs[1] is not None and f"{module_path(node)}.weight" == node.inputs[1].name


CROSS = {"down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
         "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
         "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_dim": 32}  # fmt: skip
CONDITIONED = {
    "distilled guidance": (
        {**PROMPTED, "time_cond_proj_dim": 6, "act_fn": "mish", "class_embed_type": "timestep"},
        {"encoder_hidden_states": [1, 77, 24], "class_labels": [1], "timestep_cond": [1, 6]},
    ),
    "classes as vectors": (
        {**PROMPTED, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 9},
        {"encoder_hidden_states": [1, 77, 24], "class_labels": [1, 9]},
    ),
    "projected text": (
        {**SMALL, **CROSS, "block_out_channels": (32, 64), "encoder_hid_dim": 10, "addition_embed_type": "text",
         "addition_embed_type_num_heads": 2, "cross_attention_norm": "group_norm", "act_fn": "gelu"},
        {"encoder_hidden_states": [1, 77, 10]},
    ),
    "images in the place of text": (
        {**SMALL, **CROSS, "encoder_hid_dim": 10, "encoder_hid_dim_type": "image_proj",
         "addition_embed_type": "image"},
        {"image_embeds": [1, 10]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONED)
def test_what_else_a_unet_of_diffusers_reads_is_an_input(name: str) -> None:
    config, inputs = CONDITIONED[name]
    module = small(diffusers.UNet2DConditionModel, config)
    imported = import_model(module)
    graph = imported.model.graph
    read = {str(value.name): list(value.shape.numpy()) for value in graph.inputs if value.shape is not None}
    assert read == {"sample": [1, 4, 16, 16], "timestep": [1], **inputs}
    feeds = feeds_for(imported.model)
    (got,) = run(imported.model, feeds).values()
    given = {one: torch.from_numpy(array) for one, array in feeds.items()}
    with torch.no_grad():
        want = module(**keywords(module, given))[0].numpy()
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def test_a_pipeline_whose_unet_reads_more_than_a_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    unet = {"in_channels": 4, "sample_size": 8, "cross_attention_dim": 24, "time_cond_proj_dim": 6}
    encoder = {"max_position_embeddings": 77, "hidden_size": 24}
    for folder, config in (("unet", unet), ("text_encoder", encoder)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"reads timestep_cond beside the prompt, .* alone"):
        open_model(tmp_path)


def test_torch_tells_nothing_beside_the_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """Its own loggers write tracebacks of what cannot be traced."""
    with pytest.raises(UserError, match="cannot be traced on input"):
        import_model(torch.nn.Conv2d(3, 4, 3), shapes={"input": (1, 2, 8, 8)})
    assert not capfd.readouterr().err


def test_sizes_can_be_given() -> None:
    imported = import_model(small(diffusers.UNet2DModel, PLAIN), shapes={"sample": (1, 3, 8, 24)})
    graph = imported.model.graph
    for value in (graph.inputs[0], graph.outputs[0]):
        assert tuple(value.shape or ()) == (1, 3, 8, 24)


def test_component_and_pipeline_folder(tmp_path: Path) -> None:
    module = small(diffusers.UNet2DModel, PLAIN)
    diffusers.DDPMPipeline(module, diffusers.DDPMScheduler(prediction_type="v_prediction")).save_pretrained(
        tmp_path / "p"
    )
    pipeline = import_model(tmp_path / "p")
    component = import_model(tmp_path / "p" / "unet")
    assert pipeline.kind == component.kind == "diffusers"
    assert pipeline.metadata["prediction_type"] == "v_prediction"
    assert pipeline.metadata["scheduler"]["num_train_timesteps"] == 1000
    weights = pipeline.model.graph.initializers
    np.testing.assert_array_equal(
        weights["conv_in.weight"].const_value.numpy(), module.conv_in.weight.detach().numpy()
    )
    assert set(component.model.graph.initializers) == set(weights)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    small(diffusers.UNet2DModel, PLAIN).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(UserError, match=r"no \.safetensors weights"):
        import_model(tmp_path)


def test_damaged_safetensors(tmp_path: Path) -> None:
    small(diffusers.UNet2DModel, PLAIN).save_pretrained(tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        import_model(tmp_path)


def test_config_gives_the_same_random_weights_for_a_seed(tmp_path: Path) -> None:
    small(diffusers.UNet2DModel, PLAIN).save_config(tmp_path)
    path = tmp_path / "config.json"
    models = [import_model(path, seed=seed) for seed in (3, 3, 4)]
    assert all(one.random_weights for one in models) and models[0].name == tmp_path.name
    first, same, other = (ir.serde.serialize_model(one.model).SerializeToString() for one in models)
    assert first == same != other


def test_published_configurations_have_the_published_sizes() -> None:
    assert known_configs() == sorted(PUBLISHED)
    for name, millions in PUBLISHED.items():
        config = json.loads((CONFIGS / f"{name}.json").read_text())
        with torch.device("meta"):
            module = getattr(diffusers, config["_class_name"]).from_config(config)
        assert round(sum(p.numel() for p in module.parameters()) / 1e6, 2) == millions, name


def test_onnx_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['diffusers'] = None\n"
        "from fick.compiler.frontends import import_model\n"
        "from fick.ir.errors import UserError\n"
        f"imported = import_model({str(fetch())!r})\n"
        "assert imported.inputs == {'noisy': 'sample', 'sigma': 'step', 'difficulty': 'prompt'}\n"
        "try: import_model('ddpm-cifar10')\n"
        "except UserError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'fick[torch]'" in result.stdout


def write(path: Path, text: str, weights: dict[str, np.ndarray] | None = None) -> Path:
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    for value in list(model.graph.inputs):
        if value.name in (weights or {}):
            assert weights is not None and value.name is not None
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(weights[value.name], name=value.name)
            model.graph.register_initializer(value)
    ir.save(model, path)
    return path


CONV = (
    "(float[1,2,8,8] x, float[1] t, float[2,2,1,1] w) => (float[1,2,8,8] y) { c = Conv(x, w) y = Mul(c, t) }"
)
MLP = "(float[1,8] x, float[8,8] w) => (float[1,8] y) { y = MatMul(x, w) }"
CLASSIFIER = "(float[1,2,8,8] x, float[5,2,8,8] w) => (float[1,5,1,1] y) { y = Conv(x, w) }"
FILTER = "(float[1,2,8,8] x) => (float[1,2,8,8] y) { y = Sigmoid(x) }"


def test_smallest_unet_of_all(tmp_path: Path) -> None:
    imported = import_model(write(tmp_path / "u.onnx", CONV, {"w": np.ones((2, 2, 1, 1), np.float32)}))
    assert imported.inputs == {"x": "sample", "t": "step"} and imported.name == "u"


@pytest.mark.parametrize(
    ("text", "weights", "message"),
    [
        (MLP, {"w": np.ones((8, 8), np.float32)}, "not a diffusion UNet: no float input of four or five"),
        (
            CLASSIFIER,
            {"w": np.ones((5, 2, 8, 8), np.float32)},
            "not a diffusion UNet: no float input of four",
        ),
        (FILTER, {}, "not a diffusion UNet: it has no convolution"),
        (CONV, {"w": np.full((2, 2, 1, 1), np.nan, np.float32)}, "weight w of u holds 4 NaN or infinite"),
        (
            CONV,
            {"w": np.array([1, 2, 3, np.inf], np.float32).reshape(2, 2, 1, 1)},
            "weight w of u holds 1 NaN",
        ),
    ],
)
def test_onnx_that_is_no_sound_unet(
    tmp_path: Path, text: str, weights: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        import_model(write(tmp_path / "u.onnx", text, weights))


@pytest.mark.parametrize("keep", [0, 10, 1000, 20_000_000])
def test_truncated_onnx(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(Path(fetch()).read_bytes()[:keep])
    with pytest.raises(UserError, match="not a complete ONNX file"):
        import_model(path)


def test_external_data_is_read(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32)
    inside = write(tmp_path / "u.onnx", CONV, {"w": weight})
    ir.save(ir.load(inside), tmp_path / "v.onnx", external_data="v.data", size_threshold_bytes=0)
    assert (tmp_path / "v.data").stat().st_size >= weight.nbytes
    feeds = {"x": np.ones((1, 2, 8, 8), np.float32), "t": np.full(1, 0.5, np.float32)}
    want, got = (run(import_model(path).model, feeds)["y"] for path in (inside, tmp_path / "v.onnx"))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(want[0, :, 3, 3], weight.sum((1, 2, 3)) / 2, rtol=1e-6)


def test_missing_external_data(tmp_path: Path) -> None:
    model = ir.load(write(tmp_path / "u.onnx", CONV, {"w": np.ones((2, 2, 1, 1), np.float32)}))
    ir.save(model, tmp_path / "v.onnx", external_data="v.data", size_threshold_bytes=0)
    (tmp_path / "v.data").unlink()
    with pytest.raises(UserError, match="which is missing"):
        import_model(tmp_path / "v.onnx")


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"the known ones are bk-sdm-small, .*sdxl-base\."):
        import_model("sd-9")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no diffusion model"):
        import_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not readable JSON"), ("[]", "JSON object"), ('{"_class_name": "VQModel"}', "describes VQModel")],
)
def test_config_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        import_model(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"image": (1, 3, 8, 8)}, "has no input image"),
        ({"sample": (1, 4, 16, 16)}, r"cannot have shape \[1, 4, 16, 16\]"),
        ({"sample": (1, 3, 16)}, r"cannot have shape \[1, 3, 16\]"),
    ],
)
def test_wrong_shapes_for_a_diffusers_unet(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_model(small(diffusers.UNet2DModel, PLAIN), shapes=shapes)


def test_module_of_unknown_shapes_and_no_module_at_all() -> None:
    with pytest.raises(UserError, match="give shapes="):
        import_model(torch.nn.Conv2d(1, 1, 3))
    with pytest.raises(UserError, match="cannot import a int"):
        import_model(3)
