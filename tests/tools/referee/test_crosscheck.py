"""The referee: training graphs from elsewhere, and our own exports, judged by the layer that defines their loss."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import caffe_tools
from caffe_layers.layer import LayerError
from caffe_layers.params import parse
from caffe_tools.command_line.cli import make_parser
from caffe_tools.errors import GraphError
from caffe_tools.export.export import ExportOptions, export
from caffe_tools.referee.referee import crosscheck
from layer_cases import LOSSES, Case
from nets import XAVIER, convolution, inner_product, inputs, layer, net_of

LENET = [f"{name}_{kind}" for name in ("conv1", "conv2", "fc1", "fc2") for kind in ("weight", "bias")]
STORED_AS = {"fc1_weight": "permute", "fc2_weight": "permute_1"}
X_AND_T = dict(bottoms=["x", "t"], gradients={"grad_x": "x"})
CLAIMS = {
    "a": dict(
        X_AND_T,
        layer="SoftmaxLossLayer",
        param_str="ignore_label: 255, normalization: WEIGHT",
        parameters={"w": "class_weight"},
    ),
    "c": dict(
        X_AND_T,
        layer="SigmoidCrossEntropyLossLayer",
        param_str="normalization: FULL",
        parameters={"pos_weight": "pos_weight"},
    ),
    "d": dict(X_AND_T, layer="SigmoidFocalLossLayer", param_str="alpha: 0.25, gamma: 2, normalization: POSITIVES"),
    "g": dict(
        layer="SoftmaxLossLayer", bottoms=["logits", "label"], gradients={f"grad_{name}": name for name in LENET}
    ),
    "g2": dict(
        layer="SoftmaxLossLayer",
        bottoms=["logits", "label"],
        gradients={f"grad_{name}": STORED_AS.get(name, name) for name in LENET},
    ),
}
RIGHT = {
    "a_ce_int_weight_ignore": "a",
    "a_ce_int_weight_ignore_f64": "a",
    "a2_ce_int_weight_ignore_2d": "a",
    "c_bce_logits_posweight": "c",
    "c_bce_logits_posweight_f64": "c",
    "jax_c_bce_logits_posweight": "c",
    "d_sigmoid_focal_sum_numpos": "d",
    "d_sigmoid_focal_sum_numpos_f64": "d",
    "jax_d_sigmoid_focal_sum_numpos": "d",
    "g_lenet_ce": "g",
    "g2_lenet_ce_initializers": "g2",
}
WRONG = {
    "wrong_a_ignore_in_normaliser": ("a", ("ignored-in-divisor-as-class-0",)),
    "wrong_d_alpha_swapped": ("d", ("alpha-swapped",)),
}


def described(shared):
    return json.loads((shared / "graphs" / "index.json").read_text())


def given_cases(shared, name):
    """The recorded inputs of a graph of the reference data, by case."""
    entry = described(shared)[f"{name}.onnx"]
    for case, recorded in entry["cases"].items():
        with np.load(shared / "graphs" / recorded["npz"]) as stored:
            yield case, recorded, {key: stored[key] for key in entry["inputs"]}


def judge(shared, name, claim, **more):
    return crosscheck(shared / "graphs" / f"{name}.onnx", loss="loss", **CLAIMS[claim], **more)


# Graphs of other exporters --------------------------------------------------------------------------------------------


def test_every_graph_of_the_reference_data_is_judged(shared):
    judged = {f"{name}.onnx" for name in (*RIGHT, *WRONG, "ortt_g_lenet_ce")}
    assert judged == {name for name in described(shared) if not name.startswith("_")}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_graph_is_accepted_on_drawn_and_on_given_inputs(shared, name):
    assert judge(shared, name, RIGHT[name]).agrees
    for case, _, arrays in given_cases(shared, name):
        assert judge(shared, name, RIGHT[name], inputs=arrays).agrees, case


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_graph_is_rejected_with_what_is_wrong_with_it(shared, name):
    claim, departures = WRONG[name]
    (diagnosis,) = judge(shared, name, claim).diagnoses
    assert diagnosis.tensors == ("loss", "grad_x")
    assert diagnosis.departures == departures


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_graph_is_rejected_on_given_inputs_that_show_it(shared, name):
    claim, departures = WRONG[name]
    for case, recorded, arrays in given_cases(shared, name):
        shows = any(recorded["deviates"].values()) and case != "all_ignored"  # there the right graph has NaN
        verdict = judge(shared, name, claim, inputs=arrays)
        assert verdict.agrees != shows, case
        if shows:
            assert verdict.diagnoses[0].departures == departures


def test_a_graph_of_operators_that_onnx_runtime_lacks_is_refused_with_their_names(shared):
    with pytest.raises(GraphError, match="no operator ai.onnx.MaxPoolGrad, com.microsoft.ConvGrad, com.microsoft.In"):
        judge(shared, "ortt_g_lenet_ce", "g")


def test_nan_for_a_loss_of_nothing_is_noted_and_no_error_where_the_gradient_is_0(shared):
    verdict = judge(shared, "a_ce_int_weight_ignore", "a")
    assert verdict.agrees
    (note,) = verdict.notes
    assert note.startswith("all ignored: the graph's loss is NaN where nothing counts, as PyTorch has it")


def test_which_soft_targets_are_positives_is_noted_and_no_error(shared):
    verdict = judge(shared, "d_sigmoid_focal_sum_numpos", "d")
    assert verdict.notes == [
        "targets below one half: the graph differs from the layer in which soft targets count as positives"
    ]


def test_a_weight_that_is_stored_transposed_is_compared_transposed(shared):
    notes = judge(shared, "g2_lenet_ce_initializers", "g2").notes
    assert "grad_fc1_weight is compared transposed: it has the shape (20, 32), but permute has (32, 20)" in notes


# Our own exports ------------------------------------------------------------------------------------------------------

MODES = ("FULL", "VALID", "BATCH_SIZE", "NONE", "POSITIVES", "WEIGHT")
OWN = {
    "SoftmaxLossLayer": [
        "ignore_label: 255, class_weight: [0.5, 1, 2, 0.25, 3]",
        "label_smoothing: 0.1",
        "target: distribution",
        "target: multi_label, label_smoothing: 0.1",
        "target: distribution, class_weight: [0.5, 1, 2, 0.25, 3]",
    ],
    "SigmoidCrossEntropyLossLayer": [
        "ignore_label: -1, pos_weight: 3",
        "target: index, ignore_label: -1",
        "target: index, background_label: null",
        "label_smoothing: 0.2, class_weight: [0.5, 1, 2, 0.25, 3]",
    ],
    "SigmoidFocalLossLayer": [
        "alpha: 0.3, gamma: 1.5",
        "target: index, background_label: 5, ignore_label: -1",
        "alpha: [1, 2, 3, 4, 5]",
    ],
    "SoftmaxFocalLossLayer": ["ignore_label: -1", "alpha: [0.1, 0.2, 0.3, 0.4, 0.5]", "background_label: 4"],
    "CrossEntropyLossLayer": ["ignore_label: 255", "target: distribution"],
}


def one_layer(name, params, shape=(6, 5), weights=False, dynamic=True):
    """A net of one loss layer as a training graph."""
    is_dense = Case(name, params=parse(params)).target != "index"
    positions = shape[:1] + shape[2:]
    shapes = {"x": shape, "t": shape if is_dense else positions} | ({"w": positions} if weights else {})
    text = inputs(**shapes) + layer(
        "loss",
        "Python",
        " ".join(shapes),
        "loss",
        f'loss_weight: 1 python_param {{ module: "caffe_layers" layer: "{name}" param_str: "{params}" }}',
    )
    return export(net_of(text), ExportOptions(training=True, input_gradients=True, dynamic_batch=dynamic)).model


@pytest.mark.parametrize(("name", "params"), [(name, params) for name in LOSSES for params in ("", *OWN.get(name, ()))])
def test_every_exported_loss_is_accepted_in_every_normalization(name, params):
    for number, mode in enumerate(MODES):
        text = ", ".join(filter(None, [params, f"normalization: {mode}"]))
        shape, weights = ((6, 5), False) if number % 2 else ((4, 5, 3, 2), True)
        model = one_layer(name, text, shape, weights)
        verdict = crosscheck(
            model, name, bottoms=["x", "t", "w"][: 2 + weights], loss="loss", gradients={"x.diff": "x"}, param_str=text
        )
        assert verdict.agrees, (mode, [row for row in verdict.rows if not row.agrees])


def test_a_graph_with_a_fixed_batch_is_judged_on_that():
    verdict = crosscheck(
        one_layer("SoftmaxLossLayer", "", dynamic=False), "SoftmaxLossLayer", bottoms=["x", "t"], loss="loss"
    )
    assert verdict.agrees and {row.tensor for row in verdict.rows} == {"loss"}


def small_net():
    text = (
        inputs(data=(5, 2, 6, 6), label=(5,))
        + convolution("conv", "data", "conv")
        + layer("relu", "ReLU", "conv", "conv")
        + inner_product("score", "conv", "score", outputs=4, fillers=XAVIER)
        + layer(
            "loss",
            "Python",
            "score label",
            "loss",
            'loss_weight: 0.5 python_param { module: "caffe_layers" layer: "SoftmaxLossLayer" }',
        )
    )
    return export(net_of(text), ExportOptions(training=True, dynamic_batch=True)).model


PARAMETERS = ("conv/0", "conv/1", "score/0", "score/1")
SMALL_NET = dict(
    layer="SoftmaxLossLayer",
    bottoms=["score", "label"],
    loss="loss",
    loss_weight=0.5,
    gradients={f"{name}.diff": name for name in PARAMETERS},
)


def test_the_gradient_of_the_layer_is_carried_back_to_stored_weights():
    verdict = crosscheck(small_net(), **SMALL_NET)
    assert verdict.agrees
    assert {row.of for row in verdict.rows} == {"", *PARAMETERS}


def test_a_mistake_behind_the_loss_is_placed_there():
    model = small_net()
    (maker,) = [node for node in model.graph.node if "conv/0.diff" in node.output]
    maker.output[list(maker.output).index("conv/0.diff")] = "right"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(3), "three"))
    model.graph.node.append(helper.make_node("Mul", ["right", "three"], ["conv/0.diff"]))
    verdict = crosscheck(model, **SMALL_NET)
    (diagnosis,) = verdict.diagnoses
    assert diagnosis.text == "the loss is right, but conv/0.diff would agree only if it were multiplied with 3"
    assert verdict.notes == [
        "conv/1.diff, score/0.diff, score/1.diff agree, so what is wrong with conv/0.diff lies in the graph's way back"
        " to it, not in its loss"
    ]


UNSTABLE = """
    <ir_version: 8, opset_import: ["" : 18]>
    softmax (float[batch, 4] x, int64[batch] t) => (float loss)
    <int64[1] last = {-1}, int64[0] all = {}>
    {
        e = Exp(x)
        sum = ReduceSum(e, last)
        p = Div(e, sum)
        place = Unsqueeze(t, last)
        p_t = GatherElements<axis = 1>(p, place)
        log = Log(p_t)
        nll = Neg(log)
        loss = ReduceMean<keepdims = 0>(nll, all)
    }
