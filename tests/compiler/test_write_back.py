"""Pruned UNets in diffusers' own class, against the programs that they were pruned from; and compiled again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

import fick.compiler
from fick.compiler.calibration import drawn_calls
from fick.compiler.frontends import open_model
from fick.compiler.frontends.imported import Source
from fick.compiler.programs import unchanged
from fick.compiler.recipes import read_recipe
from fick.compiler.write_back import described, leading, write_back
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.prune import Prune, PruneChannels, PruneChannelsConfig, PruneConfig
from fick.passes.quantise import Quantise

TEXT = 16


def unet(folder: Path, **config: Any) -> Path:
    """Three stages, of which joins straddle groups; heads of sixteen."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "sample_size": 8, "block_out_channels": (32, 48, 48), "layers_per_block": (2, 1, 1), "cross_attention_dim": TEXT,
        "attention_head_dim": (2, 3, 3), "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    UNet2DConditionModel(**{**shape, **config}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_model(unet(tmp_path_factory.mktemp("unet") / "whole")).main


@pytest.fixture(scope="module")
def program(source: Source) -> Program:
    return unchanged(source.imported())


def context(program: Program, work_folder: Path | None = None) -> Context:
    calls = drawn_calls(program, 1, 0)
    return Context(referee=Interpreter, calibration=[*calls, *calls], work_folder=work_folder)


def test_blocks_in_pairs_leave_a_smaller_unet(program: Program, source: Source, tmp_path: Path) -> None:
    """As BK-SDM does: the second resnet and transformer of a stage, and the middle."""
    blocks = [
        f"{side}_blocks.{stage}.{kind}.1" for side, stage, kind in (
            ("down", 0, "resnets"), ("down", 0, "attentions"), ("up", 2, "resnets"), ("up", 2, "attentions"),
        )
    ]  # fmt: skip
    one = Prune(PruneConfig(blocks=(*blocks, "mid_block")))
    write_back(program, [one], context(program), source, tmp_path / "small")
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["layers_per_block"] == 1 and config["mid_block_type"] is None
    same_as(tmp_path / "small", apply([one], program, Context()))


def test_the_lower_third_leaves_two_stages(program: Program, source: Source, tmp_path: Path) -> None:
    one = Prune(PruneConfig(blocks=("depth.2",)))
    write_back(program, [one], context(program), source, tmp_path / "shallow")
    config = json.loads((tmp_path / "shallow" / "config.json").read_text())
    assert config["block_out_channels"] == [32, 48] and config["attention_head_dim"] == [2, 3]
    assert config["layers_per_block"] == [2, 1]
    same_as(tmp_path / "shallow", apply([one], program, Context()))


def test_channels_of_stages_leave_a_narrower_unet_that_compiles(
    program: Program, source: Source, tmp_path: Path
) -> None:
    """Other features of timesteps, other groups where skips join, narrower heads: all of it said in the folder."""
    given = context(program, tmp_path / "kept")
    one = PruneChannels(PruneChannelsConfig(share=0.5, widths="stages", calls=2, draws=1))
    write_back(program, [one], given, source, tmp_path / "narrow")
    done = apply([one], program, given)
    told = json.loads((tmp_path / "narrow" / "config.json").read_text())
    # Multiples of eight groups and of two or three heads.
    assert told["block_out_channels"] == [16, 24, 24]
    assert told["time_embedding_type"] == "fourier"
    same_as(tmp_path / "narrow", done)
    again = unchanged(open_model(tmp_path / "narrow").main.imported())
    (call,) = drawn_calls(program, 1, 1)
    ours, theirs = (next(iter(Interpreter(one)(call).values())) for one in (again, done))
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


def same_as(folder: Path, program: Program) -> None:
    """Loaded by diffusers, which told of no weight that was missing or left over."""
    module, told = UNet2DConditionModel.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    call = drawn_calls(program, 3, 1)[1]
    tensors = {name: torch.tensor(one) for name, one in call.items()}
    with torch.no_grad():
        given = module.eval()(**tensors, return_dict=False)[0].numpy()
    (wanted,) = Interpreter(program)(call).values()
    # Some thousand roundings, one after the other.
    np.testing.assert_allclose(given, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (PruneConfig(blocks=("down_blocks.0.resnets.1",)), "of stage 0 1 resnets are left on the way down and 3 on"),
        (PruneConfig(blocks=("down_blocks.0.attentions.1",)), "of down_blocks.0 2 resnets and 1 transformers are left"),
        (
            PruneConfig(blocks=("down_blocks.0.attentions.0.transformer_blocks.0.ff",)),
            r"down_blocks.0.attentions.0.transformer_blocks.0.norm3.weight is not there",
        ),
        (PruneConfig(blocks=("mid_block",), by="linear", calls=2), "is a map that was fitted in place of a block"),
    ],
)  # fmt: skip
def test_what_no_configuration_says_is_named(
    program: Program, source: Source, tmp_path: Path, config: PruneConfig, told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        write_back(program, [Prune(config)], context(program), source, tmp_path / "none")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_free_widths_are_refused(program: Program, source: Source, tmp_path: Path) -> None:
    given = context(program)
    config = PruneChannelsConfig(share=0.5, calls=2, draws=1)
    with pytest.raises(UserError, match=r"is \[.*\] and would be \[.*\] .* widths = 'stages'"):
        write_back(program, [PruneChannels(config)], given, source, tmp_path / "none")


def test_what_a_recipe_has_to_begin_with() -> None:
    pruning = Prune(PruneConfig(blocks=("mid_block",)))
    assert leading([pruning, Quantise()]) == [pruning]
    with pytest.raises(UserError, match="the recipe begins with quantise; put one of them first"):
        leading([Quantise(), pruning])


def test_bk_sdm_tiny_is_what_its_recipe_leaves_of_stable_diffusion() -> None:
    """By names and shapes alone: what the recipe removes, and its published configuration."""
    configs = Path(fick.compiler.__file__).parent / "configs"
    whole, tiny = (json.loads((configs / f"{name}.json").read_text()) for name in ("sd-1.5", "bk-sdm-tiny"))
    (one,) = read_recipe(Path(__file__).parents[2] / "examples" / "recipes" / "bk-sdm-tiny.toml").passes
    lower = ("down_blocks.2.downsamplers", "down_blocks.3", "mid_block", "up_blocks.0")
    gone = tuple(f"{name}." for name in (*one.config.blocks, *lower))
    state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes(whole).items()}
    told, renamed = described({name: one for name, one in state.items() if not name.startswith(gone)}, whole)
    assert {name: one.shape for name, one in renamed.items()} == shapes(tiny) == shapes(told)
    # 323.4 million, as published.
    assert sum(one.size for one in renamed.values()) == pytest.approx(323.4e6, rel=1e-3)


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        module = UNet2DConditionModel.from_config(config)
    return {name: tuple(one.shape) for name, one in module.state_dict().items()}
