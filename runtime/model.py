"""A loaded model: one call of it, or the whole denoising loop."""

from __future__ import annotations

import ctypes
import itertools
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import native_api as api
from . import samplers, schedule
from .components import Component, open_together
from .errors import FickError
from .loader import Checked
from .loop import Progress, denoise, guided, of_sample
from .noise import Noise


@dataclass(frozen=True)
class TensorInfo:
    """An input or an output. ``rate`` says how often it changes: per "prompt", "step" or "sample"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    rate: str


@dataclass(frozen=True)
class CallTime:
    """One kernel of the last run."""

    variant: str
    node: str
    kernel: str
    seconds: float


@dataclass(frozen=True)
class MemoryUse:
    """Bytes that a model occupies, with those that take turns with it. ``weights_bytes`` are mapped from the file and
    shared; under a limit they are the most that is there at a time.
    """

    weights_bytes: int
    arena_bytes: int
    state_bytes: int
    table_bytes: int

    @property
    def peak_bytes(self) -> int:
        return self.weights_bytes + self.arena_bytes + self.state_bytes + self.table_bytes


class Model:
    """One component of a bundle, by default its main one. Use from one thread at a time, except ``cancel``. Also
    a context manager.

    The arguments are those of ``load``; a bundle that was checked before, and a component that was opened with others,
    is taken as it is.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Checked | Component,
        *,
        component: str | None = None,
        threads: int = 0,
        verify: bool = True,
        memory_limit_bytes: int = 0,
    ) -> None:
        if not isinstance(bundle, Component):
            (bundle,) = open_together(
                bundle, [component], threads=threads, verify=verify, memory_limit_bytes=memory_limit_bytes
            )
        self._opened = bundle
        self._library = bundle.library
        self.manifest = bundle.manifest
        self.device = bundle.device
        self.inputs: Mapping[str, TensorInfo] = self._tensors(api.INPUT)
        self.outputs: Mapping[str, TensorInfo] = self._tensors(api.OUTPUT)
        self.alternatives = self._alternatives()
        name = bundle.name or self._library.fick_component(0).decode()
        self.schedules = schedule.read(self.manifest, name, self.alternatives)
        self.whole = schedule.whole(self.manifest, name, self.alternatives)
        self._callback: Any = None
        self._raised: BaseException | None = None
        self._cancelled = False

    def _tensors(self, direction: int) -> dict[str, TensorInfo]:
        found: dict[str, TensorInfo] = {}
        for index in range(self._library.fick_tensor_count(self._handle, direction)):
            raw = cast(Any, api.Tensor())
            status = self._library.fick_tensor_info(self._handle, direction, index, ctypes.byref(raw))
            api.check(self._library, status)
            name = raw.name.decode()
            shape = tuple(int(raw.shape[axis]) for axis in range(raw.rank))
            found[name] = TensorInfo(name, api.DTYPES[int(raw.dtype)], shape, api.RATES[int(raw.rate)])
        return found

    def _alternatives(self) -> tuple[str, ...]:
        named = (self._library.fick_alternative(self._handle, index) for index in itertools.count())
        return tuple(name.decode() for name in itertools.takewhile(lambda name: name is not None, named))

    def close(self) -> None:
        """Give the memory back. The model cannot be used afterwards."""
        self._opened.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _handle(self) -> ctypes.c_void_p:
        return self._opened.handle

    def run(
        self, *, variant: str = "full", branch: int = 0, progress: Progress | None = None, **inputs: ArrayLike
    ) -> dict[str, NDArray[Any]]:
        """One call of the model: all inputs by name -> all outputs by name.

        A single number is repeated to an input's shape. ``variant`` is one of ``alternatives``, and reads what calls
        since ``begin`` have left in its ``branch``. Raises FickError for a missing or unknown name, for a shape or
        type that does not fit, and for an alternative that reads what no call has left.
        """
        self._check_open()
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise FickError(f"input {missing[0]} is missing; the inputs are {self._described()}")
        for name, value in inputs.items():
            self._set(name, value)
        status = self._library.fick_choose(self._handle, variant.encode(), api.int32(branch))
        api.check(self._library, status)
        return self._run(progress)

    def begin(self, branches: int = 1) -> None:
        """A new picture: forget what calls have left for the next. A loop that calls the model more than once a step
        has a branch for each of these calls. Raises FickError where memory is short.
        """
        self._check_open()
        api.check(self._library, self._library.fick_begin(self._handle, api.int32(branches)))

    def order(self, calls: int, first: int = 0) -> list[str]:
        """The alternative of each call of a loop of which call ``first`` is the first to run; see ``schedule.order``.

        Warns where the model has schedules and none for so many calls.
        """
        known = schedule.nearest(self.schedules, calls)
        if known not in (None, calls):
            made = ", ".join(map(str, sorted(self.schedules)))
            warnings.warn(
                f"the model has schedules for loops of {made} calls, and {calls} follow that for {known} by position",
                stacklevel=3,
            )
        return schedule.order(self.schedules, calls, first, self.whole)

    def _check_open(self) -> None:
        if not self._handle:
            raise FickError("the model is closed; load it again")

    def _described(self) -> str:
        return ", ".join(f"{one.name} {one.dtype}{list(one.shape)}" for one in self.inputs.values())

    def _set(self, name: str, value: ArrayLike) -> None:
        if name not in self.inputs:
            raise FickError(f"there is no input {name}; the inputs are {self._described()}")
        array = self._fitted(self.inputs[name], value)
        status = self._library.fick_set_input(
            self._handle, name.encode(), array.ctypes.data_as(ctypes.c_void_p), array.nbytes
        )
        api.check(self._library, status)

    def _fitted(self, info: TensorInfo, value: ArrayLike) -> NDArray[Any]:
        try:
            array = np.asarray(value)
        except ValueError:
            raise FickError(f"input {info.name} is ragged and should have {list(info.shape)}") from None
        if array.ndim == 0 and array.dtype.kind in "iufb":
            array = np.full(info.shape, array)
        if array.shape != info.shape:
            raise FickError(
                f"input {info.name} has shape {list(array.shape)} and should have {list(info.shape)}"
            )
        if array.dtype.kind not in "iufb" or not np.can_cast(array.dtype, info.dtype, "same_kind"):
            raise FickError(f"input {info.name} is {array.dtype} and should be {info.dtype}")
        return np.ascontiguousarray(array, dtype=info.dtype)

    def _run(self, progress: Progress | None) -> dict[str, NDArray[Any]]:
        self._watch(progress)
        status = self._library.fick_run(self._handle)
        # It was for this run: whatever comes next, preparing steps among it, must not report to it.
        self._watch(None)
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        api.check(self._library, status)
        results: dict[str, NDArray[Any]] = {}
        for info in self.outputs.values():
            array = np.empty(info.shape, info.dtype)
            status = self._library.fick_get_output(
                self._handle, info.name.encode(), array.ctypes.data_as(ctypes.c_void_p), array.nbytes
            )
            api.check(self._library, status)
            results[info.name] = array
        return results

    def _watch(self, progress: Progress | None) -> None:
        def report(done: int, total: int, user: int | None) -> int:
            # An exception cannot pass through C: stop the run, and let it go on from there.
            try:
                return int(bool(progress and progress(done, total)))
            except BaseException as error:
                self._raised = error
                return 1

        # The core keeps the pointer: hold the callback as long as it may be called.
        self._callback = api.PROGRESS(report) if progress else api.PROGRESS()
        self._library.fick_set_progress(self._handle, self._callback, None)

    def generate(
        self,
        *,
        steps: int | None = None,
        sampler: Mapping[str, Any] | None = None,
        seed: int = 0,
        guidance_scale: float = 1.0,
        unconditional: Mapping[str, ArrayLike] | None = None,
        noise: ArrayLike | None = None,
        progress: Progress | None = None,
        **prompt: ArrayLike,
    ) -> NDArray[np.float32]:
        """The denoising loop: from noise to a sample, of the shape of the model's sample input.

        ``sampler`` overrides the bundle's own (see ``samplers.create``); ``prompt`` are the inputs of rate
        "prompt"; with ``guidance_scale`` other than 1, ``unconditional`` gives them again for the
        unconditional branch. Calls run what the bundle's schedule says (see ``order``). The same seed gives the
        same bytes.
        ``progress(done, total)`` counts steps and cancels by returning True.
        """
        self._check_open()
        sample, step = self.single("sample"), self.single("step")
        if guidance_scale != 1.0 and unconditional is None:
            raise FickError(
                "a guidance scale other than 1 needs the prompt inputs of the unconditional branch"
            )
        described = sampler or self.manifest.get("sampler") or {}
        loop = samplers.create(described, steps, self.residual(guidance_scale))
        self._cancelled = False
        steps_given = as_type(loop.steps, step)
        self.prepare(steps_given)
        rng = Noise(seed)
        start = self._fitted(sample, noise) if noise is not None else rng.standard_normal(sample.shape)

        order = self.order(len(loop.steps))
        branches = [prompt] if guidance_scale == 1.0 else [prompt, unconditional or {}]
        self.begin(len(branches))

        def predict(x: NDArray[np.float32], index: int) -> NDArray[np.float32]:
            outputs: list[NDArray[np.float32]] = []
            for branch, given in enumerate(branches):
                feeds: dict[str, Any] = {sample.name: x, step.name: steps_given[index], **given}
                result = self.run(variant=order[index], branch=branch, **feeds)
                outputs.append(of_sample(next(iter(result.values())), x))
            return outputs[0] if len(outputs) == 1 else guided(outputs[0], outputs[1], guidance_scale)

        x = loop.initial(np.asarray(start, dtype=np.float32))
        return denoise(loop, predict, x, rng, progress=progress, cancelled=lambda: self._cancelled)

    def residual(self, guidance_scale: float = 1.0) -> samplers.Residual:
        """How far the output is off for what was rounded, in a loop with this guidance; nothing if not measured."""
        components: Any = self.manifest.get("components")
        try:
            described = components[self._opened.name or next(iter(components))].get("residual")
        except (AttributeError, KeyError, StopIteration, TypeError):
            return samplers.NOTHING  # of a manifest that says nothing of its components
        return samplers.NOTHING if described is None else samplers.Residual.of(described, guidance_scale)

    def as_diffusers_unet(self) -> Any:
        """The UNet as diffusers' pipelines call theirs. Every call is a full one: it knows of no loop.

        Raises FickError if the source was no UNet of diffusers.
        """
        from .diffusers_unet import DiffusersUNet  # only who has diffusers wants it

        config = self.manifest.get("config")
        if not config or "sample" not in self.inputs:
            raise FickError(
                "the bundle was not compiled from a diffusers folder with a UNet; compile that one instead"
            )
        return DiffusersUNet(self, config)

    def single(self, rate: str) -> TensorInfo:
        """The one input of a rate. Raises FickError if there is none, or more than one."""
        found = [info for info in self.inputs.values() if info.rate == rate]
        if len(found) != 1:
            raise FickError(f"generate needs one input of rate {rate}; this model has {len(found)}: use run")
        return found[0]

    def prepare(self, steps: ArrayLike) -> None:
        """Compute what depends on the timestep alone for all coming steps, once."""
        self._check_open()
        info = self.single("step")
        values = np.asarray(steps).reshape(-1)
        if not values.size:
            raise FickError("there are no steps to prepare; give at least one")
        rows = np.stack([self._fitted(info, step) for step in values])
        status = self._library.fick_prepare_steps(
            self._handle, rows.ctypes.data_as(ctypes.c_void_p), rows.nbytes, len(rows)
        )
        api.check(self._library, status)

    def cancel(self) -> None:
        """Stop the run or the generation in progress, from any thread."""
        self._cancelled = True
        if self._handle:
            self._library.fick_cancel(self._handle)

    def profile(self) -> list[CallTime]:
        """Seconds of every kernel in the last run of its variant, in order."""
        self._check_open()
        times: list[CallTime] = []
        for index in range(self._library.fick_call_count(self._handle)):
            raw = api.CallProfile()
            api.check(self._library, self._library.fick_call_info(self._handle, index, ctypes.byref(raw)))
            times.append(CallTime(raw.variant.decode(), raw.node.decode(), raw.kernel.decode(), raw.seconds))
        return times

    @property
    def memory(self) -> MemoryUse:
        """What the model occupies now, with those that take turns with it."""
        self._check_open()
        raw = api.Memory()
        api.check(self._library, self._library.fick_memory_use(self._handle, ctypes.byref(raw)))
        return MemoryUse(raw.weights_bytes, raw.arena_bytes, raw.state_bytes, raw.table_bytes)


def as_type(steps: NDArray[np.float32], info: TensorInfo) -> NDArray[Any]:
    """Steps as the model takes them. Raises FickError where they are fractions and it takes whole numbers."""
    whole = np.rint(steps).astype(info.dtype) if info.dtype.startswith("int") else steps
    if not np.array_equal(whole, steps):
        raise FickError(
            f"the model takes whole steps ({info.name} is {info.dtype}) and the sampler gives fractions such as "
            f"{steps[np.argmax(whole != steps)]}; choose another sampler"
        )
    return whole
