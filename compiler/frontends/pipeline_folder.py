"""The front end for whole pipelines: what prompts are read with, the denoising network and the autoencoder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from ..checkpoint import read_checkpoint
from .architectures import ARCHITECTURES
from .diffusers_folder import DiffusersFolder, read_json
from .imported import Imported, Source, Whole, assemble_part
from .torch_module import import_module, require_torch

BRANCHES = 2
"""Classifier-free guidance runs the network with and without the prompt, as one batch."""


def _class_of(folder: Path) -> str | None:
    index = folder / "model_index.json"
    return read_json(index).get("_class_name") if index.is_file() else None


def is_pipeline(model: Any) -> bool:
    """Whether a model is the folder of a whole pipeline of a kind that becomes one bundle."""
    return isinstance(model, str | os.PathLike) and _class_of(Path(model)) in PIPELINES


def is_text_to_image(folder: Path) -> bool:
    return PIPELINES.get(_class_of(folder) or "") is _text_to_image


def open_pipeline(folder: Path, shapes: Mapping[str, Sequence[int]] | None) -> Whole:
    """Find the components of a pipeline in the layout of diffusers.

    Raises UserError for a component that is missing.
    """
    return PIPELINES[_class_of(folder) or ""](folder, shapes or {})


def _text_to_image(folder: Path, shapes: Mapping[str, Sequence[int]]) -> Whole:
    unet = _config(folder, "unet", "in_channels", "sample_size")
    encoder = _config(folder, "text_encoder", "max_position_embeddings", "hidden_size")
    tokens = encoder["max_position_embeddings"]
    own = ARCHITECTURES["UNet2DConditionModel"].inputs(SimpleNamespace(**{"sample_size": None, **unet}))
    if beside := sorted(own.keys() - {"sample", "timestep", "encoder_hidden_states"}):
        raise UserError(
            f"the UNet of {folder} reads {', '.join(beside)} beside the prompt, which a bundle that goes from text to "
            f"pictures does not give; compile {folder / 'unet'} alone"
        )
    sample = _sample(unet, "sample", shapes)
    unet_shapes = {
        "timestep": [1],
        "encoder_hidden_states": [sample[0], tokens, encoder["hidden_size"]],
        **shapes,
        "sample": sample,
    }
    components = {
        "unet": DiffusersFolder(folder, unet_shapes),
        "text_encoder": Part(folder, TEXT_ENCODER, {"input_ids": [1, tokens]}),
        **_autoencoder(folder, sample),
    }
    files, facts = _tokenizer(folder)
    return Whole(folder.resolve().name, components, files, {"tokenizer": {**facts, "tokens": tokens}})


def _class_to_image(folder: Path, shapes: Mapping[str, Sequence[int]]) -> Whole:
    network = _config(folder, "transformer", "in_channels", "sample_size", "num_embeds_ada_norm")
    sample = _sample(network, "hidden_states", shapes)
    network_shapes = {"timestep": [1], "class_labels": [sample[0]], **shapes, "hidden_states": sample}
    components = {
        "transformer": DiffusersFolder(folder, network_shapes),
        **_autoencoder(folder, sample),
    }
    classes = {"count": network["num_embeds_ada_norm"], "names": _class_names(folder)}
    return Whole(folder.resolve().name, components, facts={"classes": classes})


PIPELINES: dict[str, Callable[[Path, Mapping[str, Sequence[int]]], Whole]] = {
    "DiTPipeline": _class_to_image,
    "StableDiffusionPipeline": _text_to_image,
}
"""By the class that a folder's model_index.json names."""


def _sample(config: Mapping[str, Any], name: str, shapes: Mapping[str, Sequence[int]]) -> list[int]:
    """The shape of the input ``name``: noisy latents, one a branch."""
    size = config["sample_size"]
    return list(shapes.get(name, (BRANCHES, config["in_channels"], size, size)))


def _autoencoder(folder: Path, sample: Sequence[int]) -> dict[str, Source]:
    """Both halves, for one latent of the shape of ``sample``."""
    config = _config(folder, "vae", "in_channels", "block_out_channels")
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    image = [1, config["in_channels"], *(factor * extent for extent in sample[2:])]
    return {
        "vae_decoder": Part(folder, VAE_DECODER, {"latent": [1, *sample[1:]]}),
        "vae_encoder": Part(folder, VAE_ENCODER, {"image": image}),
    }


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
    """A component beside the denoising network."""

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


def _config(folder: Path, component: str, *needed: str) -> dict[str, Any]:
    """A component's configuration, with what shapes follow from. Raises UserError if some of it is missing."""
    path = folder / component / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} lacks its component {component}; {path} should be there")
    config = read_json(path)
    for name in needed:
        if name not in config:
            raise UserError(f"{path} does not say {name}; save the pipeline anew")
    return config


def _class_names(folder: Path) -> dict[str, int]:
    """Numbers of classes by name, where the pipeline has names. Like ImageNet's, a class may have several."""
    given = read_json(folder / "model_index.json").get("id2label") or {}
    try:
        return {name.strip(): int(number) for number, names in given.items() for name in names.split(",")}
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"id2label of {folder / 'model_index.json'} does not give names of classes by their numbers"
        ) from error


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
