"""Classes of operators that more than one part of fick needs to agree on."""

ELEMENTWISE = {
    "Abs": 1, "Add": 2, "And": 2, "Ceil": 1, "Clip": 3, "Cos": 1, "Div": 2, "Equal": 2, "Erf": 1, "Exp": 1,
    "Floor": 1, "Gelu": 1, "Greater": 2, "GreaterOrEqual": 2, "Identity": 1, "Less": 2, "LessOrEqual": 2, "Log": 1,
    "Max": 2, "Min": 2, "Mul": 2, "Neg": 1, "Not": 1, "Or": 2, "Pow": 2, "Reciprocal": 1, "Relu": 1, "Round": 1,
    "Sigmoid": 1, "Sign": 1, "Sin": 1, "Sqrt": 1, "Sub": 2, "Swish": 1, "Tanh": 1, "ThresholdedRelu": 1, "Where": 3,
}  # fmt: skip
"""Operators whose every output element depends on one element of each input, with their number of inputs."""

CONVERSIONS = frozenset({"DequantizeLinear", "QuantizeLinear"})
"""Between numbers and the integers that stand for them, element by element."""

REARRANGING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})
"""Operators that only name the same elements differently: strides can often express them."""

VIEWS = REARRANGING | {"Expand", "Slice", "Split"}
"""Operators whose results are elements of their first input: reading elsewhere is all there is to them."""

ANCHORS = frozenset(
    {"Attention", "Conv", "Gemm", "GroupNormalization", "LayerNormalization", "MatMul", "Softmax"}
)
"""Operators heavy enough to carry the elementwise work around them."""

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
"""Sums of products of activations and weights."""

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators that give another result at every call."""
