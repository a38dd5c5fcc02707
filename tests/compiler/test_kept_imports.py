"""What was imported before is not exported again, and only then: the bundle is what a fresh import gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import fick
from fick.compiler.frontends import Source, open_source
from fick.compiler.kept_imports import import_source
from fick.compiler.programs import unchanged
from fick.ir.errors import UserError
from fick.ir.saved import pack

from .test_compile import tiny_model
from .test_frontends import PROMPTED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    small = {**PROMPTED, "block_out_channels": (16, 16), "sample_size": 8}
    diffusers.UNet2DConditionModel(**small).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(tiny_model(), tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def forbid_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*given: Any, **options: Any) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(torch.onnx, "export", export)


def test_a_kept_import_gives_the_bytes_of_a_fresh_one(
    folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fick.compile(folder, output=tmp_path / "fresh")
    for kept in (fresh_cache / "compilations").iterdir():
        kept.unlink()
    forbid_export(monkeypatch)
    assert "optimise" in fick.compile(folder, output=tmp_path / "kept").seconds
    assert (tmp_path / "kept").read_bytes() == (tmp_path / "fresh").read_bytes()
    fick.compile(folder, output=tmp_path / "other", sampler={"kind": "ddim"})


def test_what_changed_is_exported_again(
    folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = import_source(open_source(folder))
    forbid_export(monkeypatch)
    assert_equal(import_source(open_source(folder)), first)
    with pytest.raises(UserError, match="exported again"):
        import_source(open_source(folder, shapes={"sample": (1, 4, 8, 16)}))
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        before = (folder / name).read_bytes()
        if name == "config.json":
            (folder / name).write_text(json.dumps({**json.loads(before), "flip_sin_to_cos": False}))
        else:
            (folder / name).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(UserError, match="exported again"):
            import_source(open_source(folder))
        (folder / name).write_bytes(before)
    assert_equal(import_source(open_source(folder)), first)


def assert_equal(one: Any, other: Any) -> None:
    assert (one.kind, one.name, one.inputs) == (other.kind, other.name, other.inputs)
    assert (one.weights, one.metadata, one.numbers) == (other.weights, other.metadata, other.numbers)
    for name, value in one.model.graph.initializers.items():
        tensors = value.const_value, other.model.graph.initializers[name].const_value
        assert tensors[0].dtype is tensors[1].dtype and tensors[0].tobytes() == tensors[1].tobytes()
    assert pack(unchanged(one)) == pack(unchanged(other))


def test_a_damaged_one_is_made_anew(file: Path, fresh_cache: Path) -> None:
    first = import_source(open_source(file))
    (place,) = (fresh_cache / "imports").iterdir()
    whole = place.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:4200] + bytes([whole[4200] ^ 1]) + whole[4201:]):
        place.write_bytes(damaged)
        assert_equal(import_source(open_source(file)), first)
        assert place.read_bytes() == whole


@dataclass(frozen=True)
class Converted:
    """A source whose files have other numbers than it is imported with, as where a library converts them."""

    source: Source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def weights(self, wanted: Any) -> Any:
        return {name: 2 * array for name, array in self.source.weights(wanted).items()}


def test_weights_that_are_not_the_files_are_not_read_from_them(file: Path, fresh_cache: Path) -> None:
    plain = open_source(file).imported().model.graph.initializers["w"].const_value
    for _ in range(2):
        given = import_source(Converted(open_source(file))).model.graph.initializers["w"].const_value
        assert isinstance(plain, ir.TensorProtocol) and isinstance(given, ir.TensorProtocol)
        np.testing.assert_array_equal(given.numpy(), plain.numpy())
    assert not (fresh_cache / "imports").exists()
