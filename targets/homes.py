"""What outlives a run, and where it lies: inputs, outputs, values that variants share, and state."""

from __future__ import annotations

import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.program import PROLOGUE, Program
from . import memory
from .compiled import Kept, Space, StateTensor
from .graph_facts import shape_of
from .lowering import Buffer, Lowering
from .views import View


class Homes:
    """``views`` are those that every variant may read, by the names of their values.

    What an alternative returns and what it leaves as state has one home, whichever alternative ran. A variant computes
    straight into it where it can; where the home is still to be read, or lies otherwise, it copies at its end.
    """

    def __init__(self, lowering: Lowering, program: Program) -> None:
        self.lowering = lowering
        self.program = program
        self.views: dict[str, View] = {}
        self.inputs: list[tuple[str, str]] = []
        self.carried: dict[str, list[str]] = {}
        self._outputs: dict[str, View] = {}
        self._state: dict[str, View] = {}
        self._within: dict[str, str] = {}
        for name, rate in program.rates.items():
            value = self._graph_input(name)
            self.views[name] = self._room(
                f"input:{name}", View.dense("", shape_of(value)), lowering.dtype(value)
            )
            self.inputs.append((name, rate.name.lower()))

    def _graph_input(self, name: str) -> ir.Value:
        for model in self.program.variants.values():
            for value in model.graph.inputs:
                if value.name == name:
                    return value
        raise UserError(f"input {name} is read by no variant of the program")

    def _room(self, name: str, like: View, dtype: str, space: Space = "state") -> View:
        """A buffer of its own for a dense view."""
        self.lowering.buffers[name] = Buffer(name, dtype, like.count, space)
        return View(name, like.shape, like.strides)

    def settle(self, variant: str) -> None:
        """Give a home to what the variant just lowered leaves behind. Of the alternatives, "full" is the first."""
        if variant in PROLOGUE:
            self._carry(variant)
            return
        for value in self.program.returned(variant):
            name, view = str(value.name), self.lowering.view(value)
            if name not in self._outputs:
                # The caller reads it row by row.
                like = View.dense("", view.shape)
                self._outputs[name] = self._room(f"output:{name}", like, self.lowering.dtype(value))
            self._bring(view, self._outputs[name], f"output {name}", direct=True)
        self._leave(variant)

    def _carry(self, variant: str) -> None:
        for value in self.program.variants[variant].graph.outputs:
            view = self.lowering.view(value)
            self.views[str(value.name)] = view
            # A view of an input or of a constant stays one: carrying it would only copy it.
            if self.lowering.buffers[view.buffer].space == "arena":
                self.lowering.buffers[view.buffer].space = "state"
                self.carried.setdefault(variant, []).append(view.buffer)

    def _leave(self, variant: str) -> None:
        lowering, read = self.lowering, self.program.state_read(variant)
        left = {name: lowering.view(value) for name, value in self.program.state_left(variant).items()}
        for name in self.program.state:
            if name not in self._state:
                self._state[name] = self.views[name] = self._first_home(name, left[name])
        # What was state before this run may be about to be overwritten.
        for name, view in left.items():
            if lowering.buffers[view.buffer].space == "kept" and view != self._state[name]:
                left[name] = lowering.fresh(view.shape, view.order(), self._dtype(view))
                lowering.copy(left[name], view, f"state {name}")
        for name, view in left.items():
            self._bring(view, self._state[name], f"state {name}", direct=name not in read)

    def _first_home(self, name: str, view: View) -> View:
        """As "full" lays the value out, so that it need not copy. In a narrower format only where all leave it so."""
        lefts = [self.program.state_left(one).get(name) for one in self.program.alternatives]
        narrow = {_stored(value) for value in lefts if value is not None}
        dtype = self.lowering.dtype(next(value for value in lefts if value is not None))
        if len(narrow) == 1 and None not in narrow:
            dtype = self._dtype(view)
        return self._room(f"state:{name}", View.dense("", view.shape, view.order()), dtype, "kept")

    def _bring(self, view: View, home: View, label: str, *, direct: bool) -> None:
        lowering = self.lowering
        buffer, wanted = lowering.buffers[view.buffer], lowering.buffers[home.buffer]
        whole = (buffer.count, buffer.dtype) == (wanted.count, wanted.dtype) and view.is_dense_in(
            home.order()
        )
        if direct and whole and buffer.space == "arena":
            buffer.space = wanted.space
            self._within[buffer.name] = wanted.name
        elif view != home:
            lowering.copy(home, view, label)

    def _dtype(self, view: View) -> str:
        return self.lowering.buffers[view.buffer].dtype

    def layout(self) -> tuple[dict[str, int], dict[Space, int], dict[str, tuple[int, int]]]:
        """Offsets of all that outlives a run, sizes of its spaces, and the run of bytes that each variant carries."""
        offsets: dict[str, int] = {}
        sizes: dict[Space, int] = {"state": 0, "kept": 0}
        regions: dict[str, tuple[int, int]] = {}
        owners = {
            "inputs": [self.views[name].buffer for name, _ in self.inputs],
            **self.carried,
            "outputs": [view.buffer for view in self._outputs.values()],
            "kept": [view.buffer for view in self._state.values()],
        }
        for owner, buffers in owners.items():
            space: Space = "kept" if owner == "kept" else "state"
            start = sizes[space]
            for name in dict.fromkeys(buffers):
                offsets[name] = sizes[space]
                sizes[space] += memory.aligned(self.lowering.buffers[name].size_bytes)
            regions[owner] = start, sizes[space] - start
        offsets |= {name: offsets[home] for name, home in self._within.items()}
        return offsets, sizes, {name: regions[name] for name in self.carried}

    def tensors(self, offsets: dict[str, int]) -> tuple[tuple[StateTensor, ...], tuple[StateTensor, ...]]:
        """Inputs and outputs, as the caller sees them."""

        def tensor(name: str, view: View, rate: str) -> StateTensor:
            return StateTensor(name, self._dtype(view), view.shape, offsets[view.buffer], rate)  # type: ignore[arg-type]

        inputs = (tensor(name, self.views[name], rate) for name, rate in self.inputs)
        return tuple(inputs), tuple(tensor(name, view, "sample") for name, view in self._outputs.items())

    def kept(self, offsets: dict[str, int]) -> tuple[Kept, ...]:
        """The state, and which alternatives read and leave it."""
        program = self.program
        return tuple(
            Kept(
                name,
                self._dtype(view),
                view.shape,
                offsets[view.buffer],
                tuple(one for one in program.alternatives if name in program.state_read(one)),
                tuple(one for one in program.alternatives if name in program.state_left(one)),
            )
            for name, view in self._state.items()
        )


def _stored(value: ir.Value) -> ir.DataType | None:
    """The format that a value is widened from, if it is."""
    node = value.producer()
    narrow = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    return narrow.dtype if narrow is not None else None
