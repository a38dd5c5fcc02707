"""The systems that fick is measured beside, each ready to run the source of a bundle on given inputs."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...ir import referee
from ...ir.errors import UserError, first_line
from ..frontends import import_model, open_source
from ..frontends.torch_module import keywords, require_torch
from .int8_peer import quantised
from .rounds import Run

Precision = Literal["float32", "bfloat16", "int8"]
Feeds = Mapping[str, NDArray[Any]]

OPSET = 18
"""The newest that every peer reads without trouble."""


@dataclass(frozen=True)
class Task:
    """What a peer is to run. ``source`` is what ``import_model`` takes, ``feeds`` gives each input an array.

    0 threads are as many as there are cores.
    """

    source: Any
    feeds: Feeds
    threads: int = 0
    precision: Precision = "float32"

    @property
    def workers(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))

    @property
    def sizes(self) -> dict[str, list[int]]:
        """The bundle's own sizes: the source by itself may be imported at others."""
        return {name: list(value.shape) for name, value in self.feeds.items()}

    @property
    def file(self) -> Path | None:
        """The source where it is an .onnx file."""
        return Path(self.source) if str(self.source).endswith(".onnx") else None


@dataclass(frozen=True)
class Peer:
    """``package`` is what has to be installed, by ``install``; ``precisions`` are those of its CPU kernels."""

    start: Callable[[Task], Run]
    package: str
    install: str
    precisions: tuple[Precision, ...]


def known(name: str) -> Peer:
    """Raises UserError for a peer that is not."""
    if name not in PEERS:
        raise UserError(f"peer {name!r} is not known; the peers are {', '.join(PEERS)}")
    return PEERS[name]


def peer(name: str, task: Task) -> Run:
    """A peer in this process.

    Raises UserError for a peer that is unknown, not installed, without kernels for the precision, or that cannot run
    the source.
    """
    wanted = known(name)
    if task.precision not in wanted.precisions:
        raise UserError(
            f"peer {name} has no {task.precision} kernels for CPUs, only {' and '.join(wanted.precisions)}; "
            "leave it out or measure one of these"
        )
    try:
        importlib.import_module(wanted.package)
    except ImportError:
        raise UserError(f"peer {name} is not installed; install it with `{wanted.install}`") from None
    if task.file is not None and not task.file.is_file():
        raise UserError(f"{task.source}: no such file; give the bundle's source with --model")
    try:
        return wanted.start(task)
    except UserError:
        raise
    except Exception as error:  # Each peer raises its own kinds on a model that it cannot read.
        raise UserError(
            f"peer {name} cannot run {task.source} on the bundle's inputs: {first_line(error)}"
        ) from error


def _onnxruntime(task: Task) -> Run:
    """ONNX Runtime on an .onnx file as it is; on any other source in canonical form, integers apart."""
    with tempfile.TemporaryDirectory(prefix="fick-peer-") as folder:
        if task.precision == "int8":
            model = _onnx_file(task, Path(folder))
        else:
            model = task.file or import_model(task.source, shapes=task.sizes).model
        session = referee.session(model, threads=task.workers)
    return lambda: np.asarray(session.run(None, dict(task.feeds))[0])


def _openvino(task: Task) -> Run:
    import openvino  # pyright: ignore[reportMissingImports] - the extra "peers" brings it

    options = {"INFERENCE_NUM_THREADS": str(task.workers), "ENABLE_CPU_PINNING": "NO"}
    # Beside integers it has its own choice, which is what the CPU is fastest with.
    hints = {"float32": "f32", "bfloat16": "bf16"}
    if task.precision in hints:
        options["INFERENCE_PRECISION_HINT"] = hints[task.precision]
    core = openvino.Core()
    with tempfile.TemporaryDirectory(prefix="fick-peer-") as folder:
        model = core.read_model(os.fspath(_onnx_file(task, Path(folder))))
        model.reshape(task.sizes)
        request = core.compile_model(model, "CPU", options).create_infer_request()
    return lambda: np.array(next(iter(request.infer(dict(task.feeds)).values())))


def _torch(task: Task) -> Run:
    """The module through torch.compile, which needs a C++ compiler."""
    torch = require_torch()
    return _torch_run(task, lambda module: torch.compile(module, dynamic=False))


