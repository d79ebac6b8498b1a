"""gradient_model: any ONNX model, an output and names to differentiate by, to a model with the gradients."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from caffe_tools.errors import GraphError
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.gradient import gradient_model
from nets import inputs, layer, net_of

LINEAR = """
    <ir_version: 8, opset_import: ["" : 18]>
    linear (float[batch, 3] x, float[3, 2] w) => (float[batch, 2] y)
    <float[2] b = {0.5, -1.0}>
    {
        product = MatMul(x, w)
        sum = Add(product, b)
        y = Tanh(sum)
    }
"""


def run(model, **feeds):
    """The outputs by name."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def arrays(seed, **shapes):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def central_difference(model, feeds, name, step=1e-2):
    """The gradient of the sum of the model's first output by the input ``name``."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    result = np.zeros(feeds[name].shape)
    for place in np.ndindex(*feeds[name].shape):
        sums = []
        for sign in (1, -1):
            moved = {**feeds, name: feeds[name].copy()}
            moved[name][place] += sign * step
            sums.append(session.run(None, moved)[0].astype(np.float64).sum())
        result[place] = (sums[0] - sums[1]) / (2 * step)
    return result


def test_inputs_stored_tensors_and_inner_values_have_gradients():
    feeds = arrays(0, x=(4, 3), w=(3, 2))
    found = run(gradient_model(parser.parse_model(LINEAR), "y", ["x", "w", "b", "product"]), **feeds)
    slope = 1 - found["y"] ** 2
    np.testing.assert_allclose(found["product.diff"], slope, rtol=1e-5)
    np.testing.assert_allclose(found["b.diff"], slope.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["x.diff"], slope @ feeds["w"].T, rtol=1e-5)
    np.testing.assert_allclose(found["w.diff"], feeds["x"].T @ slope, rtol=1e-5, atol=1e-6)


def test_an_inner_value_can_be_differentiated_and_what_it_does_not_need_is_left_out():
    model = gradient_model(parser.parse_model(LINEAR), "product", ["w"])
    assert "Tanh" not in {node.op_type for node in model.graph.node}
    assert [output.name for output in model.graph.output] == ["product", "w.diff"]


def test_the_diff_of_the_output_can_be_an_input():
    feeds = arrays(0, x=(4, 3), w=(3, 2), dy=(4, 2))
    model = gradient_model(parser.parse_model(LINEAR), "product", ["w"], output_diff="dy")
    np.testing.assert_allclose(run(model, **feeds)["w.diff"], feeds["x"].T @ feeds["dy"], rtol=1e-5)


def test_the_gradient_by_what_the_output_does_not_depend_on_is_zeros():
    model = gradient_model(parser.parse_model(LINEAR), "product", ["b"])
    np.testing.assert_array_equal(run(model, **arrays(0, x=(4, 3), w=(3, 2)))["b.diff"], np.zeros(2))


def test_a_model_of_an_older_opset_is_converted():
    old = """
        <ir_version: 7, opset_import: ["" : 11]>
        old (float[4, 3] x) => (float[4] y)
        { squared = Mul(x, x)   y = ReduceSum<axes = [1], keepdims = 0>(squared) }
    """
    feeds = arrays(0, x=(4, 3))
    found = run(gradient_model(parser.parse_model(old), "y", ["x"]), **feeds)
    np.testing.assert_allclose(found["x.diff"], 2 * feeds["x"])


@pytest.mark.parametrize("op_type", ["HardSwish", "Mish", "Gelu", "Celu", "LayerNormalization"])
def test_an_operator_that_onnx_defines_by_others_needs_no_rule(op_type):
    more = ", float[3] s" if op_type == "LayerNormalization" else ""
    feeds = arrays(1, x=(4, 3), **({"s": (3,)} if more else {}))
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> m (float[4, 3] x{more}) => (float[4, 3] y)'
        f" {{ y = {op_type}({', '.join(feeds)}) }}"
    )
    found = run(gradient_model(model, "y", list(feeds)), **feeds)
    for name in feeds:
        np.testing.assert_allclose(found[f"{name}.diff"], central_difference(model, feeds, name), atol=3e-3)


def test_a_stored_tensor_may_be_the_value_of_a_node():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]> m (float[2] x) => (float[2] y)
        { three = Constant<value = float {3.0}>()   y = Pow(x, three) }
    """)
    feeds = arrays(2, x=(2,))
    np.testing.assert_allclose(
        run(gradient_model(model, "y", ["x"]), **feeds)["x.diff"], 3 * feeds["x"] ** 2, rtol=1e-5
    )


def test_local_functions_are_looked_into():
    text = inputs(x=(4, 3), t=(4,)) + layer(
        "loss", "Python", "x t", "l", 'loss_weight: 1 python_param { module: "caffe_layers" layer: "SoftmaxLossLayer" }'
    )
    model = export(net_of(text), ExportOptions(training=True, input_gradients=True)).model
    assert model.functions
    feeds = {**arrays(3, x=(4, 3)), "t": np.array([0, 1, 2, 0], np.float32)}
    expected = run(model, **feeds)["x.diff"]
    np.testing.assert_allclose(run(gradient_model(model, "l", ["x"]), **feeds)["x.diff"], expected, atol=1e-6)


def test_dims_without_a_name_are_not_taken_for_equal():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]> m (float[?, ?] a, float[?, ?] b) => (float[?, ?] y) { y = Mul(a, b) }
    """)
    feeds = arrays(4, a=(3, 2), b=(1, 2))
    found = run(gradient_model(model, "y", ["b"]), **feeds)
    np.testing.assert_allclose(found["b.diff"], feeds["a"].sum(axis=0, keepdims=True), rtol=1e-5)


def test_a_branch_beside_the_path_keeps_what_it_uses():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        m (float[2] x, bool c, float[2] outer) => (float[2] y)
        {
            doubled = Add(outer, outer)
            factor = If (c) <then_branch = one () => (float[2] a) { a = Identity(doubled) },
                             else_branch = two () => (float[2] d) { d = Neg(doubled) }>
            y = Mul(x, factor)
        }
    """)
    feeds = {**arrays(5, x=(2,), outer=(2,)), "c": np.array(False)}
    np.testing.assert_allclose(run(gradient_model(model, "y", ["x"]), **feeds)["x.diff"], -2 * feeds["outer"])
    with pytest.raises(GraphError, match="no gradient rule for ONNX op If"):
        gradient_model(model, "y", ["outer"])


@pytest.mark.parametrize(
    ("output", "by", "message"),
    [
        ("sums", ["x"], "the model has no tensor 'sums': did you mean 'sum'?"),
        ("y", ["weight"], "the model has no tensor 'weight': it has b, product, sum, w, x, y"),
        ("n", ["x"], "'n' holds int64"),
    ],
)
def test_a_name_that_cannot_be_used_is_named(output, by, message):
    model = parser.parse_model(LINEAR.replace("y = Tanh(sum)", "y = Tanh(sum)\n n = Shape(sum)"))
    if output != "n":
        model = parser.parse_model(LINEAR)
    with pytest.raises(GraphError, match=message.replace("?", r"\?")):
        gradient_model(model, output, by)
