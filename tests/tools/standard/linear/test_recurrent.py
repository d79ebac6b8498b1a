"""LSTM and RNN against their recurrences, with x_static, exposed states, and states kept between forward passes."""

import numpy as np
import onnxruntime
import pytest

from caffe_tools.errors import NetError
from caffe_tools.export.export import ExportOptions, export
from nets import inputs, layer, net_of
from one_layer import net_over
from open_dims import tops_with_open_dims

T, N, D = 3, 2, 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, cont, static, blobs, h, c):
    """The outputs of all steps, and the last h and c."""
    weight, bias, *between, recurrent = blobs
    outputs = []
    for step, goes_on in zip(x, cont, strict=True):
        gates = step.reshape(len(step), -1) @ weight.T + bias + (goes_on[:, None] * h) @ recurrent.T
        gates = gates + static.reshape(len(static), -1) @ between[0].T if between else gates
        i, f, o, g = np.split(gates, 4, axis=1)
        c = goes_on[:, None] * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def rnn(x, cont, static, blobs, h, c):
    weight, bias, *between, recurrent, out_weight, out_bias = blobs
    outputs = []
    for step, goes_on in zip(x, cont, strict=True):
        terms = step.reshape(len(step), -1) @ weight.T + bias + (goes_on[:, None] * h) @ recurrent.T
        h = np.tanh(terms + static.reshape(len(static), -1) @ between[0].T if between else terms)
        outputs.append(np.tanh(h @ out_weight.T + out_bias))
    return np.stack(outputs), h, c


ORACLES = {"LSTM": lstm, "RNN": rnn}
STATES = {"LSTM": ("h", "c"), "RNN": ("h",)}


def arrays_for(type_, static=False, exposed=False, seed=0):
    random = np.random.default_rng(seed)
    arrays = {"x": random.normal(size=(T, N, 2, 3)), "cont": np.array([[0, 1], [1, 1], [1, 0]])}
    if static:
        arrays["static"] = random.normal(size=(N, 5))
    if exposed:
        arrays |= {name: random.normal(size=(1, N, D)) for name in STATES[type_]}
    return arrays


def recurrent_net(type_, arrays, param="", tops="top"):
    exposed = any(name in arrays for name in "hc")
    if exposed:
        param += " expose_hidden: true"
        tops += "".join(f" {name}_after" for name in STATES[type_])
    net = net_over(type_, arrays, f"recurrent_param {{ num_output: {D} {param} }}", tops)
    random = np.random.default_rng(8)
    for blob in net.params["layer"]:
        blob.data[...] = random.normal(size=blob.shape) / 2
    return net


def wanted_of(type_, net, arrays):
    blobs = [blob.data.astype(np.float64) for blob in net.params["layer"]]
    zeros = np.zeros((N, D))
    h, c = (arrays[name][0] if name in arrays else zeros for name in "hc")
    return ORACLES[type_](arrays["x"], arrays["cont"], arrays.get("static"), blobs, h, c)


