"""The front end for whole text-to-image pipelines: tokenizer, text encoder, UNet and autoencoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from ..checkpoint import read_checkpoint
from .diffusers_folder import DiffusersFolder, read_json
from .imported import Imported, Whole, assemble_part
from .torch_module import import_module, require_torch

PIPELINES = frozenset({"StableDiffusionPipeline"})
NEEDED = {
    "unet": ("in_channels", "sample_size"),
    "text_encoder": ("max_position_embeddings", "hidden_size"),
    "vae": ("in_channels", "block_out_channels"),
}
"""What the shapes of a pipeline follow from."""

BRANCHES = 2
"""Classifier-free guidance runs the UNet with and without the prompt, as one batch."""


def is_text_to_image(folder: Path) -> bool:
    index = folder / "model_index.json"
    return index.is_file() and read_json(index).get("_class_name") in PIPELINES


def open_pipeline(folder: Path, shapes: Mapping[str, Sequence[int]] | None) -> Whole:
    """Find the components of a pipeline in the layout of diffusers.

    Raises UserError for a component that is missing.
    """
    configs = {name: _config(folder, name) for name in ("unet", "text_encoder", "vae")}
    for component, names in NEEDED.items():
        for name in names:
            if name not in configs[component]:
                raise UserError(
                    f"{folder / component / 'config.json'} does not say {name}; save the pipeline anew"
                )
    tokens = configs["text_encoder"]["max_position_embeddings"]
    channels, size = configs["unet"]["in_channels"], configs["unet"]["sample_size"]
    factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    sample = list((shapes or {}).get("sample", (BRANCHES, channels, size, size)))
    latent = [1, *sample[1:]]
    width = configs["text_encoder"]["hidden_size"]
    unet_shapes = {
        "timestep": [1],
        "encoder_hidden_states": [sample[0], tokens, width],
        **(shapes or {}),
        "sample": sample,
    }
    image = [1, configs["vae"]["in_channels"], *(factor * extent for extent in sample[2:])]
    components = {
        "unet": DiffusersFolder(folder, unet_shapes),
        "text_encoder": Part(folder, TEXT_ENCODER, {"input_ids": [1, tokens]}),
        "vae_decoder": Part(folder, VAE_DECODER, {"latent": latent}),
        "vae_encoder": Part(folder, VAE_ENCODER, {"image": image}),
    }
    files, facts = _tokenizer(folder)
    return Whole(folder.resolve().name, dict(components), files, {"tokenizer": {**facts, "tokens": tokens}})


@dataclass(frozen=True)
class Kind:
    """How a component is read and called: a class of ``library``, and what stands for its ``forward``."""

    folder: str
    library: str
    cls: str
    forward: Callable[..., Any]
    outputs: tuple[str, ...]


def _encode_text(self: Any, input_ids: Any) -> Any:
    encoder: Any = super(type(self), self)
    return encoder.forward(input_ids).last_hidden_state


def _decode(self: Any, latent: Any) -> Any:
    scaled = latent / self.config.scaling_factor
    return self.decode(scaled + (self.config.shift_factor or 0.0), return_dict=False)[0]


def _encode(self: Any, image: Any) -> Any:
    posterior = self.encode(image).latent_dist
    scale = self.config.scaling_factor
    return (posterior.mean - (self.config.shift_factor or 0.0)) * scale, posterior.std * scale


TEXT_ENCODER = Kind("text_encoder", "transformers", "CLIPTextModel", _encode_text, ("encoder_hidden_states",))
VAE_DECODER = Kind("vae", "diffusers", "AutoencoderKL", _decode, ("image",))
VAE_ENCODER = Kind("vae", "diffusers", "AutoencoderKL", _encode, ("mean", "deviation"))


@dataclass(frozen=True)
class Part:
    """A component beside the UNet."""

    pipeline: Path
    kind: Kind
    shapes: Mapping[str, Sequence[int]]

    @property
    def name(self) -> str:
        return f"{self.kind.folder} of {self.pipeline.resolve().name}"

    def imported(self) -> Imported:
        require_torch()
        library = __import__(self.kind.library)
        try:
            module = getattr(library, self.kind.cls).from_pretrained(
                str(self._folder), use_safetensors=True, local_files_only=True
            )
        except Exception as error:  # The libraries and safetensors raise their own kinds on damaged files.
            reason = first_line(error)
            raise UserError(f"the weights in {self._folder} cannot be read: {reason}.") from error
        # The same module under another forward, so that weights keep the names of their checkpoint.
        module.__class__ = type(self.kind.cls, (type(module),), {"forward": self.kind.forward})
        return import_module(
            module,
            self.shapes,
            name=self.name,
            kind="diffusers",
            outputs=self.kind.outputs,
            assemble=assemble_part,
        )

    def contents(self) -> tuple[str, list[Path]]:
        return f"{self.kind.cls} {dict(self.shapes)}", [self._folder / "config.json", *self._weights]

    def weights(self, wanted: Mapping[str, Sequence[int]]) -> Mapping[str, NDArray[Any]]:
        return read_checkpoint(self._weights, wanted)

    @property
    def _folder(self) -> Path:
        return self.pipeline / self.kind.folder

    @property
    def _weights(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"))


def _config(folder: Path, component: str) -> dict[str, Any]:
    path = folder / component / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} lacks its component {component}; {path} should be there")
    return read_json(path)


def _tokenizer(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """CLIP's vocabulary and merges as files of the bundle, and the numbers of its special tokens."""
    place = folder / "tokenizer"
    if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
        vocabulary = read_json(place / "vocab.json")
        lines = (place / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [line.split() for line in lines if line and not line.startswith("#version")]
    elif (place / "tokenizer.json").is_file():
        model = read_json(place / "tokenizer.json").get("model", {})
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict) or "merges" not in model:
            raise UserError(f"{place / 'tokenizer.json'} holds no byte-pair encoding; it is not CLIP's")
        vocabulary = model["vocab"]
        merges = [pair if isinstance(pair, list) else pair.split() for pair in model["merges"]]
    else:
        raise UserError(f"{folder} lacks its component tokenizer; {place / 'vocab.json'} should be there")
    config = read_json(place / "tokenizer_config.json") if (place / "tokenizer_config.json").is_file() else {}
    special = {
        "start": _token(config.get("bos_token"), "<|startoftext|>"),
        "end": _token(config.get("eos_token"), "<|endoftext|>"),
        "padding": _token(config.get("pad_token"), "<|endoftext|>"),
    }
    unknown = [token for token in special.values() if token not in vocabulary]
    if unknown:
        raise UserError(f"the tokenizer in {place} has no token {unknown[0]}; it is not CLIP's")
    files = {
        "tokenizer/vocab.json": json.dumps(vocabulary, ensure_ascii=False).encode(),
        "tokenizer/merges.txt": "".join(f"{first} {second}\n" for first, second in merges).encode(),
    }
    return files, {name: vocabulary[token] for name, token in special.items()}


def _token(given: Any, default: str) -> str:
    """A special token, which some versions write as text and some as an object."""
    if isinstance(given, dict):
        return str(given.get("content", default))
    return str(given or default)
