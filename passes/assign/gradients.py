"""What each product in each format does to the output by itself, of all products at once: to first order, by gradients.

A product whose results change by d changes the output by J d, and |J d|^2 is the mean of (v . J d)^2 over vectors v of
random signs (Hutchinson, Communications in Statistics 18, 1989): v . J = g is one gradient for all products. Measured
one by one, n products cost n runs of the model; so they cost a few. A mean of so many squares is known to a factor of
1 +- sqrt(2 / (calls * probes)).

Graphs run chunk by chunk, forward and then backward, so that no more than a chunk's values and weights are held beside
what chunks hand on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...ir.program import Program
from ...ir.rates import Rate, analyse
from ..base import Arrays
from ..guidance import Guidance
from ..learned.torch_graph import TorchGraph, needed_for
from ..quantise.products import Product

CHUNK_BYTES = 1 << 29
"""Of the values that one run of nodes computes, and of its weights."""

Values = dict[str, Tensor]


class Gradients:
    """Of the results of ``products`` in variant "full" of ``program``; each of ``changed`` is the same graph with all
    of them in other formats.

    Raises UserError for an operator that torch is not taught.
    """

    def __init__(
        self,
        program: Program,
        products: Sequence[Product],
        changed: Sequence[Program],
        guidance: Guidance,
        probes: int,
    ) -> None:
        self._graph = program.variants["full"].graph
        self._products = {one.node: one for one in products}
        self._rows = {one.name: row for row, one in enumerate(products)}
        self._changed = [one.variants["full"].graph for one in changed]
        self._guidance, self._probes = guidance, probes
        self._given = {str(value.name) for value in self._graph.inputs}
        rates = analyse(self._graph, program.rates)
        constant = {name for name, rate in rates.items() if rate is Rate.CONSTANT}
        self._constant = [node for node in self._graph if node.outputs[0].name in constant]
        varying = [node for node in self._graph if node.outputs[0].name not in constant]
        self._chunks = list(_chunks(varying, constant))
        self._outputs = [str(value.name) for value in self._graph.outputs]

    def squares(self, calls: Sequence[Arrays], seed: int) -> dict[str, NDArray[np.float64]]:
        """``noise``, the squares that each product in each format adds to what a sampler takes of all calls, [products,
        changed], and ``signal``, the squares of that itself.
        """
        draw = torch.Generator().manual_seed(seed)
        handed = self._forward([{name: torch.tensor(one) for name, one in call.items()} for call in calls])
        signal, pulls = 0.0, list[Values]()
        for values in handed:
            outputs = {name: values[name] for name in self._outputs}
            signal += sum(
                float(self._guidance.taken(one).double().square().sum()) for one in outputs.values()
            )
            pulls.append({name: self._probe(one, draw) for name, one in outputs.items()})
        noise = np.zeros((len(self._rows), len(self._changed)))
        for chunk in reversed(self._chunks):
            self._backward(chunk, handed, pulls, noise)
        return {"noise": noise / self._probes, "signal": np.array(signal)}

    def _probe(self, output: Tensor, draw: torch.Generator) -> Tensor:
        """Random signs in all that is taken of an output, as rows of it feel them: [probes, *output]."""
        weights = torch.tensor(self._guidance.weights(len(output)), dtype=output.dtype)
        shape = (self._probes, len(weights), *output.shape[1:])
        signs = torch.randint(0, 2, shape, generator=draw).to(output.dtype) * 2 - 1
        return torch.einsum("tr,kt...->kr...", weights, signs)

    def _forward(self, given: Sequence[Values]) -> list[Values]:
        """What chunks read and give, of every call."""
        handed = [dict(one) for one in given]
        for place, chunk in enumerate(self._chunks):
            later = {
                str(value.name)
                for node in (one for rest in self._chunks[place + 1 :] for one in rest)
                for value in node.inputs
                if value is not None
            } | set(self._outputs)
            made = [str(value.name) for node in chunk for value in node.outputs]
            graph = self._piece(chunk, [name for name in made if name in later], handed[0])
            with torch.no_grad():
                for values in handed:
                    values.update(graph(values))
        return handed

    def _backward(
        self,
        chunk: Sequence[ir.Node],
        handed: Sequence[Values],
        pulls: Sequence[Values],
        noise: NDArray[np.float64],
    ) -> None:
        """Adds a chunk's squares, and hands what pulls at its results on to what it reads."""
        made = {str(value.name) for node in chunk for value in node.outputs}
        pulled = [name for name in pulls[0] if name in made]
        own = [self._products[node] for node in chunk if node in self._products]
        results, read = [one.name for one in own], [str(one.left.name) for one in own]
        before = {name: one for name, one in handed[0].items() if name not in made}
        graph = self._piece(chunk, list(dict.fromkeys([*pulled, *results, *read])), before)
        altered = [[self._alone(other, one) for other in self._changed] for one in own]
        for values, pull in zip(handed, pulls, strict=True):
            inputs = {name: _leaf(values[name]) for name in graph.inputs}
            with torch.enable_grad():
                found = graph(inputs)
            wanted = {name: one for name, one in {**inputs, **{name: found[name] for name in results}}.items()
                      if one.requires_grad}  # fmt: skip
            differences = self._differences(own, altered, {**values, **found})
            arriving = {name: pull.pop(name) for name in pulled}
            ends = [name for name in pulled if found[name].requires_grad]
            for probe in range(self._probes if ends else 0):
                gradients = torch.autograd.grad(
                    [found[name] for name in ends],
                    list(wanted.values()),
                    [arriving[name][probe] for name in ends],
                    retain_graph=True,
                    allow_unused=True,
                )
                felt = dict(zip(wanted, gradients, strict=True))
                self._add(own, felt, differences, noise)
                for name in inputs:
                    if (gradient := felt.get(name)) is not None and name not in self._given:
                        pull.setdefault(name, torch.zeros(self._probes, *inputs[name].shape))
                        pull[name][probe] += gradient

    def _differences(
        self, own: Sequence[Product], altered: Sequence[Sequence[TorchGraph]], values: Mapping[str, Tensor]
    ) -> list[list[Tensor]]:
        """Of every product's results, in each format."""
        with torch.no_grad():
            return [
                [graph(values)[one.name] - values[one.name] for graph in graphs]
                for one, graphs in zip(own, altered, strict=True)
            ]

    def _add(
        self,
        own: Sequence[Product],
        felt: Mapping[str, Tensor | None],
        differences: Sequence[Sequence[Tensor]],
        noise: NDArray[np.float64],
    ) -> None:
        for one, altered in zip(own, differences, strict=True):
            if (gradient := felt.get(one.name)) is None:
                continue  # nothing that the sampler takes depends on it
            for column, difference in enumerate(altered):
                noise[self._rows[one.name], column] += float((gradient * difference).sum()) ** 2

    def _piece(self, chunk: Sequence[ir.Node], outputs: Sequence[str], given: Collection[str]) -> TorchGraph:
        return TorchGraph([*self._constant, *chunk], outputs, given=set(given))

    def _alone(self, graph: ir.Graph, product: Product) -> TorchGraph:
        """A product's results in a changed graph, of what it reads in the plain one."""
        read = {str(product.left.name)}
        return TorchGraph(needed_for(graph, [product.name], read), [product.name], given=read)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(value.is_floating_point())


def _chunks(nodes: Sequence[ir.Node], constant: Collection[str]) -> Iterator[list[ir.Node]]:
    """Runs of nodes whose results, and the constants that they read, together take about as much as is said above."""
    chunk, held = list[ir.Node](), 0
    for node in nodes:
        read = [value for value in node.inputs if value is not None and value.name in constant]
        size = sum(_bytes(value) for value in (*node.outputs, *read))
        if chunk and held + size > CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
        chunk.append(node)
        held += size
    if chunk:
        yield chunk


def _bytes(value: ir.Value) -> int:
    if value.shape is None or value.dtype is None:
        return 0  # of an operand or a result that nothing knows the size of, which is a small one
    return int(math.prod(value.shape.numpy()) * value.dtype.itemsize)
