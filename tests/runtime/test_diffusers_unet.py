"""A compiled UNet in the place of a pipeline's own: what it takes, and how batches are cut."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fick.runtime import FickError
from fick.runtime.diffusers_unet import DiffusersUNet

SHAPES = {
    "sample": (2, 1, 2, 2), "timestep": (1,), "encoder_hidden_states": (2, 3, 4), "text_embeds": (2, 5),
    "time_ids": (2, 6),
}  # fmt: skip


class Network:
    """Adds up what it is given, row by row."""

    def __init__(self) -> None:
        self.inputs = {name: SimpleNamespace(shape=shape) for name, shape in SHAPES.items()}

    def run(self, **feeds: Any) -> dict[str, Any]:
        assert {name: np.shape(one) for name, one in feeds.items()} == SHAPES
        rows = sum(
            feeds[name].sum(axis=tuple(range(1, feeds[name].ndim))) for name in SHAPES if name != "timestep"
        )
        return {"out_sample": feeds["sample"] + rows[:, None, None, None] + feeds["timestep"]}


UNET = DiffusersUNet(Network(), {"projection_class_embeddings_input_dim": 41})


def test_what_sdxl_gathers_beside_the_prompt_goes_to_inputs_of_its_names() -> None:
    rng = np.random.default_rng(0)
    given = {
        name: torch.from_numpy(rng.standard_normal((3, *shape[1:]), dtype=np.float32))
        for name, shape in SHAPES.items()
        if name != "timestep"
    }
    added = {name: given.pop(name) for name in ("text_embeds", "time_ids")}
    got = UNET(**given, timestep=torch.tensor(7), added_cond_kwargs=added, timestep_cond=None).sample
    rows = sum(one.reshape(3, -1).sum(1) for one in (*given.values(), *added.values()))
    torch.testing.assert_close(got, given["sample"] + rows[:, None, None, None] + 7)
    assert UNET.add_embedding.linear_1.in_features == 41


def test_a_batch_has_one_timestep() -> None:
    sample, prompt = torch.zeros(SHAPES["sample"]), torch.zeros(SHAPES["encoder_hidden_states"])
    with pytest.raises(FickError, match="one timestep for the whole batch"):
        UNET(sample, torch.tensor([7, 8]), prompt)


def test_what_was_not_compiled_in_is_refused() -> None:
    with pytest.raises(FickError, match="takes no mid_block_additional_residual"):
        UNET(torch.zeros(SHAPES["sample"]), 7, mid_block_additional_residual=torch.zeros(1))