@pytest.mark.parametrize("type_", ORACLES)
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
def test_a_recurrent_layer_follows_its_recurrence(type_, static, exposed):
    arrays = arrays_for(type_, static, exposed)
    net = recurrent_net(type_, arrays)
    tops = net.forward(**arrays)
    y, *states = wanted_of(type_, net, arrays)
    np.testing.assert_allclose(tops["top"], y, rtol=1e-5, atol=1e-6)
    for name, state in zip(STATES[type_], states, strict=False):
        if exposed:
            np.testing.assert_allclose(tops[f"{name}_after"], state[None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("type_", ORACLES)
def test_the_gradient_is_that_of_the_recurrence_and_spares_cont_and_states(type_):
    arrays = arrays_for(type_, static=True, exposed=True)
    net = recurrent_net(type_, arrays)
    net.forward(**arrays)
    dy = np.random.default_rng(4).normal(size=(T, N, D))
    # a diff of an exposed state goes nowhere, in Caffe neither
    net.backward(top=dy, **{f"{name}_after": np.ones((1, N, D)) for name in STATES[type_]})
    for name in ("cont", *STATES[type_]):
        assert not net.blobs[name].diff.any()
    base = {name: np.array(array, np.float64) for name, array in arrays.items()}
    blobs = [blob.data.astype(np.float64) for blob in net.params["layer"]]
    stepped = [(net.blobs["x"].diff, base["x"]), (net.blobs["static"].diff, base["static"])]
    stepped += [(blob.diff, data) for blob, data in zip(net.params["layer"], blobs, strict=True)]

    def loss():
        h, c = base["h"][0], base.get("c", base["h"])[0]
        return (ORACLES[type_](base["x"], base["cont"], base["static"], blobs, h, c)[0] * dy).sum()

    for found, array in stepped:
        for index in list(np.ndindex(*array.shape))[::3]:
            kept = array[index]
            array[index] = kept + 1e-6
            high = loss()
            array[index] = kept - 1e-6
            low = loss()
            array[index] = kept
            assert found[index] == pytest.approx((high - low) / 2e-6, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("type_", ORACLES)
def test_a_forward_pass_goes_on_where_the_last_one_ended(type_):
    arrays = arrays_for(type_)
    whole = recurrent_net(type_, arrays)
    wanted = whole.forward(**arrays)["top"]
    one_step = recurrent_net(type_, {"x": arrays["x"][:1], "cont": arrays["cont"][:1]})
    for step in range(T):
        y = one_step.forward(x=arrays["x"][step : step + 1], cont=arrays["cont"][step : step + 1])["top"]
        np.testing.assert_allclose(y[0], wanted[step], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("type_", ORACLES)
def test_backward_starts_from_the_state_that_its_forward_pass_had(type_):
    arrays = arrays_for(type_) | {"cont": np.ones((T, N))}
    net, dy = recurrent_net(type_, arrays), np.ones((T, N, D))
    net.forward(**arrays)
    states = recurrent_net(type_, arrays_for(type_, exposed=True))
    kept = states.forward(**arrays, **{name: np.zeros((1, N, D)) for name in STATES[type_]})
    before = {name: kept[f"{name}_after"].copy() for name in STATES[type_]}
    net.forward(**arrays)
    states.forward(**arrays, **before)
    np.testing.assert_allclose(net.backward(top=dy)["x"], states.backward(top=dy)["x"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net.params["layer"][2].diff, states.params["layer"][2].diff, rtol=1e-5, atol=1e-6)


def test_another_number_of_streams_starts_with_zeros():
    arrays = arrays_for("LSTM") | {"cont": np.ones((T, N))}
    net = recurrent_net("LSTM", arrays)
    first = net.forward(**arrays)["top"].copy()
    net.blobs["x"].reshape(T, 1, 2, 3)
    net.blobs["cont"].reshape(T, 1)
    alone = net.forward(x=arrays["x"][:, :1], cont=np.ones((T, 1)))["top"]
    np.testing.assert_allclose(alone, first[:, :1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("type_", ORACLES)
@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("steps", [T, "steps"])
def test_the_number_of_streams_may_be_open_and_that_of_steps(type_, exposed, steps):
    arrays = arrays_for(type_, static=True, exposed=exposed)
    net = recurrent_net(type_, arrays)
    dims = {"x": (steps, "streams", 2, 3), "cont": (steps, "streams"), "static": ("streams", 5)}
    dims |= {name: (1, "streams", D) for name in "hc"}
    found = tops_with_open_dims(net, {name: dims[name] for name in arrays}, arrays)
    y, *states = wanted_of(type_, net, arrays)
    for top, wanted in zip(found, [y, *(state[None] for state in states)], strict=False):
        np.testing.assert_allclose(top, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("type_", ORACLES)
def test_a_training_model_takes_any_number_of_steps(type_):
    arrays = arrays_for(type_)
    net = recurrent_net(type_, {"x": arrays["x"][:2], "cont": arrays["cont"][:2]})
    model = export(net, ExportOptions(training=True, input_gradients=True, dynamic_batch=True)).model
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = arrays | {"top.diff": np.random.default_rng(7).normal(size=(T, N, D))}
    found = session.run(
        ["top", "x.diff", "layer/0.diff", "layer/2.diff"], {k: v.astype(np.float32) for k, v in feeds.items()}
    )
    whole = recurrent_net(type_, arrays)
    wanted = [whole.forward(**arrays)["top"], whole.backward(top=feeds["top.diff"])["x"]]
    wanted += [whole.params["layer"][index].diff for index in (0, 2)]
    for have, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "param", "message"),
    [
        ({"x": (3, 2, 4), "cont": (3, 2)}, "", "num_output is missing or 0"),
        ({"x": (3, 2), "cont": (3, 2)}, "num_output: 2", "has the shape 3×2: it must be steps × streams × …"),
        ({"x": (0, 2, 4), "cont": (0, 2)}, "num_output: 2", "has the shape 0×2×4: it must have 1 step or more"),
        ({"x": (3, 2, 4), "cont": (2, 3)}, "num_output: 2", "'cont' has the shape 2×3, but must have 3×2"),
        ({"x": (3, 2, 4), "cont": (3, 2), "s": (3, 4)}, "num_output: 2", "'s' has the shape 3×4, but must have 2×4"),
        (
            {"x": (3, 2, 4), "cont": (3, 2), "s": (2, 4), "h": (1, 2, 2)},
            "num_output: 2",
            "with expose_hidden false takes the bottoms x, cont, x_static where there is one, and 1 tops",
        ),
        (
            {"x": (3, 2, 4), "cont": (3, 2)},
            "num_output: 2 expose_hidden: true",
            "with expose_hidden true takes the bottoms x, cont, x_static where there is one, h, c, and 3 tops",
        ),
    ],
)
def test_bottoms_that_do_not_go_together_are_refused(shapes, param, message):
    with pytest.raises(NetError, match=message):
        net_of(inputs(**shapes) + layer("it", "LSTM", " ".join(shapes), "y", f"recurrent_param {{ {param} }}"), "TEST")


def test_an_exposed_state_has_one_vector_for_each_stream():
    shapes = {"x": (3, 2, 4), "cont": (3, 2), "h": (2, 2)}
    text = layer("it", "RNN", "x cont h", "y h_after", "recurrent_param { num_output: 2 expose_hidden: true }")
    with pytest.raises(NetError, match="bottom 'h' has the shape 2×2, but must have 1×2×2: it is the state before"):
        net_of(inputs(**shapes) + text, "TEST")