def _torch_eager(task: Task) -> Run:
    """The module as it is."""
    return _torch_run(task, lambda module: module)


def _torch_run(task: Task, prepared: Callable[[Any], Any]) -> Run:
    if task.file is not None:
        raise UserError(
            f"peers torch and torch-eager run no .onnx files such as {task.source}; leave them out"
        )
    torch = require_torch()
    torch.set_num_threads(task.workers)
    wanted = getattr(torch, task.precision)
    module = _torch_module(task).to(wanted)
    tensors = _tensors(task).items()
    arguments = keywords(
        module, {name: one.to(wanted) if one.is_floating_point() else one for name, one in tensors}
    )
    compiled = prepared(module)

    def run() -> NDArray[Any]:
        with torch.inference_mode():
            result = compiled(**arguments)
        return (result[0] if isinstance(result, tuple) else result).float().numpy()

    run()
    return run


def _iree(task: Task) -> Run:
    """IREE, compiling for this machine's own CPU."""
    from iree import compiler, runtime  # pyright: ignore[reportMissingImports] - the extra "peers" brings it
    from iree.compiler.tools.import_onnx import __main__ as importer  # pyright: ignore[reportMissingImports]

    runtime.flags.parse_flags(f"--task_topology_max_group_count={task.workers}")
    with tempfile.TemporaryDirectory(prefix="fick-peer-") as scratch:
        folder = Path(scratch)
        mlir, weights = (os.fspath(folder / name) for name in ("model.mlir", "weights.irpa"))
        # What was exported is of the right opset; to raise a file to it, all of it is held at once.
        raised = ("--large-model",) if task.file is None else ("--opset-version", str(OPSET))
        source = os.fspath(_onnx_file(task, folder))
        apart = ("--externalize-params", "--save-params-to", weights)
        importer.main(importer.parse_arguments([source, "-o", mlir, *raised, *apart]))
        binary = compiler.compile_file(mlir, target_backends=["llvm-cpu"], input_type="onnx", extra_args=IREE)
        config = runtime.Config("local-task")
        index = runtime.ParameterIndex()
        index.load(weights)
        given = runtime.create_io_parameters_module(config.vm_instance, index.create_provider(scope="model"))
        code = runtime.VmModule.copy_buffer(config.vm_instance, binary)
        module = runtime.load_vm_modules(given, code, config=config)[-1]
    call = module[next(name for name in module.vm_module.function_names if not name.endswith("$async"))]
    inputs = [runtime.asdevicearray(config.device, np.ascontiguousarray(one)) for one in task.feeds.values()]
    return lambda: np.asarray(call(*inputs))


IREE = ("--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3")


def _torch_module(task: Task) -> Any:
    source: Any = open_source(task.source, shapes=task.sizes)
    return source.torch_module().eval()


def _tensors(task: Task) -> dict[str, Any]:
    torch = require_torch()
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in task.feeds.items()}


def _onnx_file(task: Task, folder: Path) -> Path:
    """In integers where the task says so."""
    path = task.file or exported(task, folder)
    return quantised(path, task.feeds, folder) if task.precision == "int8" else path


def exported(task: Task, folder: Path) -> Path:
    torch = require_torch()
    module = _torch_module(task)
    path = folder / "model.onnx"
    torch.onnx.export(
        module, (), os.fspath(path), kwargs=keywords(module, _tensors(task)), dynamo=True, opset_version=OPSET,
        input_names=list(task.feeds), verbose=False, external_data=True,
    )  # fmt: skip
    return path


PEERS = {
    "onnxruntime": Peer(_onnxruntime, "onnxruntime", "pip install 'fick[compile]'", ("float32", "int8")),
    "openvino": Peer(_openvino, "openvino", "pip install 'fick[peers]'", ("float32", "bfloat16", "int8")),
    "torch": Peer(_torch, "torch", "pip install 'fick[torch]'", ("float32", "bfloat16")),
    "torch-eager": Peer(_torch_eager, "torch", "pip install 'fick[torch]'", ("float32", "bfloat16")),
    "iree": Peer(_iree, "iree.compiler", "pip install 'fick[peers]'", ("float32",)),
}
