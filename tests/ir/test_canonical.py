"""Canonicalisation against ONNX Runtime on the graph before it, form by form."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from fick.ir.canonical import OPSET, canonicalise
from fick.ir.errors import UserError
from fick.ir.referee import run

# Rewrites change the order of float32 sums of a few hundred terms: sqrt(500) * 2^-24 = 1.3e-6, times ten.
TOLERANCE = 2e-5


def parse(
    signature: str, body: str, initial: dict[str, np.ndarray] | None = None, opset: int = 18
) -> ir.Model:
    """A model from ONNX text; ``initial`` gives its weights by name."""
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ {body} }}')
    for value in list(model.graph.inputs):
        if value.name in (initial or {}):
            model.graph.inputs.remove(value)
            assert initial is not None and value.name is not None
            value.const_value = ir.tensor(initial[value.name], name=value.name)
            model.graph.register_initializer(value)
    return model


def agree(model: ir.Model) -> ir.Model:
    """Canonicalise; check types, and the numbers against ONNX Runtime on the model given."""
    canonical = canonicalise(model)
    rng = np.random.default_rng(0)
    feeds = {
        str(value.name): rng.standard_normal([int(size) for size in value.shape or ()]).astype(np.float32)
        for value in canonical.graph.inputs
    }
    proto = ir.serde.serialize_model(model).SerializeToString()
    before = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, feeds)
    for want, (name, got) in zip(before, run(canonical, feeds).items(), strict=True):
        assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max(), name
    for node in canonical.graph:
        for output in node.outputs:
            assert output.dtype is not None and output.shape is not None and output.shape.is_static()
    assert canonical.opset_imports == {"": OPSET}
    return canonical


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


RNG = np.random.default_rng(7)
GROUPS = """
    s = Constant<value_ints=[0, 4, -1]>()
    r = Reshape(x, s)
    ones = Constant<value_floats=[1.0, 1.0, 1.0, 1.0]>()
    zeros = Constant<value_floats=[0.0, 0.0, 0.0, 0.0]>()
    n = InstanceNormalization<epsilon=0.001>(r, ones, zeros)
    shape = Shape(x)
    b = Reshape(n, shape)