"""


def test_a_formula_that_overflows_on_extreme_scores_is_rejected():
    verdict = crosscheck(parser.parse_model(UNSTABLE), "SoftmaxLossLayer", bottoms=["x", "t"], loss="loss")
    assert {row.probe for row in verdict.rows if not row.agrees} == {"extreme scores"}
    assert [row.note for row in verdict.rows if not row.agrees] == ["not finite"]


def test_what_no_known_mistake_explains_is_said_to_be_so():
    model = parser.parse_model(UNSTABLE.replace("nll = Neg(log)", "root = Sqrt(p_t) nll = Mul(log, root)"))
    (diagnosis,) = crosscheck(model, "SoftmaxLossLayer", bottoms=["x", "t"], loss="loss").diagnoses
    assert diagnosis.departures == ()
    assert diagnosis.text.startswith("loss: no known mistake explains the difference (")


def test_a_graph_that_cannot_run_with_another_batch_is_rejected():
    model = parser.parse_model(
        UNSTABLE.replace("float[batch, 4] x", "float[batch, 4] y")
        .replace("int64[0] all = {}>", "int64[0] all = {}, int64[2] fixed = {7, 4}>")
        .replace("e = Exp(x)", "x = Reshape(y, fixed) e = Exp(x)")
    )
    verdict = crosscheck(model, "SoftmaxLossLayer", bottoms=["y", "t"], loss="loss")
    failed = {row.probe: row.note for row in verdict.rows if not row.agrees}
    assert {"many samples", "one sample"} <= set(failed)
    assert "ONNX Runtime: " in failed["one sample"]


def test_labels_may_come_from_an_input_through_casts_and_one_hot():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        softmax (float[batch, 4] x, int64[batch, 1] t) => (float loss)
        <int64[1] one = {1}, int64 depth = {4}, float[2] values = {0.0, 1.0}, int64[0] all = {}, int64[1] last = {-1}>
        {
            labels = Squeeze(t, one)
            target = OneHot(labels, depth, values)
            log = LogSoftmax<axis = 1>(x)
            product = Mul(target, log)
            sum = ReduceSum<keepdims = 0>(product, last)
            mean = ReduceMean<keepdims = 0>(sum, all)
            loss = Neg(mean)
        }
    """)
    arguments = dict(layer="SoftmaxLossLayer", loss="loss")
    assert crosscheck(model, bottoms=["x", "labels"], **arguments).agrees
    assert crosscheck(model, bottoms=["x", "target"], param_str="target: distribution", **arguments).agrees


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "SoftmaxLayer"}, "SoftmaxLayer is no loss: the losses are CrossEntropyLossLayer, "),
        ({"layer": "SoftmaxLos"}, "SoftmaxLos is no layer of caffe_layers: the losses are "),
        ({"param_str": "ignore: 3"}, "SoftmaxLossLayer: unknown parameter 'ignore'"),
        ({"bottoms": ["x"]}, r"takes the bottoms scores, labels, \[weights\], in this order, but 1 are given"),
        ({"bottoms": ["xx", "t"]}, "has no tensor 'xx': did you mean 'x'"),
        ({"bottoms": ["t", "x"]}, "the scores 't' hold int64, not floats"),
        ({"loss": "p_t"}, r"the loss 'p_t' must be one float, but has the shape \(7, 1\) of float32"),
        ({"gradients": {"e": "t"}}, "e=t: 't' is given as the labels, which SoftmaxLossLayer has no gradient by"),
        ({"gradients": {"e": "p_t"}}, "e=p_t: the scores 'x' are not computed from 'p_t'"),
        ({"gradients": {"sum": "x"}}, r"the gradient 'sum' has the shape \(7, 1\), but 'x' has \(7, 4\)"),
        ({"gradients": {"place": "x"}}, "the gradient 'place' holds int64, not floats"),
        ({"parameters": {"x": "weight"}}, "SoftmaxLossLayer has no parameter 'weight': did you mean 'class_weight'"),
        ({"parameters": {"t": "normalization"}}, "no values can be drawn for the parameter normalization"),
        ({"loss_weight": 0.0}, "loss_weight is 0: gradients can be judged by a number other than 0 alone"),
        ({"inputs": {"y": np.zeros(2)}}, "inputs: the graph has no input 'y'; it takes x, t"),
        ({"inputs": {"x": np.zeros((2, 4))}}, "inputs: x holds float64, but the graph takes float32"),
        ({"inputs": {"x": np.zeros((2, 3), np.float32)}}, r"x has the shape \(2, 3\), but the graph takes batch×4"),
        ({"inputs": {"x": np.zeros((2, 4), np.float32)}}, "inputs lacks t, which the graph takes too"),
        (
            {"inputs": {"x": np.zeros((2, 4), np.float32), "t": np.array([0, 3])}, "param_str": "class_weight: [1]"},
            "class_weight has 1 numbers, but there are 4 channels",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(changes, message):
    arguments = dict(layer="SoftmaxLossLayer", bottoms=["x", "t"], loss="loss") | changes
    with pytest.raises((GraphError, LayerError), match=message) as caught:
        crosscheck(parser.parse_model(UNSTABLE), **arguments)
    assert "\n" not in str(caught.value)


def test_labels_that_the_layer_refuses_are_named():
    arrays = {"x": np.zeros((2, 4), np.float32), "t": np.array([0, -1])}
    with pytest.raises(LayerError, match=r"softmax_loss: labels \(bottom\[1\]\) must be integral and in 0 to 3"):
        crosscheck(parser.parse_model(UNSTABLE), "SoftmaxLossLayer", bottoms=["x", "t"], loss="loss", inputs=arrays)


def test_the_function_is_a_name_of_the_package():
    assert caffe_tools.crosscheck is crosscheck


# The command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path):
    """Runs ``crosscheck`` with the words of a line on the graph of UNSTABLE; ``{}`` is the folder that it is in."""
    onnx.save_model(parser.parse_model(UNSTABLE), tmp_path / "graph.onnx")

    def run(line):
        words = ["crosscheck", *(word.replace("{}", str(tmp_path)) for word in line.split())]
        options = make_parser().parse_args(words)
        return options.command(options)

    return run


TELLS = "{}/graph.onnx --layer SoftmaxLossLayer --bottom x --bottom t --loss loss"


def test_the_exit_code_tells_agreement_from_disagreement(command, tmp_path, capsys):
    np.savez(tmp_path / "small.npz", x=np.ones((2, 4), np.float32), t=np.array([0, 3]))
    assert command(f"{TELLS} --inputs {{}}/small.npz") == 0
    assert "The loss agrees on the given inputs." in capsys.readouterr().out
    assert command(TELLS) == 1
    assert "it differs on extreme scores." in capsys.readouterr().out


def test_the_diagnosis_is_printed_and_written_as_json(command, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.savez(tmp_path / "some.npz", x=x, t=np.array([0, 1, 2, 3, 3, 0]))
    assert command(f"{TELLS} --inputs {{}}/some.npz --param-str label_smoothing:0.5 --json {{}}/verdict.json") == 1
    assert "loss would agree if label_smoothing were left out." in capsys.readouterr().out
    written = json.loads((tmp_path / "verdict.json").read_text())
    assert written["agrees"] is False
    assert written["diagnoses"][0]["departures"] == ["label_smoothing-left-out"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}/none.onnx --layer SoftmaxLossLayer --bottom x --bottom t --loss loss", "none.onnx is not there"),
        (f"{TELLS} --grad e", "--grad 'e' is not of the form NAME=OF"),
        (f"{TELLS} --grad e=x --grad e=x", "--grad names a tensor twice"),
        (f"{TELLS} --param w", "--param 'w' is not of the form INPUT=PARAMETER"),
        (f"{TELLS} --param x=clas_weight", "did you mean 'class_weight'"),
    ],
)
def test_bad_usage_is_refused(command, line, message):
    with pytest.raises(GraphError, match=message):
        command(line)


def test_a_file_that_is_no_onnx_model_is_refused(command, tmp_path):
    (tmp_path / "graph.json").write_text('{"name": "net"}')
    (tmp_path / "graph.onnx").write_text("name: 'net'")
    for name in ("graph.onnx", "graph.json"):
        with pytest.raises(GraphError, match=f"{name} is no ONNX model"):
            command(TELLS.replace("graph.onnx", name))


def test_damaged_models_raise_the_tools_own_errors(tmp_path):
    whole = small_net().SerializeToString()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for number in range(60):
        damaged = bytearray(whole if number % 4 else whole[: random.integers(len(whole))])
        for _ in range(3):
            damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            crosscheck(path, **SMALL_NET)
        except (GraphError, LayerError):
            pass  # any other exception fails the test
