"""What a step may take from state in place of computing it: every way to cut the model that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from ...ir.blocks import discover
from ...ir.errors import UserError
from ...ir.program import Program
from ...ir.rates import Rate
from ..caching.cuts import branches, cross_attention, deep, encoder, tail
from ..caching.reuse import reusing
from ..costs import CostModel


def candidates(program: Program) -> dict[str, list[str]]:
    """Cuts by name, each other than those before it: ``tail``, ``deep_1``, ``decoder``, ``gated``, ``kept`` ...

    Raises UserError for a model that has none.
    """
    found: dict[str, list[str]] = {}
    for name, cut in _known(program):
        with suppress(UserError):  # not every model has every kind
            values = cut()
            if values and set(values) not in map(set, found.values()):
                found[name] = values
    if not found:
        raise UserError("the model has no blocks, skips or attention whose outputs could be kept.")
    return found


def _known(program: Program) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    graph = program.variants["full"].graph
    yield "tail", lambda: tail(graph)
    for depth in range(1, len(discover(graph).joins) + 1):
        yield f"deep_{depth}", lambda depth=depth: deep(graph, depth)
    yield "decoder", lambda: encoder(graph)
    yield "gated", lambda: cross_attention(graph, program.rates)
    yield "kept", lambda: list(branches(graph, "attention", "feed_forward").values())


def costs(program: Program, cost_model: CostModel, quantity: str) -> dict[str, float]:
    """What a call of each alternative of a program costs, by its name."""
    return {name: cost_model(alone(program, name)).total(quantity) for name in program.alternatives}


def alone(program: Program, name: str) -> Program:
    """An alternative as a program of its own, which is given what state it reads and returns what it leaves."""
    model = program.variants[name]
    rates = {str(value.name): program.rates.get(str(value.name), Rate.SAMPLE) for value in model.graph.inputs}
    return Program(f"{program.name}.{name}", {"full": model}, rates, program.weights)


def all_of(program: Program, cuts: dict[str, list[str]]) -> Program:
    """A program with all of them as alternatives, in a schedule that names each once."""
    order = ["full", *cuts]
    return reusing(program, cuts, {len(order): order})