"""


def test_outputs_that_are_one_value_keep_their_names() -> None:
    canonical = agree(
        parse(
            "(float[2,3] x) => (float[] y, float[] z, float[] w, float[] v)",
            "y = Relu(x) z = Identity(y) w = Dropout(z) v = Relu(x)",
        )
    )
    assert [value.name for value in canonical.graph.outputs] == ["y", "z", "w", "v"]


@pytest.mark.parametrize("affine", ["m = Mul(b, w)  y = Add(m, c)", "m = Mul(w, b)  y = Add(c, m)"])
def test_group_normalisation_with_weights(affine: str) -> None:
    weights = {name: RNG.standard_normal((8, 1, 1)).astype(np.float32) for name in ("w", "c")}
    signature = "(float[1,8,6,5] x, float[8,1,1] w, float[8,1,1] c) => (float[1,8,6,5] y)"
    canonical = agree(parse(signature, GROUPS + affine, weights))
    assert kinds(canonical) == {"GroupNormalization": 1}
    assert set(canonical.graph.initializers) == {"w", "c"}
    (node,) = canonical.graph
    assert node.attributes.get_int("num_groups") == 4
    assert node.attributes.get_float("epsilon") == pytest.approx(1e-3)


def test_group_normalisation_without_weights() -> None:
    canonical = agree(parse("(float[1,8,6,5] x) => (float[1,8,6,5] y)", GROUPS + "y = Identity(b)"))
    assert kinds(canonical) == {"GroupNormalization": 1}


def test_instance_normalisation_with_other_groups_is_one_of_its_own_channels() -> None:
    body = GROUPS.replace("[0, 4, -1]", "[1, 4, -1]").replace("value_floats=[1.0,", "value_floats=[2.0,")
    canonical = agree(parse("(float[1,8,6,5] x) => (float[1,8,6,5] y)", body + "y = Identity(b)"))
    assert kinds(canonical)["Reshape"] == 2
    (node,) = (one for one in canonical.graph if one.op_type == "GroupNormalization")
    assert node.inputs[0].shape == (1, 4, 60) and node.attributes.get_int("num_groups") == 4


def test_group_normalisation_of_opset_18_has_one_scale_a_group() -> None:
    weights = {name: RNG.standard_normal(4).astype(np.float32) for name in ("w", "c")}
    model = parse(
        "(float[1,8,6,5] x, float[4] w, float[4] c) => (float[1,8,6,5] y)",
        "y = GroupNormalization<num_groups=4>(x, w, c)",
        weights,
    )
    canonical = agree(model)
    assert kinds(canonical)["GroupNormalization"] == 1
    assert {"w", "c"} <= set(canonical.graph.initializers)


@pytest.mark.parametrize("square", ["q = Pow(d, two)", "q = Mul(d, d)"])
@pytest.mark.parametrize("divide", ["n = Div(d, e)", "i = Reciprocal(e)  n = Mul(d, i)"])
def test_layer_normalisation(square: str, divide: str) -> None:
    weights = {name: RNG.standard_normal(16).astype(np.float32) for name in ("w", "c")}
    body = f"""
        axes = Constant<value_ints=[-1]>()  two = Constant<value_float=2.0>()
        eps = Constant<value_float=0.00001>()
        mean = ReduceMean(x, axes)  d = Sub(x, mean)  {square}
        v = ReduceMean(q, axes)  p = Add(v, eps)  e = Sqrt(p)
        {divide}
        m = Mul(n, w)  y = Add(m, c)
    """
    canonical = agree(
        parse("(float[1,7,16] x, float[16] w, float[16] c) => (float[1,7,16] y)", body, weights)
    )
    assert kinds(canonical) == {"LayerNormalization": 1}


@pytest.mark.parametrize("square", ["q = Pow(d, two)", "q = Mul(d, d)"])
def test_layer_normalisation_whose_scale_the_timestep_brings(square: str) -> None:
    body = f"""
        axes = Constant<value_ints=[-1]>()  two = Constant<value_float=2.0>()
        eps = Constant<value_float=0.00001>()
        mean = ReduceMean(x, axes)  d = Sub(x, mean)  {square}
        v = ReduceMean(q, axes)  p = Add(v, eps)  e = Sqrt(p)  n = Div(d, e)
        m = Mul(n, w)  y = Add(m, c)
    """
    inputs = "float[1,7,16] x, float[1,1,16] w, float[1,1,16] c"
    canonical = agree(parse(f"({inputs}) => (float[1,7,16] y)", body))
    assert kinds(canonical) == {"LayerNormalization": 1, "Mul": 1, "Add": 1}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("s = Sigmoid(x)  y = Mul(x, s)", "Swish"),
        ("s = Sigmoid(x)  y = Mul(s, x)", "Swish"),
        ("a = Constant<value_float=1.702>()  b = Mul(a, x)  s = Sigmoid(b)  y = Mul(x, s)", "Swish"),
    ],
)
def test_swish(body: str, expected: str) -> None:
    assert kinds(agree(parse("(float[2,9] x) => (float[2,9] y)", body))) == {expected: 1}


ERF = """
    r = Constant<value_float=1.4142135>()  h = Constant<value_float=0.5>()  one = Constant<value_float=1.0>()
    d = Div(x, r)  e = Erf(d)  g = Add(e, one)
"""
TANH = """
    h = Constant<value_float=0.5>()  one = Constant<value_float=1.0>()  three = Constant<value_float=3.0>()
    k = Constant<value_float=0.044715>()  r = Constant<value_float=0.7978846>()
    p = Pow(x, three)  q = Mul(k, p)  s = Add(x, q)  d = Mul(s, r)  e = Tanh(d)  g = Add(one, e)
