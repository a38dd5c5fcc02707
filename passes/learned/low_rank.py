"""Low-rank branches: what few bits lose most of is computed apart, in high precision, and costs little.

SVDQuant (Li et al., arXiv 2411.05007): W = A B + R, with A B of small rank from a singular value decomposition. It
takes the weights that stand out, and so R, which is what gets quantised, has a narrower range. A B and the rounding of
R are fitted in turn, A B to W less what R is rounded to, and the best of all rounds is kept: that whose outputs err
least on the calibration's calls, told by the second moments of the inputs.

A and B are numbers of the graph; R = W - A B is computed in it from the checkpoint's weight, so that a new checkpoint
still gives what it should.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from ...ir.annotations import EXACT
from ...ir.constants import numbers_of
from ...ir.errors import UserError
from ...ir.macs import COUNTS
from ...ir.making import Maker
from ...ir.program import Program
from ..base import Arrays, Context, Pass, PassConfig
from ..measuring import output_error, watch
from ..quantise.products import Product, products

Matrix = NDArray[np.float64]

PLACING = frozenset({"strides", "pads", "dilations"})
"""What a convolution's first product has done already when the second comes."""


class LowRankConfig(PassConfig):
    rank: int = Field(default=16, ge=1, description="Rank of a branch [1].")
    least_width: int = Field(
        default=16, ge=2, description="Channels, of inputs or outputs, for each unit of rank [channels]."
    )
    bits: int = Field(default=4, ge=2, le=8, description="Width that the rest will be quantised to [bits].")
    rounds: int = Field(
        default=8, ge=1, description="Times that branch and rest are fitted to each other [1]."
    )


