"""The front end for torch modules: torch.export, then the canonical graph. Torch is imported only here."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from .architectures import architecture_of
from .imported import Imported, assemble

EXPORT_OPSET = 23
"""What torch 2.13 writes at most: GroupNormalization, LayerNormalization, Attention Gelu stay whole."""

WHOLE_NUMBERS = frozenset({"class_labels", "input_ids"})

ADDED = "added_cond_kwargs"
"""diffusers gathers SDXL's extra inputs in a dictionary of this name; the graph's inputs are its entries."""

ADDITIONS = ("text_embeds", "time_ids", "image_embeds")
"""What it gathers so."""


def require_torch() -> Any:
    """The torch package. Raises UserError if it is not installed."""
    # Progress of our own is shown; what these libraries show beside it tells a user nothing.
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "this source needs torch and diffusers; install them with `pip install 'fick[torch]'`."
        ) from error
    return torch


@dataclass(frozen=True)
class TorchModule:
    """A torch module in memory. Its code can be anything, so nothing tells whether it was compiled before."""

    module: Any
    shapes: Mapping[str, Sequence[int]] | None

    @property
    def name(self) -> str:
        return type(self.module).__name__

    def imported(self) -> Imported:
        return import_module(self.module, self.shapes)

    def torch_module(self) -> Any:
        return self.module

    def contents(self) -> None:
        return None

    def weights(self, wanted: Mapping[str, Sequence[int]]) -> Mapping[str, NDArray[Any]]:
        raise KeyError(next(iter(wanted)))


def import_module(
    module: Any,
    shapes: Mapping[str, Sequence[int]] | None,
    *,
    name: str | None = None,
    kind: str = "torch",
    random_weights: bool = False,
    metadata: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (),
    assemble: Callable[..., Imported] = assemble,
) -> Imported:
    """Export a torch module, which is left as it was. Weights are shared with the module, not copied.

    ``outputs`` renames the module's outputs.

    A model of diffusers knows its input shapes; for any other module ``shapes`` names every argument of
    ``forward``. Raises UserError if it is no module, if shapes are missing, or if it cannot be traced.
    """
    torch = require_torch()
    if not isinstance(module, torch.nn.Module):
        raise UserError(
            f"cannot import a {type(module).__name__}; give a path, a known name or a torch module."
        )
    from ...ir.canonical import canonicalise  # slow to load, and a model compiled before does not need it

    label = name or type(module).__name__
    arguments = _arguments(torch, module, shapes or {}, label)
    exported = _export(torch, module, arguments, label)
    for value, given in zip(exported.graph.outputs, outputs, strict=False):
        value.name = given
    model = canonicalise(exported)
    return assemble(
        model,
        label,
        kind,
        weights=module.state_dict().keys(),
        numbers={key: float(one) for key, one in module.state_dict().items() if one.numel() == 1},
        random_weights=random_weights,
        metadata=metadata,
    )


def _arguments(torch: Any, module: Any, shapes: Mapping[str, Sequence[int]], name: str) -> dict[str, Any]:
    """Example tensors by argument name; only their shapes and types matter."""
    architecture = architecture_of(module)
    known = architecture.inputs(module.config) if architecture else {}
    wanted = {**known, **shapes}
    if not wanted:
        raise UserError(
            f"the input shapes of {name} are not known; give shapes={{'argument': (1, 4, 64, 64), ...}}."
        )
    for argument, shape in shapes.items():
        if not architecture:
            continue
        if argument not in known:
            raise UserError(f"{name} has no input {argument}; its inputs are {', '.join(known)}.")
        published = known[argument]
        axes = range(len(published))
        # The batch is free, and so are a picture's height and width, its frames, or how many tokens there are.
        fixed = {architecture.channels} if len(axes) >= 4 else {*axes[-1:]} - {0}
        fixed |= set() if architecture.resizable else {*axes[1:]}
        alike = len(shape) == len(axes) and all(size > 0 for size in shape)
        if not alike or any(shape[axis] != published[axis] for axis in fixed):
            raise UserError(
                f"input {argument} of {name} cannot have shape {list(shape)}; right is, for example, "
                f"{list(published)}."
            )
    tensors: dict[str, Any] = {}
    for argument, shape in wanted.items():
        # Classes are numbers, unless they are vectors.
        whole = argument in WHOLE_NUMBERS and not (argument == "class_labels" and len(shape) > 1)
        kind = torch.int64 if whole else torch.float32
        tensors[argument] = torch.zeros(*shape, dtype=kind)
    return tensors


def keywords(module: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``forward`` for the graph's inputs by name, so that the first result is the first output."""
    call = dict(arguments)
    if not architecture_of(module):
        return call
    added = {key: call.pop(key) for key in ADDITIONS if key in call}
    if "image_embeds" in added:
        call.setdefault("encoder_hidden_states", None)  # the images stand for it
    return {**call, **({ADDED: added} if added else {}), "return_dict": False}


def _export(torch: Any, module: Any, arguments: dict[str, Any], name: str) -> ir.Model:
    call = keywords(module, arguments)
    parameters = list(module.parameters())
    if any(parameter.dtype != torch.float32 for parameter in parameters):
        module = copy.deepcopy(module).float()
    with _evaluating(module), _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                (),
                kwargs=call,
                dynamo=True,
                opset_version=EXPORT_OPSET,
                optimize=False,
                verify=False,
                verbose=False,
            )
        except Exception as error:  # torch.export raises whatever the module's own code raises.
            reason = first_line(error.__cause__ or error)
            sizes = ", ".join(f"{key} {list(value.shape)}" for key, value in arguments.items())
            raise UserError(f"{name} cannot be traced on {sizes}: {reason}.") from error
    model: ir.Model = program.model
    for value in model.graph.inputs:
        value.name = str(value.name).removeprefix(f"{ADDED}_")
    if len(model.graph.outputs) == 1:
        model.graph.outputs[0].name = "out_sample" if architecture_of(module) else "output"
    return model


@contextlib.contextmanager
def _evaluating(module: Any) -> Generator[None]:
    """Evaluation mode for the time of the export: no dropout."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Torch tells of its own internals, with tracebacks; what is the user's to mend is in the exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