"""
HALVES = [
    "m = Mul(x, g)  y = Mul(m, h)",
    "m = Mul(h, g)  y = Mul(x, m)",
    "m = Mul(x, h)  y = Mul(m, g)",
    "m = Mul(h, x)  y = Mul(g, m)",
]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(("gate", "approximate"), [(ERF, "none"), (TANH, "tanh")])
def test_gelu(gate: str, approximate: str, half: str) -> None:
    canonical = agree(parse("(float[2,9] x) => (float[2,9] y)", gate + half))
    assert kinds(canonical) == {"Gelu": 1}
    assert canonical.graph[0].attributes.get_string("approximate") == approximate


@pytest.mark.parametrize(
    ("scores", "scale"),
    [
        ("z = MatMul(q, kt)", 1.0),
        ("r = Constant<value_float=2.0>()  p = MatMul(q, kt)  z = Div(p, r)", 0.5),
        ("r = Constant<value_float=0.25>()  p = MatMul(q, kt)  z = Mul(r, p)", 0.25),
        ("r = Constant<value_float=0.5>()  u = Mul(q, r)  t = Mul(kt, r)  z = MatMul(u, t)", 0.25),
        ("r = Constant<value_float=2.0>()  u = Div(q, r)  p = MatMul(u, kt)  z = Add(mask, p)", 0.5),
        ("r = Constant<value_float=2.0>()  p = MatMul(q, kt)  s = Div(p, r)  z = Add(s, mask)", 0.5),
    ],
)
def test_attention(scores: str, scale: float) -> None:
    body = f"kt = Transpose<perm=[0,1,3,2]>(k)  {scores}  w = Softmax<axis=-1>(z)  y = MatMul(w, v)"
    inputs = "float[1,2,6,4] q, float[1,2,5,4] k, float[1,2,5,4] v"
    if "mask" in scores:
        inputs += ", float[6,5] mask"
    canonical = agree(parse(f"({inputs}) => (float[1,2,6,4] y)", body))
    assert kinds(canonical)["Attention"] == 1
    assert set(kinds(canonical)) <= {"Attention", "Reshape"}
    (node,) = (node for node in canonical.graph if node.op_type == "Attention")
    assert node.attributes.get_float("scale") == pytest.approx(scale)


def test_attention_as_einsum_over_channels_first() -> None:
    body = """
        start = Constant<value_ints=[0]>()  one = Constant<value_ints=[16]>()
        two = Constant<value_ints=[32]>()
        end = Constant<value_ints=[48]>()  axis = Constant<value_ints=[1]>()  f = Constant<value_float=0.5>()
        heads = Constant<value_ints=[2, 8, 10]>()  back = Constant<value_ints=[1, 16, 10]>()
        q0 = Slice(x, start, one, axis)  k0 = Slice(x, one, two, axis)  v0 = Slice(x, two, end, axis)
        q1 = Mul(q0, f)  k1 = Mul(k0, f)
        q = Reshape(q1, heads)  k = Reshape(k1, heads)  v = Reshape(v0, heads)
        s = Einsum<equation="bct,bcs->bts">(q, k)  w = Softmax<axis=-1>(s)
        o = Einsum<equation="bts,bcs->bct">(w, v)  y = Reshape(o, back)
    """
    canonical = agree(parse("(float[1,48,10] x) => (float[1,16,10] y)", body))
    assert kinds(canonical) == {"Reshape": 2, "Transpose": 2, "Split": 1, "Attention": 1}


def test_attention_of_tokens_needs_no_reshapes() -> None:
    heads = """
        c{0} = Constant<value_ints=[1,-1,2,4]>()  r{0} = Reshape({0}, c{0})
        t{0} = Transpose<perm=[0,2,1,3]>(r{0})
    """
    body = (
        " ".join(heads.format(name) for name in "qkv")
        + """
        kt = Transpose<perm=[0,1,3,2]>(tk)  p = MatMul(tq, kt)  w = Softmax<axis=-1>(p)  o = MatMul(w, tv)
        ot = Transpose<perm=[0,2,1,3]>(o)  cy = Constant<value_ints=[1,6,8]>()  y = Reshape(ot, cy)
    """
    )
    canonical = agree(parse("(float[1,6,8] q, float[1,5,8] k, float[1,5,8] v) => (float[1,6,8] y)", body))
    assert kinds(canonical) == {"Attention": 1}
    assert canonical.graph[0].attributes.get_int("q_num_heads") == 2


@pytest.mark.parametrize("folded", ["[6,{0},4]", "[1,6,{0},4]"])
def test_heads_folded_into_the_batch_are_unfolded(folded: str) -> None:
    parts = """
        c{0} = Constant<value_ints=[2,{1},3,4]>()  r{0} = Reshape({0}, c{0})
        t{0} = Transpose<perm=[0,2,1,3]>(r{0})  d{0} = Constant<value_ints={2}>()  f{0} = Reshape(t{0}, d{0})
    """
    body = "".join(
        parts.format(name, tokens, folded.format(tokens))
        for name, tokens in zip("qkv", (6, 5, 5), strict=True)
    )
    last = folded.count(",")
    order = [*range(last - 1), last, last - 1]
    body += f"""
        kt = Transpose<perm={order}>(fk)  p = MatMul(fq, kt)  w = Softmax<axis=-1>(p)  o = MatMul(w, fv)
        e = Constant<value_ints=[2,3,6,4]>()  u = Reshape(o, e)  ot = Transpose<perm=[0,2,1,3]>(u)
        cy = Constant<value_ints=[2,6,12]>()  y = Reshape(ot, cy)
    """
    canonical = agree(parse("(float[2,6,12] q, float[2,5,12] k, float[2,5,12] v) => (float[2,6,12] y)", body))
    assert kinds(canonical) == {"Attention": 1}
    assert canonical.graph[0].attributes.get_int("q_num_heads") == 3


@pytest.mark.parametrize(
    ("equation", "expected"), [("nhwc->nchw", {"Transpose": 1}), ("nhwc->nhw", {"ReduceSum": 1})]
)
def test_einsum_of_one_operand(equation: str, expected: dict[str, int]) -> None:
    out = {"nchw": "2,5,3,4", "nhw": "2,3,4"}[equation[6:]]
    body = f'y = Einsum<equation="{equation}">(x)'
    assert kinds(agree(parse(f"(float[2,3,4,5] x) => (float[{out}] y)", body))) == expected


def test_equal_numbers_of_the_code_are_one_and_equal_weights_are_two() -> None:
    body = """
        c = Constant<value_floats=[2.0, 3.0]>()  d = Constant<value_floats=[2.0, 3.0]>()
        p = Mul(x, c)  q = Mul(x, d)  s = Sin(p)  t = Sin(q)  u = Mul(s, v)  z = Mul(t, w)  y = Add(u, z)
    """
    weights = {name: np.array([0.5, 0.25], np.float32) for name in "vw"}
    canonical = agree(parse("(float[2] x, float[2] v, float[2] w) => (float[2] y)", body, weights))
    assert kinds(canonical) == {"Mul": 3, "Sin": 1, "Add": 1}
    assert {"v", "w"} < set(canonical.graph.initializers) and len(canonical.graph.initializers) == 3


def test_what_does_nothing_goes_and_common_work_is_done_once() -> None:
    body = """
        one = Constant<value_float=1.0>()  zero = Constant<value_float=0.0>()
        i = Identity(x)  c = Cast<to=1>(i)  d = Dropout(c)  m = Mul(one, d)  a = Add(m, zero)
        u = Constant<value_ints=[2]>()  w = Constant<value_ints=[3]>()
        s1 = Sin(a)  s2 = Sin(x)  t = Add(s1, s2)  e = Unsqueeze(t, u)  y = Unsqueeze(e, w)
    """
    canonical = agree(parse("(float[2,3] x) => (float[2,3,1,1] y)", body))
    assert kinds(canonical) == {"Sin": 1, "Add": 1, "Reshape": 1}


def test_weights_are_never_folded() -> None:
    weight = RNG.standard_normal((4, 3)).astype(np.float32)
    body = "t = Transpose<perm=[1,0]>(w)  n = Neg(t)  y = MatMul(x, n)"
    canonical = agree(parse("(float[2,3] x, float[4,3] w) => (float[2,4] y)", body, {"w": weight}))
    np.testing.assert_array_equal(canonical.graph.initializers["w"].const_value.numpy(), weight)
    assert kinds(canonical) == {"Transpose": 1, "Neg": 1, "MatMul": 1}


@pytest.mark.parametrize(
    ("table", "body", "initial"),
    [
        ("float[4] c", 'y = Resize<mode="nearest">(x, none, c)', np.array([1, 1, 2, 2], np.float32)),
        ("int64[4] c", 'y = Resize<mode="nearest">(x, none, none, c)', np.array([1, 2, 8, 8], np.int64)),
        ("int64[3] c", "r = Reshape(x, c)  y = Sin(r)", np.array([1, -1, 8], np.int64)),
    ],
)
def test_tables_of_sizes_may_be_initializers(table: str, body: str, initial: np.ndarray) -> None:
    shape = "1,4,8" if "Reshape" in body else "1,2,8,8"
    model = parse(
        f"(float[1,2,4,4] x, {table}) => (float[{shape}] y)", body.replace("none", '""'), {"c": initial}
    )
    assert agree(model).graph.outputs[0].shape == ir.Shape([int(size) for size in shape.split(",")])


def test_chain_of_sequences_is_a_chain_of_splits() -> None:
    # More links than rounds: a walk that learns one link a round would not settle.
    links = 60
    body = """
        two = Constant<value_int=2>()  a = Constant<value_int=0>()  b = Constant<value_int=1>()
        x0 = Identity(x)
    """
    for link in range(links):
        body += f"""
            s{link} = SplitToSequence<axis=-1>(x{link}, two)  p{link} = SequenceAt(s{link}, a)
            q{link} = SequenceAt(s{link}, b)  m{link} = Tanh(p{link})
            x{link + 1} = Concat<axis=-1>(q{link}, m{link})
        """
    canonical = agree(parse("(float[3,4] x) => (float[3,4] y)", body + f"y = Identity(x{links})"))
    assert kinds(canonical) == {"Split": links, "Tanh": links, "Concat": links}


def test_open_batch_is_one_and_other_open_sizes_are_asked_for() -> None:
    canonical = canonicalise(parse("(float[N,3] x) => (float[N,3] y)", "y = Sin(x)"))
    assert canonical.graph.inputs[0].shape == ir.Shape([1, 3])
    wide = parse("(float[N,H] x) => (float[N,H] y)", "y = Sin(x)")
    with pytest.raises(UserError, match=r"size 1 .* of input x is open"):
        canonicalise(wide)
    assert canonicalise(wide, {"x": (2, 5)}).graph.outputs[0].shape == ir.Shape([2, 5])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [({"z": (1, 3)}, "no input z; its inputs are x"), ({"x": (1, 4)}, r"input x cannot have shape \[1, 4\]")],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        canonicalise(parse("(float[N,3] x) => (float[N,3] y)", "y = Sin(x)"), shapes)


def test_foreign_operator_is_named_with_its_module() -> None:
    node = ir.node(
        "Mystery", [ir.val("x", ir.DataType.FLOAT, (1, 3))], domain="other.vendor", name="/down/act/Mystery"
    )
    graph = ir.Graph(
        node.inputs, node.outputs, nodes=[node], opset_imports={"": 18, "other.vendor": 1}, name="g"
    )
    node.outputs[0].name = "y"
    with pytest.raises(UserError, match=r"other\.vendor\.Mystery is not supported, at .* of module down.act"):
        canonicalise(ir.Model(graph, ir_version=8))