class LowRank(Pass[LowRankConfig]):
    """Program -> the same function, with linear layers and 1 x 1 convolutions as a branch and a rest, and what the
    branch saves once the rest is quantised to so many bits, one scale an output channel.

    Products that it would help nothing stay whole. Raises UserError where it helps none.
    """

    name = "low-rank"
    Config = LowRankConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls: Sequence[Arrays] = context.require("calibration", self.name)
        changed = program.copy()
        graph = changed.variants["full"].graph
        found = [one for one in products(graph, program.rates) if _is_matrix(one) and self._rank(one)]
        macs = sum(COUNTS[node.op_type](node) for node in graph if node.op_type in COUNTS)
        moments = _moments(context, program, found, calls)
        errors: dict[str, dict[str, float]] = {}
        added = 0
        for one in found:
            branch = self._branch(one, moments[str(one.left.name)])
            if branch.after < branch.before:
                errors[one.name] = {"whole": branch.before, "split": branch.after}
                added += sum(COUNTS[node.op_type](node) for node in _split(one, branch))
        if not errors:
            raise UserError("pass low-rank finds no product of matrices to which a branch would be of use.")
        return changed, {
            "products": len(errors),
            "left_alone": len(found) - len(errors),
            "mac_share": added / macs,
            "product_error": errors,
            "output_error": output_error(context, program, changed, calls),
        }

    def _rank(self, product: Product) -> int:
        return min(self.config.rank, min(product.weight_shape[:2]) // self.config.least_width)

    def _branch(self, product: Product, moment: Matrix) -> _Branch:
        """The best of all rounds; ``moment`` is [rows, rows] of the inputs."""
        weight = _matrix(product)
        largest = 2 ** (self.config.bits - 1) - 1
        size = _energy(weight, moment)

        def error(rest: Matrix) -> float:
            lost = rest - _rounded(rest, largest)
            return float(np.sqrt(_energy(lost, moment) / size)) if size else 0.0

        before = best = error(weight)
        factors = np.zeros((len(weight), 0)), np.zeros((0, weight.shape[1]))
        rounded = np.zeros_like(weight)
        for _ in range(self.config.rounds):
            left, right = _decomposed(weight - rounded, self._rank(product))
            rest = weight - left @ right
            rounded = _rounded(rest, largest)
            if (found := error(rest)) < best:
                best, factors = found, (left, right)
        return _Branch(*factors, before, best)


@dataclass(frozen=True)
class _Branch:
    """``left`` [rows, rank] times ``right`` [rank, columns], and |error| / |output| of the product without and with."""

    left: Matrix
    right: Matrix
    before: float
    after: float


def _is_matrix(product: Product) -> bool:
    """Whether a product is that of a matrix as it is: of each token, or of each pixel by itself."""
    plain = (
        not product.node.attributes.get_int("transA", 0)
        and product.node.attributes.get_float("alpha", 1.0) == 1
    )
    return plain and all(size == 1 for size in product.weight_shape[2:])


def _matrix(product: Product) -> Matrix:
    """The weights as [rows, columns]: inputs times it are outputs."""
    shape = product.weight_shape
    weight = numbers_of(product.right).astype(np.float64).reshape(shape[:2])
    return weight if product.column_axis == 1 else weight.T


def _rounded(weight: Matrix, largest: int) -> Matrix:
    """As symmetric integers of one scale a column give it back."""
    scale = np.maximum(np.abs(weight).max(0), np.finfo(np.float32).tiny) / largest
    return np.rint(weight / scale) * scale


def _decomposed(matrix: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """The nearest matrix of that rank, as two factors of like size, in float32's numbers."""
    if len(matrix) > matrix.shape[1]:
        right, left = _decomposed(matrix.T, rank)
        return left.T, right.T
    # Its first left singular vectors, and what the matrix is along them (Eckart and Young).
    squares, vectors = np.linalg.eigh(matrix @ matrix.T)
    root = np.maximum(squares[-rank:], np.finfo(np.float32).tiny) ** 0.25
    left, right = vectors[:, -rank:] * root, (vectors[:, -rank:] / root).T @ matrix
    return left.astype(np.float32).astype(np.float64), right.astype(np.float32).astype(np.float64)


def _energy(weight: Matrix, moment: Matrix) -> float:
    """The mean square that a matrix gives, summed over its outputs."""
    return float(np.sum(weight * (moment @ weight)))


def _moments(
    context: Context, program: Program, found: Sequence[Product], calls: Sequence[Arrays]
) -> Mapping[str, Matrix]:
    """Second moments [rows, rows] of what the products read, by the names of these values."""
    axes = {str(one.left.name): 1 if one.node.op_type == "Conv" else -1 for one in found}
    sums: dict[str, Matrix] = {}
    for inputs, results in zip(calls, watch(context, program, list(axes), calls), strict=True):
        for name, axis in axes.items():
            value = results[name] if name in results else inputs[name]
            rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
            sums[name] = sums.get(name, 0) + (rows.T @ rows).astype(np.float64) / (len(rows) * len(calls))
    return sums


def _split(product: Product, branch: _Branch) -> list[ir.Node]:
    """Put the rest and the branch, and their sum, in the place of the product; gives the branch's two products."""
    node, maker = product.node, Maker(product.node, "low-rank")
    assert node.outputs[0].shape is not None and product.left.shape is not None
    shape, rank = node.outputs[0].shape.numpy(), branch.left.shape[1]
    by_columns = product.column_axis == 1
    first, second = (
        maker.constant((one if by_columns else one.T).astype(np.float32))
        for one in (branch.left, branch.right)
    )
    outer = product.weight_shape[2:]
    pair = (first, second) if by_columns else (second, first)
    carried = maker.add("MatMul", pair, product.weight_shape[:2])
    if outer:
        carried = maker.add(
            "Reshape", (carried, maker.constant(np.array(product.weight_shape))), product.weight_shape
        )
        first, second = (_as_filters(maker, one) for one in (first, second))
    rest = maker.add("Sub", (product.right, carried), product.weight_shape)
    attributes = {key: one.value for key, one in node.attributes.items()}
    remaining = maker.add(
        node.op_type,
        (product.left, rest, *(one for one in node.inputs[2:] if one is not None)),
        shape,
        **attributes,
    )
    narrow_shape = list(shape)
    narrow_shape[1 if node.op_type == "Conv" else -1] = rank
    narrow = maker.add(node.op_type, (product.left, first), narrow_shape, **attributes)
    kept = {key: one for key, one in attributes.items() if key not in PLACING}
    wide = maker.add(node.op_type, (narrow, second), shape, **kept)
    maker.replace(maker.add("Add", (remaining, wide), shape))
    made = [one for value in (narrow, wide) if (one := value.producer()) is not None]
    for one in made:
        one.metadata_props[EXACT] = "low-rank"
    return made


def _as_filters(maker: Maker, matrix: ir.Value) -> ir.Value:
    assert matrix.shape is not None
    shape = (*matrix.shape.numpy(), 1, 1)
    return maker.add("Reshape", (matrix, maker.constant(np.array(shape))), shape)
