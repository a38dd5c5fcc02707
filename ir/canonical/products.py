"""Products that are said by MatMul: Einsum of any operands, vectors, and Gemm with factors of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from string import ascii_letters
from typing import Any

import onnx_ir as ir

from .propagate import dims
from .writing import first, number, operand, table, written_out


def _terms(node: ir.Node) -> tuple[list[str], str] | None:
    """Letters of each operand and of the result, an ellipsis as letters of its own; None where the equation has a
    diagonal or sizes that differ.
    """
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, out = equation.partition("->")
    operands = left.split(",")
    if len(operands) != len(node.inputs):
        return None
    named = [len(term.replace("...", "")) for term in operands]
    open_axes = max(len(dims(value)) - count for value, count in zip(node.inputs, named, strict=True))
    spare = [letter for letter in ascii_letters if letter not in equation][:open_axes]
    if not arrow:
        counts = Counter(letter for letter in left if letter.isalpha())
        out = ("..." if "..." in left else "") + "".join(
            sorted(k for k, count in counts.items() if count == 1)
        )
    for place, value in enumerate(node.inputs):
        own = len(dims(value)) - named[place]
        operands[place] = operands[place].replace("...", "".join(spare[open_axes - own :]))
    out = out.replace("...", "".join(spare))
    sizes: dict[str, int] = {}
    for term, value in zip(operands, node.inputs, strict=True):
        if len(set(term)) != len(term) or len(term) != len(dims(value)):
            return None
        if any(
            sizes.setdefault(letter, size) != size for letter, size in zip(term, dims(value), strict=True)
        ):
            return None
    known = len(set(out)) == len(out) and set(out) <= set(sizes)
    return (operands, out) if known else None


def _is_einsum(node: ir.Node) -> bool:
    return _terms(node) is not None


def _einsum(op: Any, node: ir.Node) -> Any:
    """The operands one after another, each product over what no later one and not the result has."""
    found = _terms(node)
    assert found is not None
    terms, out = found
    sizes = {
        letter: size
        for term, value in zip(terms, node.inputs, strict=True)
        for letter, size in zip(term, dims(value), strict=True)
    }
    result: Any = first(node)
    letters = terms[0]
    for place, term in enumerate(terms[1:], start=1):
        later = "".join([out, *terms[place + 1 :]])
        result, letters = _product(op, (result, letters), (node.inputs[place], term), later, sizes)
    result, letters = _summed(op, result, letters, out)
    turned = _permuted(op, result, letters, out)
    return op.Identity(turned) if turned is node.inputs[0] else turned


def _summed(op: Any, value: Any, letters: str, wanted: Collection[str]) -> tuple[Any, str]:
    """The sum over the axes that are not wanted."""
    axes = [axis for axis, letter in enumerate(letters) if letter not in wanted]
    if not axes:
        return value, letters
    kept = "".join(letter for letter in letters if letter in wanted)
    return op.ReduceSum(value, table(op, axes), keepdims=0), kept


def _product(
    op: Any, left: tuple[Any, str], right: tuple[Any, str], later: str, sizes: dict[str, int]
) -> tuple[Any, str]:
    """Of two operands, each a value and its letters."""
    a, first_letters = _summed(op, *left, {*right[1], *later})
    b, second_letters = _summed(op, *right, {*first_letters, *later})
    both = [letter for letter in first_letters if letter in second_letters]
    batch = "".join(sorted((one for one in both if one in later), key=later.index))
    inner = "".join(one for one in both if one not in later)
    rows = "".join(one for one in first_letters if one not in second_letters)
    columns = "".join(one for one in second_letters if one not in first_letters)
    if not inner:
        ones = [1] * len(columns)
        a = _permuted(op, a, first_letters, batch + rows)
        b = _permuted(op, b, second_letters, batch + columns)
        a = op.Reshape(a, table(op, [*(sizes[one] for one in batch + rows), *ones])) if columns else a
        spread = [*(sizes[one] for one in batch), *[1] * len(rows), *(sizes[one] for one in columns)]
        b = op.Reshape(b, table(op, spread)) if rows else b
        return op.Mul(a, b), batch + rows + columns
    a = _matrix(op, a, first_letters, batch, rows, inner, sizes)
    b = _matrix(op, b, second_letters, batch, inner, columns, sizes)
    result = op.MatMul(a, b)
    if len(rows) != 1 or len(columns) != 1:
        result = op.Reshape(result, table(op, [sizes[one] for one in batch + rows + columns]))
    return result, batch + rows + columns


def _matrix(
    op: Any, value: Any, letters: str, batch: str, rows: str, columns: str, sizes: dict[str, int]
) -> Any:
    """(batch..., rows, columns), each of the two one axis whatever letters it has."""
    turned = _permuted(op, value, letters, batch + rows + columns)
    if len(rows) == len(columns) == 1:
        return turned
    joined = (math.prod(sizes[one] for one in group) for group in (rows, columns))
    return op.Reshape(turned, table(op, [*(sizes[one] for one in batch), *joined]))


def _permuted(op: Any, value: Any, have: str, want: str) -> Any:
    return value if have == want else op.Transpose(value, perm=[have.index(letter) for letter in want])


def _has_factors(node: ir.Node) -> bool:
    return any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))


def _plain_gemm(op: Any, node: ir.Node) -> Any:
    """alpha A B + beta C."""
    sides: list[Any] = list(node.inputs[:2])
    for place, name in enumerate(("transA", "transB")):
        if node.attributes.get_int(name, 0):
            sides[place] = op.Transpose(sides[place], perm=[1, 0])
    product = op.Mul(op.MatMul(*sides), number(op, node.attributes.get_float("alpha", 1.0)))
    bias = operand(node, 2)
    if bias is None:
        return product
    return op.Add(product, op.Mul(bias, number(op, node.attributes.get_float("beta", 1.0))))


def _has_vector(node: ir.Node) -> bool:
    return any(len(dims(value)) == 1 for value in node.inputs)


def _matrices(op: Any, node: ir.Node) -> Any:
    """A vector on the left is a row, one on the right a column."""
    left, right = node.inputs
    a = op.Reshape(left, table(op, [1, -1])) if len(dims(left)) == 1 else left
    b = op.Reshape(right, table(op, [-1, 1])) if len(dims(right)) == 1 else right
    return op.Reshape(op.MatMul(a, b), table(op, dims(node.outputs[0])))


EINSUM = [written_out("Einsum", _einsum, _is_einsum)]
PRODUCTS = [
    written_out("Gemm", _plain_gemm, _has_factors),
    written_out("MatMul", _matrices, _has_vector),
]
